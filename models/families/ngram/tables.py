"""Layers that look up what was counted, in sorted tables of any size."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ...backbone import Tensor

LAST_KEY = np.iinfo(np.int64).max
"""Stands behind all keys, so that a binary search always finds a place."""


class TableLayer(keras.layers.Layer):
    """A layer whose weights are tables that no gradient changes.

    XLA cannot compile it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = False

    def empty_tables(self) -> Any:
        """A named tuple of arrays, as they are before anything was counted.

        Those with a name that ends in `keys` are of int64.
        """
        raise NotImplementedError

    def build(self, *_: Any) -> None:
        self._add_tables(self.empty_tables())
        self.built = True

    @property
    def tables(self) -> Any:
        """The tables as NumPy arrays."""
        kind = type(self.empty_tables())
        return kind(*(ops.convert_to_numpy(weight) for weight in self._tables))

    @tables.setter
    def tables(self, tables: Any) -> None:
        self._tracker.unlock()
        for weight in self._tables:
            self._untrack_variable(weight)
        self._add_tables(tables)
        self._tracker.lock()

    def _add_tables(self, tables: Any) -> None:
        self._tables = [
            self.add_weight(
                name=name,
                shape=table.shape,
                # Bound as a default, as initializers run when they are called.
                initializer=lambda shape, dtype, table=table: ops.convert_to_tensor(
                    table, dtype
                ),
                dtype="int64" if name.endswith("keys") else self.variable_dtype,
                trainable=False,
                autocast=False,
            )
            for name, table in zip(tables._fields, tables, strict=True)
        ]

    def save_own_variables(self, store: Any) -> None:
        names = self.empty_tables()._fields
        for name, weight in zip(names, self._tables, strict=True):
            store[name] = weight

    def load_own_variables(self, store: Any) -> None:
        kind = type(self.empty_tables())
        self.tables = kind(*(np.asarray(store[name]) for name in kind._fields))


def find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where in sorted `keys` each of `wanted` is or would be, and whether it is."""
    place = lower_bound(keys, wanted)
    return place, tf.equal(tf.gather(keys, place), wanted)


# `tf.searchsorted` cannot search for nothing, as an empty batch does.
def lower_bound(keys: Tensor, wanted: Tensor) -> Tensor:
    """The first places in sorted `keys` that are not below `wanted`, int64."""
    place = tf.raw_ops.LowerBound(
        sorted_inputs=keys[None],
        values=tf.reshape(wanted, [1, -1]),
        out_type=tf.int64,
    )
    return tf.reshape(place, tf.shape(wanted))


def upper_bound(keys: Tensor, wanted: Tensor) -> Tensor:
    """The first places in sorted `keys` that are above `wanted`, int64."""
    place = tf.raw_ops.UpperBound(
        sorted_inputs=keys[None],
        values=tf.reshape(wanted, [1, -1]),
        out_type=tf.int64,
    )
    return tf.reshape(place, tf.shape(wanted))
