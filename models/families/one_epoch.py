"""What `fit` of models that learn without batches has in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def one_epoch(model: keras.Model, callbacks: Any = None) -> Iterator[dict[str, float]]:
    """Tells callbacks of one epoch, in which the model learns.

    Yields:
        The logs of the epoch, for what is within to fill; then they are in
        `model.history`, too.
    """
    listeners = keras.callbacks.CallbackList(callbacks, add_history=True, model=model)
    listeners.on_train_begin()
    listeners.on_epoch_begin(0)
    logs: dict[str, float] = {}
    yield logs
    listeners.on_epoch_end(0, logs)
    listeners.on_train_end(logs)


def forget_graphs(model: keras.Model) -> None:
    """Drops what was traced with variables that are no longer there."""
    model.predict_function = model.test_function = model.train_function = None
    if hasattr(model, "generate_function"):
        model.generate_function = None
