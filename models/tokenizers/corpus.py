"""What tokenizers are learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol


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
