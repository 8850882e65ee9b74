"""How hyperparameters are searched for, as a person says it.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from ...models.settings import Section
from . import search_space

LONGEST = 9
"""Times as long as its shortest is the longest trial of Hyperband."""


class SearchSettings(Section):
    """A search for hyperparameters before the training, which takes the best.

    A trial is a training with values of `space` in the place of the configuration's;
    the one that does best on the evaluation split, by what the gate goes by, is taken.
    """

    algorithm: Literal["hyperband", "random", "bayesian"] = "hyperband"
    """`hyperband` begins many trials and goes on with the best; `bayesian` draws near
    what was good."""
    trials: Annotated[int, Field(ge=1)] = 13
    """How many there are at most. Hyperband's first nine and the four that go on from
    them are 13; all of a round are 23."""
    steps: Annotated[int, Field(ge=1)] = 300
    """Of a trial, in the place of `trainer.steps`; with `hyperband` of the longest, and
    the others have a third and a ninth."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is drawn."""
    space: Annotated[dict[str, Any], pydantic.AfterValidator(search_space.normalized)]
    """By key of `model` and `trainer`, such as `model.hidden_dim`, a list of values, or
    a range, such as `{min: 1e-3, max: 1e-2, sampling: log}` or, with equal distances,
    `{min: 0.0, max: 0.5, step: 0.1}`; a range of two integers is one of integers. The
    default is that of the family."""

    @pydantic.model_validator(mode="after")
    def _hyperband_has_steps(self) -> SearchSettings:
        if self.algorithm == "hyperband" and self.steps < LONGEST:
            raise ValueError(
                f"search.steps {self.steps} must be at least {LONGEST} with "
                "search.algorithm hyperband"
            )
        return self
