"""Training with numbers of half the size."""

from __future__ import annotations

from typing import Any

from ..backbone import require
from .choices import PRECISIONS


def in_precision(model: Any, precision: str) -> Any:
    """The same model, computing with another precision, with weights of its own.

    Args:
        model: a model of a task with a backbone, of the zoo or of KerasHub.
        precision: a key of `choices.PRECISIONS`. For `"float16"` the optimizer must
            scale the loss, which Keras does in `compile()`.

    Returns:
        A model of the same class with the same preprocessor, not compiled.
        `model.set_weights(trained.get_weights())` brings what it has learned back.

    Raises:
        ValueError: if there is no such precision.

    References:
        - [Micikevicius et al., 2017](https://arxiv.org/abs/1710.03740)
    """
    require(
        precision in PRECISIONS,
        f"The precision must be one of {', '.join(PRECISIONS)}.",
        precision=precision,
    )
    backbone = model.backbone
    config = {**backbone.get_config(), "dtype": PRECISIONS[precision]}
    task = getattr(model, "model", model)
    config = {**task.get_config(), "backbone": type(backbone).from_config(config)}
    twin = type(task).from_config({**config, "preprocessor": task.preprocessor})
    twin.set_weights(task.get_weights())
    around = getattr(model, "around", None)
    return around(twin) if around else twin
