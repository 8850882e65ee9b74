"""How documents become rows, as a person says it.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from ....models.settings import Section

Packing = Literal["contiguous", "best_fit", "lines"]
PACKINGS: tuple[str, ...] = get_args(Packing)


class AugmentationSettings(Section):
    """Noise for small corpora: in training, and only there, `<unk>` takes the place of
    some of the tokens that the model reads; what it predicts stays.

    Never of `<s>`, `</s>` and padding. Each step draws anew. With both kinds a token is
    hidden if either hides it.

    References:
        - [Bowman et al., 2015](https://arxiv.org/abs/1511.06349) (word dropout)
        - [Xie et al., 2017](https://arxiv.org/abs/1703.02573) (blank noising)
        - [Joshi et al., 2019](https://arxiv.org/abs/1907.10529) (spans; there of
          lengths drawn from a geometric distribution, 3.8 tokens on average)
    """

    token_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tokens that are hidden one by one."""
    span_masking: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tokens that are hidden in spans."""
    span_length: Annotated[int, Field(ge=1)] = 3
    """Tokens in a span; spans may overlap, and then make a longer one."""
