"""The `run_fn` of Trainer.

TFX reloads the module of a function that it is given by name, so no class may live
here: it would exist twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from ...models import zoo
from ...models.ngram import NgramCausalLM
from ...models.tokenizers import TextTokenizer
from ...serving import export
from ..errors import InputError
from ..progress import report, show
from ..transform.executor import tokenizer_folder
from . import training
from .packing import make_windows
from .watching import LOGS_FOLDER, Watching, WatchingConfig, write_tables
from .windows import TokenStream, read_token_ids

PRESET_FOLDER = "preset"


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports a model, as `Trainer` says.

    Writes the SavedModel to `serving_model_dir`; the Keras preset, the training's
    figures and its logs to `model_run_dir`.
    """
    config = fn_args.custom_config
    training_config = training.TrainingConfig.of(
        config["model"]["family"],
        pretrained=config["model"].get("pretrained", False)
        or "initial_weights" in config["model"],
        **config["training"],
    )
    keras.utils.set_random_seed(training_config.seed)
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(
        tokenizer_folder(fn_args.transform_graph_path)
    )
    try:
        model = zoo.build_causal_lm(tokenizer=tokenizer, **config["model"])
    except ValueError as error:
        raise InputError(f"model: {error}") from error
    checkpoints = _checkpoint_folder(fn_args)
    # Beside the checkpoints, for what a killed run has shown to be gone on with.
    watching = Watching(
        WatchingConfig.of(config["watch"]),
        os.path.join(checkpoints, LOGS_FOLDER),
        settings={key: config[key] for key in ("model", "training")},
    )
    with tempfile.TemporaryDirectory() as scratch:
        show("packing windows")
        # An n-gram model counts documents whole.
        counted = isinstance(model, NgramCausalLM)
        packing = "contiguous" if counted else training_config.packing
        train_windows, eval_windows = (
            _pack(
                f"{scratch}/{name}",
                read_token_ids(patterns, fn_args.transform_graph_path),
                tokenizer,
                model.context_length,
                packing,
            )
            for name, patterns in (
                ("train", fn_args.train_files),
                ("eval", fn_args.eval_files),
            )
        )
        windows = (train_windows, eval_windows)
        if isinstance(model, NgramCausalLM):
            documents = read_token_ids(
                fn_args.train_files, fn_args.transform_graph_path
            )
            result = training.count(model, documents, *windows, training_config)
        else:
            trained = training.prepared(model, training_config)
            watching.sample_from(model, trained)
            result = training.train(
                training.network_of(trained, training_config),
                *windows,
                training_config,
                checkpoints,
                bytes_per_token=_bytes_per_token(
                    tokenizer,
                    read_token_ids(fn_args.eval_files, fn_args.transform_graph_path),
                ),
                watching=watching,
            )
            if trained is not model:
                model.backbone.set_weights(trained.backbone.get_weights())
    report(
        f"{result.parameters:,} parameters, {result.steps} steps in "
        f"{result.seconds:.0f} s, evaluation loss {result.eval_loss:.3f} nats a token"
    )
    show("exporting")
    export.export_causal_lm(model, fn_args.serving_model_dir, **config["export"])
    model.save_to_preset(os.path.join(fn_args.model_run_dir, PRESET_FOLDER))
    result.write(fn_args.model_run_dir)
    write_tables(result, fn_args.model_run_dir)
    watching.keep(fn_args.model_run_dir)
    if tf.io.gfile.exists(checkpoints):
        tf.io.gfile.rmtree(checkpoints)


def _pack(
    path: str,
    documents: Iterator[np.ndarray],
    tokenizer: keras_hub.tokenizers.Tokenizer,
    context_length: int,
    packing: str,
) -> TokenStream:
    TokenStream.write(
        path,
        documents,
        vocabulary_size=tokenizer.vocabulary_size(),
        start_id=tokenizer.start_token_id,
        end_id=tokenizer.end_token_id,
        pad_id=tokenizer.pad_token_id,
        unk_id=tokenizer.unk_token_id,
    )
    return make_windows(path, context_length, packing)


def _bytes_per_token(
    tokenizer: TextTokenizer, documents: Iterator[np.ndarray]
) -> float:
    """Bytes of text a token that is predicted, the ends of documents among them."""
    lengths = np.array([len(piece) for piece in tokenizer.token_bytes()])
    text = tokens = 0
    for ids in documents:
        text += int(lengths[ids].sum())
        tokens += len(ids) + 1
    return text / max(tokens, 1)


def _checkpoint_folder(fn_args: FnArgs) -> str:
    """Names the checkpoints after all that decides the training, data included."""
    config = {k: v for k, v in fn_args.custom_config.items() if k != "watch"}
    inputs = [fn_args.train_files, fn_args.transform_graph_path, config]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return os.path.join(fn_args.custom_config["checkpoint_root"], key)
