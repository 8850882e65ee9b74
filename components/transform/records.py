"""What Transform leaves for others besides what TFX does.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import json
from typing import ClassVar, Self

import pydantic

from ..records import FileRecord, Record


class TokenStatistics(Record):
    """What a tokenizer makes of the documents of a split."""

    tokens: int
    """Number of tokens, without start and end."""
    unknown: int
    """How many of them are the tokenizer's unknown."""
    bytes: int
    """UTF-8 bytes of the texts."""
    symbols: int = 0
    """What spells the unknown ones: their bytes, and an end for each."""
    target: TokenStatistics | None = None
    """The same of their targets, where they have such."""

    @property
    def predicted(self) -> TokenStatistics:
        """Of what a model learns to write: the targets, where there are such."""
        return self.target or self

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def bytes_per_token(self) -> float:
        """Mean length of a token in the text; 0 without tokens."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def unknown_rate(self) -> float:
        """Share of the tokens that are unknown."""
        return self.unknown / self.tokens if self.tokens else 0.0

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens of {self.bytes_per_token:.2f} bytes, "
            f"{self.unknown_rate:.2%} unknown"
        )


class Tokens(FileRecord):
    """The statistics of all splits; they lie in the transformed examples.

    The file holds the splits themselves.
    """

    FILE: ClassVar = "tokens.json"

    splits: dict[str, TokenStatistics]
    """By name."""

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(splits=json.loads(text))

    def dump(self) -> str:
        return json.dumps(self.model_dump(exclude_none=True)["splits"], indent=1)
