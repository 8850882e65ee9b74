"""The `tuner_fn` of Tuner.

TFX reloads the module of a function that it is given by name, so no class may live
here: it would exist twice.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import keras_hub
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from ...models.ngram import NgramCausalLM
from ..progress import show
from ..trainer import training
from ..trainer.hyperparameters import with_hyperparameters
from ..trainer.packing import make_windows
from ..trainer.run import bytes_per_token, checkpoint_folder, make_model, pack
from ..trainer.windows import read_token_ids
from ..transform.executor import tokenizer_folder
from .search import Measured, Search, Train, make_oracle

# What of a search decides how a single trial ends.
_OF_A_TRIAL = ("model", "training", "checkpoint_root", "source", "preset_hash")


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Makes the search, as `Tuner` says."""
    config = fn_args.custom_config
    settings = dict(config["search"])
    steps = settings.pop("steps")
    keyed = {name: config[name] for name in _OF_A_TRIAL} | {"steps": steps}
    folder = checkpoint_folder(fn_args, keyed)
    search = Search(make_oracle(**settings), f"{folder}-search", steps)
    return TunerFnResult(search, {"trainings": trainings(fn_args, steps)})


@contextlib.contextmanager
def trainings(fn_args: FnArgs, longest: int) -> Iterator[Train]:
    """Packs the corpus, once; gives what trains a trial.

    Args:
        fn_args: What `tuner_fn` got.
        longest: Steps of the longest trials. A shorter one is the beginning of such.
    """
    config = fn_args.custom_config
    graph = fn_args.transform_graph_path
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(tokenizer_folder(graph))
    files = {"train": fn_args.train_files, "eval": fn_args.eval_files}
    show("packing windows")
    with tempfile.TemporaryDirectory() as scratch:
        for split, patterns in files.items():
            documents = read_token_ids(patterns, graph)
            pack(f"{scratch}/{split}", documents, tokenizer, 1, "contiguous")
        ratio = bytes_per_token(tokenizer, read_token_ids(files["eval"], graph))

        def train(values: Mapping[str, Any], steps: int, folder: str) -> Measured:
            changed = with_hyperparameters(config, values)
            changed["training"]["steps"] = steps
            keras.backend.clear_session()
            trial, model = make_model(changed, tokenizer)
            counted = isinstance(model, NgramCausalLM)
            packing = "contiguous" if counted else trial.packing
            train_windows, eval_windows = (
                make_windows(f"{scratch}/{split}", model.context_length, packing)
                for split in files
            )
            windows = (train_windows, eval_windows)
            if isinstance(model, NgramCausalLM):
                documents = read_token_ids(files["train"], graph)
                result = training.count(model, documents, *windows, trial)
            else:
                network = training.network_of(training.prepared(model, trial), trial)
                result = training.train(
                    network, *windows, trial, folder, ratio, schedule_steps=longest
                )
            bits = result.eval_loss / math.log(2) / ratio
            return Measured(bits, result.parameters)

        yield train
