"""The families by name."""

from __future__ import annotations

import inspect
from typing import Any

from .backbone import CausalBackbone, require
from .causal_lm import CausalLM, CausalLMPreprocessor
from .convolutional import GatedConvBackbone
from .recurrent import LSTMBackbone
from .transformer import TransformerBackbone

FAMILIES: dict[str, type[CausalBackbone]] = {
    "transformer": TransformerBackbone,
    "lstm": LSTMBackbone,
    "gated_conv": GatedConvBackbone,
}
"""The backbone class of each family, by the name used in configurations."""

_GIVEN = {"self", "vocabulary_size", "max_sequence_length", "kwargs"}


def hyperparameters(family: str) -> dict[str, Any]:
    """The hyperparameters of a family and their defaults.

    Raises:
        ValueError: if there is no such family.
    """
    require(
        family in FAMILIES,
        f"`family` must be one of {sorted(FAMILIES)}.",
        family=family,
    )
    parameters = inspect.signature(FAMILIES[family].__init__).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in _GIVEN
    }


def build_causal_lm(
    family: str, tokenizer: Any, context_length: int, **hyperparameters_: Any
) -> CausalLM:
    """Builds an untrained model of a family.

    Args:
        family: a key of `FAMILIES`.
        tokenizer: a tokenizer of `langzoo.models`.
        context_length: int. Longest input, in tokens.
        **hyperparameters_: arguments of the family's backbone, in place of their
            defaults. See `hyperparameters()`.

    Returns:
        A compiled `CausalLM` with its preprocessor.

    Raises:
        ValueError: if the family or a hyperparameter is unknown, or a value is out of
            range.

    Example:
    ```python
    model = build_causal_lm("lstm", ByteTokenizer(), 64, num_layers=2)
    ```
    """
    known = hyperparameters(family)
    unknown = sorted(set(hyperparameters_) - set(known))
    require(
        not unknown,
        f"Hyperparameters of {family!r} must be among {sorted(known)}.",
        unknown=unknown,
    )
    require(
        context_length > 0,
        "`context_length` must be positive.",
        context_length=context_length,
    )
    backbone = FAMILIES[family](
        vocabulary_size=tokenizer.vocabulary_size(),
        max_sequence_length=context_length,
        **hyperparameters_,
    )
    preprocessor = CausalLMPreprocessor(tokenizer, sequence_length=context_length)
    return CausalLM(backbone=backbone, preprocessor=preprocessor)
