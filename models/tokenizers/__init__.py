"""Tokenizers: text to ids and back, in Python and in the graph.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from ..references import load

TOKENIZERS: dict[str, str] = {
    "bpe": "langzoo.models.tokenizers.sentence_piece:learn",
    "unigram": "langzoo.models.tokenizers.sentence_piece:learn",
    "word_piece": "langzoo.models.tokenizers.word_piece:learn",
    "words": "langzoo.models.tokenizers.words:learn",
    "characters": "langzoo.models.tokenizers.sentence_piece:learn_characters",
    "bytes": "langzoo.models.tokenizers.byte:learn",
    "preset": "langzoo.models.tokenizers.keras_hub:learn",
    "file": "langzoo.models.tokenizers.files:learn",
}
"""The types of tokenizers by the name used in configurations, each a function.

From the section `tokenizer` and a `Corpus` it makes a tokenizer, or raises a ValueError
of one line."""


class Corpus(Protocol):
    """What a tokenizer can be learned from."""

    preset: str
    """The preset of the model, whose tokenizer can be taken instead, or ""."""

    def sample(self) -> list[str]:
        """A sample of the documents, of bounded size."""

    def commonest(
        self, count: Callable[[list[str]], Counter[str]], most: int
    ) -> dict[str, int]:
        """The units that are the most frequent in all documents, and how often.

        Args:
            count: Counts the units of some texts.
            most: How many units at most.
        """

    def listed(
        self, count: Callable[[list[str]], Counter[str]], most: int
    ) -> list[str]:
        """Likewise the units that get a token each; tells the share of all others."""


def restored(folder: str) -> Any:
    """The tokenizer of a preset that one of these has saved."""
    import keras_hub

    register()
    return keras_hub.tokenizers.Tokenizer.from_preset(folder)


def register() -> None:
    """Imports the modules of all types, so that Keras knows their classes."""
    for reference in TOKENIZERS.values():
        load(reference)
