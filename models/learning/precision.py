"""Training with numbers of half the size."""

from __future__ import annotations

from typing import Any

from ..backbone import require
from .choices import PRECISIONS


def in_precision(model: Any, precision: str) -> Any:
    """The same model, computing with another precision, with weights of its own.

    Args:
        model: a causal language model with a backbone, of the zoo or of KerasHub.
        precision: a key of `choices.PRECISIONS`. For `"float16"` the optimizer must
            scale the loss, which Keras does in `compile()`.

    Returns:
        A model of the same class with the same preprocessor, not compiled.
        `model.backbone.set_weights(trained.backbone.get_weights())` brings what it
        has learned back.

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
    twin = type(backbone).from_config(config)
    twin.set_weights(backbone.get_weights())
    task = getattr(model, "model", model)
    return type(task)(backbone=twin, preprocessor=task.preprocessor)
