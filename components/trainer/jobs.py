"""What Trainer trains, as every process that takes part needs it."""

from __future__ import annotations

import dataclasses
import functools
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
from ...models.ngram import NgramCausalLM
from ...models.tokenizers import TextTokenizer
from ..errors import InputError
from ..progress import show
from ..transform.executor import tokenizer_folder
from .distribution import is_chief
from .packing import make_windows
from .training import (
    TrainingConfig,
    TrainingResult,
    count,
    network_of,
    prepared,
    train,
)
from .watching import LOGS_FOLDER, Watching, WatchingConfig
from .windows import TokenStream, read_token_ids


@dataclasses.dataclass(frozen=True)
class Job:
    """A model, its training, and the data.

    Attributes:
        model: `family` and what else `zoo.build_causal_lm` takes.
        training: Settings of `TrainingConfig.of`.
        train_files: Patterns of the transformed examples to learn from.
        eval_files: Patterns of those to evaluate on.
        transform_graph: Folder of the graph that made them.
        checkpoints: Folder for checkpoints, of this job alone.
        watch: How it is watched, as `WatchingConfig.of` takes it.
    """

    model: dict[str, Any]
    training: dict[str, Any]
    train_files: list[str]
    eval_files: list[str]
    transform_graph: str
    checkpoints: str
    watch: dict[str, Any] | str = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, fn_args: FnArgs) -> Job:
        """Returns the job that Trainer was given.

        Its checkpoints are named after all that decides the training, data included.
        """
        config = dict(fn_args.custom_config)
        watch = config.pop("watch")
        inputs = [fn_args.train_files, fn_args.transform_graph_path, config]
        text = json.dumps(inputs, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(
            model=config["model"],
            training=config["training"],
            train_files=fn_args.train_files,
            eval_files=fn_args.eval_files,
            transform_graph=fn_args.transform_graph_path,
            checkpoints=os.path.join(config["checkpoint_root"], key),
            watch=watch,
        )

    @functools.cached_property
    def config(self) -> TrainingConfig:
        """How the model is trained."""
        pretrained = self.model.get("pretrained", False)
        return TrainingConfig.of(
            self.model["family"],
            pretrained=pretrained or "initial_weights" in self.model,
            **self.training,
        )

    @functools.cached_property
    def tokenizer(self) -> TextTokenizer:
        """What made the token ids."""
        return keras_hub.tokenizers.Tokenizer.from_preset(
            tokenizer_folder(self.transform_graph)
        )

    def build(self) -> Any:
        """Returns the model before training, the same one every time.

        Raises:
            InputError: Where the family cannot be built so.
        """
        keras.utils.set_random_seed(self.config.seed)
        try:
            return zoo.build_causal_lm(tokenizer=self.tokenizer, **self.model)
        except ValueError as error:
            raise InputError(f"model: {error}") from error

    def with_weights(self, weights: list[np.ndarray]) -> Any:
        """Returns the model with the weights of another's backbone."""
        model = self.build()
        model.backbone.set_weights(weights)
        return model

    def train(self, strategy: tf.distribute.Strategy) -> tuple[Any, TrainingResult]:
        """Builds the model and trains it, by a strategy."""
        with strategy.scope():
            model = self.build()
        with tempfile.TemporaryDirectory() as scratch:
            show("packing windows")
            # An n-gram model counts documents whole.
            counted = isinstance(model, NgramCausalLM)
            packing = "contiguous" if counted else self.config.packing
            train_windows, eval_windows = (
                make_windows(
                    self._pack(os.path.join(scratch, name), patterns),
                    model.context_length,
                    packing,
                )
                for name, patterns in (
                    ("train", self.train_files),
                    ("eval", self.eval_files),
                )
            )
            windows = (train_windows, eval_windows)
            if counted:
                documents = self._documents(self.train_files)
                return model, count(model, documents, *windows, self.config)
            with strategy.scope():
                trained = prepared(model, self.config)
                network = network_of(trained, self.config)
            watching = self.logs()
            if is_chief(strategy):
                watching.sample_from(model, trained)
            result = train(
                network,
                *windows,
                self.config,
                self.checkpoints,
                bytes_per_token=self._bytes_per_token(),
                watching=watching if is_chief(strategy) else None,
            )
            if trained is not model:
                model.backbone.set_weights(trained.backbone.get_weights())
        return model, result

    def logs(self) -> Watching:
        """Returns what shows the training.

        Its logs lie beside the checkpoints, for what a killed run has shown to be gone
        on with.
        """
        return Watching(
            WatchingConfig.of(self.watch),
            os.path.join(self.checkpoints, LOGS_FOLDER),
            settings={"model": self.model, "training": self.training},
        )

    def _documents(self, patterns: list[str]) -> Iterator[np.ndarray]:
        return read_token_ids(patterns, self.transform_graph)

    def _pack(self, path: str, patterns: list[str]) -> str:
        TokenStream.write(
            path,
            self._documents(patterns),
            vocabulary_size=self.tokenizer.vocabulary_size(),
            start_id=self.tokenizer.start_token_id,
            end_id=self.tokenizer.end_token_id,
            pad_id=self.tokenizer.pad_token_id,
            unk_id=self.tokenizer.unk_token_id,
        )
        return path

    def _bytes_per_token(self) -> float:
        """Bytes of text a token that is predicted, ends of documents among them."""
        lengths = np.array([len(piece) for piece in self.tokenizer.token_bytes()])
        text = tokens = 0
        for ids in self._documents(self.eval_files):
            text += int(lengths[ids].sum())
            tokens += len(ids) + 1
        return text / max(tokens, 1)
