"""How a model adapts to a text while it scores it.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...settings import Section

LARGEST_CACHE = 10_000


class NeuralCache(Section):
    """A cache over the document's last tokens, mixed with what the model says.

    Each token counts the more, the more the hidden state before it is like the present
    one; of a family without hidden states (n-grams, KerasHub's) all count alike.

    References:
        - [Grave et al., 2017](https://arxiv.org/abs/1612.04426)
        - [Kuhn and De Mori, 1990](https://doi.org/10.1109/34.56193), all counting alike
    """

    size: Annotated[int, Field(ge=1, le=LARGEST_CACHE)] = 500
    """Tokens that it holds, the last ones."""
    theta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """How much likeness counts: a token counts e ** (theta * the cosine of both hidden
    states); with 0 all count alike."""
    weight: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The cache's share of a token's probability (lambda)."""


class DynamicEvaluation(Section):
    """A gradient step on each segment of a document once it is scored.

    The weights decay towards the trained ones, with which every document begins.

    References:
        - [Krause et al., 2018](https://arxiv.org/abs/1709.07432), section 4 (with plain
          gradients), clipped to a norm of 1
        - [Mikolov et al., 2010](https://doi.org/10.21437/Interspeech.2010-343)
    """

    learning_rate: Annotated[float, Field(ge=0)] = 0.2
    """Of gradient descent on the segment's mean loss, in nats a token."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.003
    """Share of the way back to the trained weights that each step goes."""
    segment_length: Annotated[int, Field(ge=1)] = 32
    """Tokens that are scored between two steps."""


class AdaptSettings(Section):
    """How models adapt while they are evaluated; what is not given is not measured."""

    cache: NeuralCache | None = None
    """`{}` is one with all defaults."""
    dynamic: DynamicEvaluation | None = None
    """Likewise."""
