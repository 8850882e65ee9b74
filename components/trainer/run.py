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
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from ...models import zoo
from ...models.causal_lm import CausalLM
from ...models.keras_hub_adapter import KerasHubCausalLM
from ...models.ngram import NgramCausalLM
from ...models.tokenizers import TextTokenizer
from ...serving import export
from ..errors import InputError
from ..progress import report, show
from ..transform.executor import tokenizer_folder
from . import training
from .hyperparameters import with_hyperparameters
from .packing import make_windows
from .windows import TokenStream, read_token_ids

PRESET_FOLDER = "preset"


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports a model, as `Trainer` says.

    Writes the SavedModel to `serving_model_dir`; the Keras preset and the training's
    figures to `model_run_dir`.
    """
    found = (fn_args.hyperparameters or {}).get("values", {})
    config = with_hyperparameters(fn_args.custom_config, found)
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(
        tokenizer_folder(fn_args.transform_graph_path)
    )
    training_config, model = make_model(config, tokenizer)
    checkpoints = checkpoint_folder(fn_args, config)
    with tempfile.TemporaryDirectory() as scratch:
        show("packing windows")
        # An n-gram model counts documents whole.
        counted = isinstance(model, NgramCausalLM)
        packing = "contiguous" if counted else training_config.packing
        train_windows, eval_windows = (
            pack(
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
            result = training.train(
                training.network_of(trained, training_config),
                *windows,
                training_config,
                checkpoints,
                bytes_per_token=bytes_per_token(
                    tokenizer,
                    read_token_ids(fn_args.eval_files, fn_args.transform_graph_path),
                ),
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
    if tf.io.gfile.exists(checkpoints):
        tf.io.gfile.rmtree(checkpoints)


def make_model(
    config: dict[str, Any], tokenizer: TextTokenizer
) -> tuple[training.TrainingConfig, CausalLM | KerasHubCausalLM]:
    """Builds what `model` and `training` of a configuration say, newly drawn.

    Raises:
        InputError: Where there is no such model.
    """
    training_config = training.TrainingConfig.of(
        config["model"]["family"],
        pretrained=config["model"].get("pretrained", False)
        or "initial_weights" in config["model"],
        **config["training"],
    )
    keras.utils.set_random_seed(training_config.seed)
    try:
        model = zoo.build_causal_lm(tokenizer=tokenizer, **config["model"])
    except ValueError as error:
        raise InputError(f"model: {error}") from error
    return training_config, model


def pack(
    path: str,
    documents: Iterator[np.ndarray],
    tokenizer: keras_hub.tokenizers.Tokenizer,
    context_length: int,
    packing: str,
) -> TokenStream:
    """Writes the tokens of documents into a file, and gives windows of them."""
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


def bytes_per_token(tokenizer: TextTokenizer, documents: Iterator[np.ndarray]) -> float:
    """Bytes of text a token that is predicted, the ends of documents among them."""
    lengths = np.array([len(piece) for piece in tokenizer.token_bytes()])
    text = tokens = 0
    for ids in documents:
        text += int(lengths[ids].sum())
        tokens += len(ids) + 1
    return text / max(tokens, 1)


def checkpoint_folder(fn_args: FnArgs, config: dict[str, Any]) -> str:
    """Names the checkpoints after all that decides the training, data included."""
    inputs = [fn_args.train_files, fn_args.transform_graph_path, config]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return os.path.join(config["checkpoint_root"], key)
