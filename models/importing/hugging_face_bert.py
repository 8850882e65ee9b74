"""Hugging Face's BERT: the weights of a folder, for models of the family `bert`.

References:
    - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..families.bert.backbone import BertBackbone
from ..families.bert.family import BERT
from ..families.bert.hugging_face import hyperparameters
from ..families.transformer.block import DecoderBlock
from ..hugging_face import config_of
from ..tasks.masked_lm import MaskedLM
from .tensors import Tensors

# What heads of other tasks have, and what no weight is.
_OF_OTHERS = re.compile(
    r"(bert\.)?(pooler\..*|embeddings\.position_ids)|cls\..*|classifier\..*"
)
_HEAD = "cls.predictions"


def load_weights(model: Any, folder: str) -> None:
    """Gives a model the weights of a folder, those of the same head among them.

    The first segment is everywhere. A `MaskedLM` keeps the head that it has where the
    folder has none.

    Args:
        model: a model of any task whose backbone is a `BertBackbone` as
            `families.bert.hugging_face` describes the folder's, with as many positions
            or fewer.
        folder: string. Its `config.json` says `model_type` `bert`.

    Raises:
        ValueError: in one line, if the weights are missing or others.
    """
    config = config_of(Path(folder)) or {}
    _require_same(model.backbone, config)
    tensors = Tensors(Path(folder))
    reader = _Reader(tensors, config)
    reader.read_encoder(model.backbone)
    if isinstance(model, MaskedLM) and f"{_HEAD}.transform.dense.weight" in tensors:
        reader.read_head(model)
    others = sorted(name for name in tensors.left if not _OF_OTHERS.fullmatch(name))
    if others:
        raise ValueError(f"no BERT has the tensor {others[0]}")


def _require_same(backbone: BertBackbone, config: dict[str, Any]) -> None:
    """Checks that a backbone is the folder's, but for what training alone knows."""
    folders = BERT.settings_of(**hyperparameters(config)).resolved()
    for name in BERT.hyperparameters():
        own, theirs = getattr(backbone, name), getattr(folders, name)
        if own != theirs and "dropout" not in name and name != "initializer_range":
            raise ValueError(f"{name} must be {theirs}, as of the weights, not {own}")
    length = backbone.max_sequence_length
    if length > folders.context_length:
        raise ValueError(
            f"context_length {length} is more than the weights' "
            f"{folders.context_length} positions"
        )


class _Reader:
    """Puts tensors where they belong.

    Args:
        tensors: the folder's.
        config: its `config.json`.
    """

    def __init__(self, tensors: Tensors, config: dict[str, Any]) -> None:
        self._tensors = tensors
        self._rows = config["vocab_size"]
        self._positions = config["max_position_embeddings"]
        self._segments = config.get("type_vocab_size", 2)
        self._dim = config["hidden_size"]
        self._width = config["intermediate_size"]
        # A model with a head has the encoder as a part.
        first = "embeddings.word_embeddings.weight"
        self._encoder = "bert." if f"bert.{first}" in tensors else ""

    def read_encoder(self, backbone: BertBackbone) -> None:
        dim, table = self._dim, f"{self._encoder}embeddings"
        size, length = backbone.vocabulary_size, backbone.max_sequence_length
        if size > self._rows:
            raise ValueError(
                f"vocab_size {self._rows} is less than the {size} ids of the tokenizer"
            )
        tokens, positions, segments = (
            self._tensors.take(f"{table}.{name}.weight", number, dim, rows=rows)
            for name, number, rows in (
                ("word_embeddings", self._rows, size),
                ("position_embeddings", self._positions, length),
                ("token_type_embeddings", self._segments, 1),
            )
        )
        backbone.token_embedding.embeddings.assign(tokens)
        places: Any = backbone.position_embedding
        places.position_embeddings.assign(positions + segments)
        self._norm(f"{table}.LayerNorm", backbone.embeddings_norm)
        for index, block in enumerate(backbone.blocks):
            self._block(f"{self._encoder}encoder.layer.{index}", block)

    def read_head(self, model: MaskedLM) -> None:
        head, size = model.masked_lm_head, model.backbone.vocabulary_size
        dim = self._dim
        self._dense([f"{_HEAD}.transform.dense"], head._intermediate_dense, dim, dim)
        self._norm(f"{_HEAD}.transform.LayerNorm", head._intermediate_layer_norm)
        names = (f"{_HEAD}.bias", f"{_HEAD}.decoder.bias")
        bias = next((name for name in names if name in self._tensors), names[0])
        head._bias.assign(self._tensors.take(bias, self._rows, rows=size))
        weights = f"{_HEAD}.decoder.weight"
        if weights in self._tensors:
            own = self._tensors.take(weights, self._rows, dim, rows=size)
            if not np.array_equal(own, model.backbone.token_embedding.embeddings):
                raise ValueError(f"the tensor {weights} must be the word embeddings")

    def _block(self, name: str, block: DecoderBlock) -> None:
        dim, width = self._dim, self._width
        attention, feedforward = block.attention, block.feedforward
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        self._dense(parts, attention.query_key_value, dim, dim)
        output = f"{name}.attention.output"
        self._dense([f"{output}.dense"], attention.attention_output, dim, dim)
        self._norm(f"{output}.LayerNorm", block.attention_norm)
        first, second = f"{name}.intermediate.dense", f"{name}.output.dense"
        self._dense([first], feedforward.intermediate, dim, width)
        self._dense([second], feedforward.feedforward_output, width, dim)
        self._norm(f"{name}.output.LayerNorm", block.feedforward_norm)

    def _dense(
        self, names: list[str], layer: keras.layers.Layer, inputs: int, outputs: int
    ) -> None:
        """Dense layers with the same input, beside each other as one."""
        take = self._tensors.take
        kernels = [take(f"{name}.weight", outputs, inputs) for name in names]
        layer.kernel.assign(np.concatenate(kernels).T)
        layer.bias.assign(np.concatenate([take(f"{it}.bias", outputs) for it in names]))

    def _norm(self, name: str, layer: keras.layers.Layer) -> None:
        # TensorFlow's names, in older folders.
        older = f"{name}.gamma" in self._tensors
        gain, center = ("gamma", "beta") if older else ("weight", "bias")
        layer.gamma.assign(self._tensors.take(f"{name}.{gain}", self._dim))
        layer.beta.assign(self._tensors.take(f"{name}.{center}", self._dim))
