"""A family that is not one of ours, as the source of a package of the user's own.

`write(folder)` writes it; with the folder on the path, `FAMILY` names it.
"""

from __future__ import annotations

from pathlib import Path

FAMILY = "mypackage.mingru:FAMILY"
"""What a configuration says of it, as `model.family`."""

RECORD = '''\
"""A minimal GRU: the record of the family."""

from typing import Annotated

from langzoo.models.families.family import Counts, Family, LearnedSettings
from langzoo.models.learning.recipe import Recipe
from pydantic import Field


class MinGRUSettings(LearnedSettings):
    """A stack of minimal GRUs."""

    num_layers: Annotated[int, Field(ge=1)] = 2
    """Layers."""
    hidden_dim: Annotated[int, Field(ge=1)] = 64
    """Width of all of them."""

    def counts(self, vocabulary_size: int) -> Counts:
        width = self.hidden_dim
        products = (2 * self.num_layers * width + vocabulary_size) * width
        return Counts(products, others=(2 * self.num_layers + 1) * width)


FAMILY = Family(
    name="mingru",
    settings=MinGRUSettings,
    backbone="mypackage.backbone:MinGRUBackbone",
    recipe=Recipe(learning_rate=5e-3),
    search_space={"model.hidden_dim": [16, 32]},
    carries_state=True,
    keeps_documents_apart=True,
)
'''

BACKBONE = '''\
"""A minimal GRU: h[t] = (1 - z[t]) h[t - 1] + z[t] c[t], without a loop over time.

See Feng et al., 2024, https://arxiv.org/abs/2410.01201.
"""

import keras
from keras import ops
from langzoo.models import CausalBackbone

from .mingru import FAMILY


class MinGRU(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.gate = keras.layers.Dense(units, dtype=self.dtype_policy, name="gate")
        self.new = keras.layers.Dense(units, dtype=self.dtype_policy, name="new")

    def build(self, input_shape):
        self.gate.build(input_shape)
        self.new.build(input_shape)
        self.built = True

    def call(self, x):
        return self.run(x, ops.zeros_like(x[:, 0]))

    def run(self, x, state, positions=None):
        places = ops.arange(ops.shape(x)[1])  # (T,)
        begins = 0 if positions is None else (places - positions)[:, :, None]
        seen = (places <= places[:, None]) & (places >= begins)  # (B or 1, T, S)
        gate = self.gate(x)  # (B, T, U)
        kept = ops.cumsum(-ops.softplus(ops.cast(gate, "float32")), axis=1)
        share = kept[:, :, None] - kept[:, None]  # (B, T, S, U), of S in T
        share = ops.exp(ops.where(seen[..., None], share, -1e9))
        new = ops.cast(ops.sigmoid(gate) * self.new(x), "float32")  # (B, S, U)
        past = ops.exp(kept) * ops.cast(state, "float32")[:, None]  # (B, T, U)
        if positions is not None:
            past = ops.zeros_like(past)
        return ops.cast(past + ops.einsum("btsu,bsu->btu", share, new), x.dtype)


@keras.saving.register_keras_serializable(package="mypackage")
class MinGRUBackbone(CausalBackbone):
    """A stack of minimal GRUs.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `MinGRUSettings`.
    """

    family = FAMILY

    def make_layers(self, settings, dtype):
        self.token_embedding = keras.layers.ReversibleEmbedding(
            self.vocabulary_size, settings.hidden_dim, dtype=dtype, name="embedding"
        )
        self.stack = [
            MinGRU(settings.hidden_dim, dtype=dtype, name=f"layer_{i}")
            for i in range(settings.num_layers)
        ]
        self.dropout_layer = keras.layers.Dropout(settings.dropout, dtype=dtype)
        self.norm = keras.layers.RMSNormalization(dtype=dtype, name="norm")

    def run_layers(self, token_ids):
        x = self.token_embedding(token_ids)  # (B, T, D)
        for layer in self.stack:
            x = x + self.dropout_layer(layer(x))
        return self.norm(x)

    def empty_cache(self, batch_size, max_length):
        zeros = ops.zeros((batch_size, self.hidden_dim), self.compute_dtype)
        return tuple(zeros for _ in self.stack)

    def call_with_cache(self, token_ids, cache, cache_update_index):
        return self.call_with_state(token_ids, cache)

    def call_with_state(self, token_ids, state, training=None, positions=None):
        x = self.token_embedding(token_ids)  # (B, T, D)
        states = []
        for layer, before in zip(self.stack, state, strict=True):
            outputs = layer.run(x, before, positions)
            states.append(outputs[:, -1])
            x = x + self.dropout_layer(outputs, training=training)
        return self.norm(x), tuple(states)

    def call_packed(self, token_ids, positions, training=None):
        state = self.empty_cache(ops.shape(token_ids)[0], 0)
        return self.call_with_state(token_ids, state, training, positions)[0]
'''


def write(folder: Path) -> Path:
    """Writes the package into a folder, which is to be on the path.

    Returns:
        The folder of the package, `mypackage`.
    """
    package = folder / "mypackage"
    package.mkdir(parents=True)
    for name, source in {
        "__init__": "",
        "mingru": RECORD,
        "backbone": BACKBONE,
    }.items():
        (package / f"{name}.py").write_text(source)
    return package
