"""The `tuner_fn` of Tuner.

TFX reloads the module of a function that it is given by name, so no class may live
here: it would exist twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import keras
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from ...models.tasks import TASKS
from ..progress import show
from ..trainer.distribution import make_strategy
from ..trainer.hyperparameters import with_hyperparameters
from ..trainer.jobs import Job, checkpoint_folder
from .search import Measured, Search, Train, make_oracle
from .settings import SearchSettings


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Makes the search, as `Tuner` says."""
    config = fn_args.custom_config
    settings = SearchSettings(**config["search"])
    folder = checkpoint_folder(fn_args, config, steps=settings.steps)
    search = Search(make_oracle(settings), f"{folder}-search", settings.steps)
    return TunerFnResult(search, {"trainings": trainings(fn_args, settings.steps)})


@contextlib.contextmanager
def trainings(fn_args: FnArgs, longest: int) -> Iterator[Train]:
    """Packs the corpus, once; gives what trains a trial.

    Args:
        fn_args: What `tuner_fn` got.
        longest: Steps of the longest trials. A shorter one is the beginning of such.
    """
    config = fn_args.custom_config
    job = Job.of(fn_args)
    # Trials are short, and those of several workers would have to find each other.
    shared = "one_device" if job.strategy == "multi_worker" else job.strategy
    strategy = make_strategy(shared)
    show("packing windows")
    with tempfile.TemporaryDirectory() as packed:
        job.pack(packed)

        def train(values: Mapping[str, Any], steps: int, folder: str) -> Measured:
            changed = with_hyperparameters(config, values)
            trial = dataclasses.replace(
                job,
                model=changed["model"],
                training={**changed["training"], "steps": steps},
                checkpoints=folder,
            )
            keras.backend.clear_session()
            _, result = trial.train_on(packed, strategy, schedule_steps=longest)
            figure = job.eval_texts(packed).figure(result.eval_loss)
            return Measured(figure, result.parameters, TASKS[job.task].words)

        yield train
