"""Layers that training leaves as they are."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import keras

from ..backbone import require


def freeze(model: Any, patterns: Sequence[str]) -> list[str]:
    """Freezes the layers whose names match: `layer.trainable = False`.

    Compile the model afterwards. Frozen layers still compute, drop out and let
    gradients through.

    Args:
        model: a causal language model of the zoo or of KerasHub.
        patterns: of names of the backbone's layers, such as `"token_embedding"` or
            `"recurrent_[01]"`; `*`, `?` and `[...]` as in file names.

    Returns:
        The names of the frozen layers.

    Raises:
        ValueError: if a pattern matches no layer that has weights, or nothing is left
            to train.

    Example:
    ```python
    freeze(model, ["token_embedding", "block_0"])
    model.compile(optimizer="adamw")
    ```
    """
    layers = {layer.name: layer for layer in model.backbone.layers if layer.weights}
    frozen: dict[str, keras.layers.Layer] = {}
    for pattern in patterns:
        names = fnmatch.filter(layers, pattern)
        require(
            bool(names),
            f"A pattern must match one of the layers {', '.join(layers)}.",
            pattern=pattern,
        )
        frozen.update({name: layers[name] for name in names})
    for layer in frozen.values():
        layer.trainable = False
    require(
        bool(model.backbone.trainable_weights),
        "Some layer must be left to train.",
        patterns=list(patterns),
    )
    return list(frozen)
