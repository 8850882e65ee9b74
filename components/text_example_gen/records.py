"""What an ingestion leaves for others.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import bisect
import itertools
from typing import ClassVar

from ..records import FileRecord, Record

BINS_AN_OCTAVE = 8


class Profile(Record):
    """What documents are like."""

    lengths: list[int]
    """Number of documents by length: `lengths[i]` of them have from 2**(i / 8) bytes to
    less than 2**((i + 1) / 8)."""
    byte_counts: list[int]
    """How often each of the 256 bytes occurs in the texts."""
    duplicate_rate: float
    """Share of documents that are copies of another, from those whose digest is among
    the 4096 smallest; exact where no more are distinct."""

    def percentile(self, share: float) -> int:
        """Returns the length in bytes, within 9 %, that a share do not exceed."""
        reached = [*itertools.accumulate(self.lengths)]
        index = bisect.bisect_left(reached, share * reached[-1])
        return round(2 ** ((index + 0.5) / BINS_AN_OCTAVE))

    def __str__(self) -> str:
        short, median, long = (self.percentile(share) for share in (0.05, 0.5, 0.95))
        return (
            f"lengths about {median:,} bytes, 90 % of them {short:,} to {long:,}; "
            f"{self.duplicate_rate:.1%} duplicates"
        )


class Contamination(Record):
    """How much of an evaluation split stands in the training split."""

    documents: int
    """Number of its documents that were looked for, which may be a sample."""
    exact: int
    """Number of those with an equal text in training."""
    near: int
    """Number of those with an equal or much alike one."""

    def __str__(self) -> str:
        exact, near = (n / max(self.documents, 1) for n in (self.exact, self.near))
        return (
            f"of {self.documents:,} documents {near:.2%} have a near duplicate in "
            f"train, {exact:.2%} an equal one"
        )


class Summary(FileRecord):
    """What an ingestion read; it lies in the examples."""

    FILE: ClassVar = "ingestion.json"

    documents: dict[str, int]
    """Number of documents in each split, repetitions by weight included."""
    bytes: dict[str, int]
    """UTF-8 bytes of text in each split."""
    files: int
    """Number of files found."""
    skipped: dict[str, str] = {}
    """Why a file, or some of its records, were skipped, by its path."""
    skipped_records: int = 0
    """Number of records skipped in files that were read."""
    left_out: dict[str, int] = {}
    """Number of files and folders that no one means, by what they are."""
    spans: dict[str, str] = {}
    """Span and version that were read of each path with `{SPAN}` in it."""
    cleaning: dict[str, int] = {}
    """Number of documents that each cleaning step has changed or dropped."""
    contamination: dict[str, Contamination] = {}
    """How much of each split but `train` stands in that."""
    profiles: dict[str, Profile] = {}
    """What the documents of each split are like, before they are repeated."""


class LastRun(FileRecord):
    """What the last ingestion of a pipeline found; it lies in the pipeline's folder."""

    FILE: ClassVar = "ingestion.json"

    sources: str
    """Where and how it read; a run that reads elsewhere is not compared."""
    documents: int
    """Number of documents in all splits."""
    profile: Profile | None = None
    """What those of the training split are like."""
