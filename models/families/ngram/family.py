"""The n-gram models.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..family import Family, FamilySettings, Preset


class NgramSettings(FamilySettings):
    """An n-gram model with Kneser-Ney smoothing; the trainer only counts."""

    context_length: Annotated[int, Field(ge=8, le=65_536)] = 128
    """Tokens of a window; a prediction sees the last `order - 1`."""
    order: Annotated[int, Field(ge=1)] = 5
    """Tokens of the longest n-gram."""
    max_ngrams: Annotated[int, Field(ge=1000)] = 4_000_000
    """N-grams of each length that are held, and contexts; where a text of millions of
    tokens has more, the rarest give way. It bounds the memory: some 400 bytes each at
    order 5, with the default 1.6 GB."""


_CLASSES = "langzoo.models.families.ngram"
NGRAM = Family(
    name="ngram",
    settings=NgramSettings,
    backbone=f"{_CLASSES}.causal_lm:NgramBackbone",
    tasks={
        "causal_lm": f"{_CLASSES}.causal_lm:NgramCausalLM",
        "text_classifier": f"{_CLASSES}.text_classifier:NgramTextClassifier",
        "token_classifier": f"{_CLASSES}.token_classifier:NgramTokenClassifier",
        "seq_to_seq_lm": f"{_CLASSES}.seq_to_seq_lm:NgramSeqToSeqLM",
    },
    presets={"ngram_base": Preset.of(NgramSettings, "ngram", 128, 8192, order=5)},
    # For `search.algorithm: random`.
    search_space={"model.order": {"min": 2, "max": 7}},
    learns_by_gradient=False,
    multiplies_output_weights=False,
    has_hidden_states=False,
)
