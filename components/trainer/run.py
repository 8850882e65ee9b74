"""The `run_fn` of Trainer.

TFX reloads the module of a function that it is given by name, so no class may live
here: it would exist twice.
"""

from __future__ import annotations

import os
import time

from tfx.components.trainer.fn_args_utils import FnArgs

from ...models.tasks import TASKS
from ...serving.export import saved_model
from .. import storage
from ..progress import report, show
from ..text_example_gen.records import Splitting
from . import workers
from .checkpoints import tidy
from .distribution import check_devices, make_strategy
from .jobs import Job
from .records import PRESET_FOLDER


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports a model, as `Trainer` says.

    Writes the SavedModel to `serving_model_dir`; the Keras preset, the training's
    figures and its logs to `model_run_dir`.
    """
    began, job = time.time(), Job.of(fn_args)
    if job.learns_by_gradient:
        check_devices(job.settings)
    if job.strategy == "multi_worker":
        model, result = workers.train(job)
    else:
        strategy = make_strategy(job.strategy)
        model, result = job.train(strategy)
        # What is exported is of one device, and so is a mixture of what was trained.
        if strategy.num_replicas_in_sync > 1 and not job.members:
            model = job.with_weights(model.get_weights())
    report(
        f"{result.parameters:,} parameters, {result.steps} steps in "
        f"{result.seconds:.0f} s, evaluation loss {result.eval_loss:.3f} nats a "
        f"{TASKS[job.task].target}"
    )
    show("exporting")
    options = fn_args.custom_config["export"]
    saved_model.export(model, fn_args.serving_model_dir, task=job.task, **options)
    preset = os.path.join(fn_args.model_run_dir, PRESET_FOLDER)
    with storage.written_here(preset) as folder:
        model.save_to_preset(folder)
    if splitting := Splitting.find(job.transform_graph):
        learned = splitting.after(Splitting.find(job.model.get("initial_weights")))
        learned.write(fn_args.serving_model_dir)
        learned.write(preset)
    result.write(fn_args.model_run_dir)
    result.write_tables(fn_args.model_run_dir)
    job.keep_logs(fn_args.model_run_dir)
    if job.learns_by_gradient:
        tidy(job.checkpoints, began)
