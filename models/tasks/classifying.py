"""How texts are classified: the section `classifier` of a configuration.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from ..settings import Section

PoolingName = Literal["mean", "last", "first", "attention"]
POOLINGS: tuple[str, ...] = get_args(PoolingName)


class ClassifierSettings(Section):
    """How a model with the task `text_classifier` reads texts, and learns labels."""

    pooling: PoolingName | None = None
    """Which hidden states of a text are read: the `mean` of all, the `last`, the
    `first`, or a mean by weights that are learned (`attention`); by default as fits the
    family."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of what the last layer reads that a training step sets to zero."""
    class_weights: (
        Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None
    ) = None
    """How much the examples of a label count in training: `balanced`, all labels alike
    in sum; or a number by label, where others have 1. What is measured is without."""
    random_swap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a text's tokens that change places with others in a training step, drawn
    anew each time (KerasHub's `RandomSwap`)."""
    random_deletion: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of them that a training step leaves out (`RandomDeletion`); one stays."""
