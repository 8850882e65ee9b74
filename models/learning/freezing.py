"""Layers that training leaves as they are, or lets learn slower, or later."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from ..backbone import require


class Pace(NamedTuple):
    """How a layer's weights learn: by a share of the rate, after so many steps."""

    rate: float = 1.0
    start: int = 0


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
    frozen = {
        layer.name: layer
        for layers in _matching(model, patterns).values()
        for layer in layers
    }
    for layer in frozen.values():
        layer.trainable = False
    require(
        bool(model.trainable_weights),
        "Some layer must be left to train.",
        patterns=list(patterns),
    )
    return list(frozen)


def set_pace(
    model: Any,
    rates: Mapping[str, float] | None = None,
    starts: Mapping[str, int] | None = None,
) -> None:
    """Lets layers learn slower, or later: discriminative rates, gradual unfreezing.

    A recipe's optimizer goes by it where it is made with `paced=True`. What a task puts
    behind the backbone learns at the whole rate, from the first step on.

    Args:
        model: as of `freeze`.
        rates: what the learning rate is multiplied by, by patterns as of `freeze`.
            Defaults to `None`, all learn alike.
        starts: steps until which layers keep their weights, likewise. Defaults to
            `None`, all learn from the first one on.

    Raises:
        ValueError: if a pattern matches no layer that has weights, or two of `rates`,
            or two of `starts`, match the same.

    Example:
    ```python
    set_pace(model, {"token_embedding": 0.1}, {"token_embedding": 500})
    model.compile(Recipe().make_optimizer(steps=1000, paced=True))
    ```

    References:
        - [Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146) (ULMFiT)
    """
    rate_of, start_of = _by_layer(model, rates or {}), _by_layer(model, starts or {})
    for layer in model.backbone.layers:
        name = layer.name
        pace = Pace(rate_of.get(name, 1.0), int(start_of.get(name, 0)))
        for weight in layer.weights:
            weight.pace = pace


def pace_of(weight: Any) -> Pace:
    """What `set_pace` has said of a weight."""
    return getattr(weight, "pace", Pace())


def _by_layer(model: Any, values: Mapping[str, float]) -> dict[str, float]:
    """The value of each layer that a pattern matches."""
    found: dict[str, float] = {}
    for pattern, layers in _matching(model, values).items():
        for layer in layers:
            require(
                layer.name not in found,
                f"Only one pattern may match the layer {layer.name}.",
                patterns=list(values),
            )
            found[layer.name] = values[pattern]
    return found


def _matching(
    model: Any, patterns: Iterable[str]
) -> dict[str, list[keras.layers.Layer]]:
    """The layers that have weights and match, for each pattern."""
    layers = {layer.name: layer for layer in model.backbone.layers if layer.weights}
    found = {}
    for pattern in patterns:
        names = fnmatch.filter(layers, pattern)
        require(
            bool(names),
            f"A pattern must match one of the layers {', '.join(layers)}.",
            pattern=pattern,
        )
        found[pattern] = [layers[name] for name in names]
    return found
