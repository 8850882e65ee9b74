"""How documents become rows, as a person says it.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import pydantic
from pydantic import Field

from ....models.settings import Section

Packing = Literal["contiguous", "best_fit", "lines"]
PACKINGS: tuple[str, ...] = get_args(Packing)


class MaskingSettings(Section):
    """What training hides of a text, for a model of task `masked_lm` to say what it is.

    Each step draws anew. Evaluation hides 15 % of the tokens one by one, always the
    same and always by the mask, whatever is said here.

    References:
        - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805) (whole words since)
        - [Joshi et al., 2019](https://arxiv.org/abs/1907.10529) (spans)
    """

    share: Annotated[float, Field(gt=0, le=0.9)] = 0.15
    """Of the tokens that are to predict."""
    units: Literal["tokens", "words", "spans"] = "tokens"
    """What is hidden as a whole: single tokens, words, or spans of tokens."""
    span_length: Annotated[float, Field(ge=1)] = 3.8
    """Tokens of a span, on average; lengths are drawn from a geometric distribution."""
    mask_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Of the tokens to predict, those in whose place the mask stands."""
    random_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Those in whose place any other token stands; what is left stays as it is."""

    @pydantic.model_validator(mode="after")
    def _shares_are_of_one(self) -> MaskingSettings:
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"trainer.masking: mask_share {self.mask_share:g} and random_share "
                f"{self.random_share:g} must be at most 1 together"
            )
        return self


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
