"""What an ingestion leaves for others.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..records import FileRecord, Record, differences
from . import sketches
from .settings import LABEL, CleaningSettings, SourceSettings

BINS_AN_OCTAVE = 8


def judged_split(names: Iterable[str]) -> str:
    """The split that a model is judged by: `test`, where there is one, else `eval`.

    What search, early stopping, the best weights and the learning rate go by is always
    `eval`, on which a model looks the better for it.
    """
    return "test" if "test" in names else "eval"


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
    """Number of files, folders and lines that no one means, by what they are."""
    spans: dict[str, str] = {}
    """Span and version that were read of each path with `{SPAN}` in it."""
    cleaning: dict[str, int] = {}
    """Number of documents that each cleaning step has changed or dropped."""
    contamination: dict[str, Contamination] = {}
    """How much of each split but `train` stands in that."""
    profiles: dict[str, Profile] = {}
    """What the documents of each split are like, before they are repeated."""

    @classmethod
    def contamination_of(cls, examples: str, split: str) -> Contamination | None:
        """How much of a split stands in `train`, where an ingestion has told."""
        summary = cls.find(examples)
        return summary.contamination.get(split) if summary else None


def _normal(path: str) -> str:
    return path if "://" in path else os.path.normpath(path)


class Splitting(FileRecord):
    """What decides which documents there are, and which of them a model learns from.

    It travels with the examples, the transform graph, every export and every blessing.
    A key that was not known yet when it was written has its default.
    """

    FILE: ClassVar = "assets.extra/splitting.json"

    sources: dict[str, dict[str, Any]]
    """How each source is read, by its path, or both of one in two files."""
    cleaning: dict[str, Any] = {}
    """The steps that change texts, or choose among those much alike."""
    buckets: dict[str, int]
    """The splits, and how many buckets of a hash are each one's, in their order."""
    sketches: dict[str, str] = {}
    """What each split has in it, as of `sketches`; of a model, `train` is all that it
    has learned from, with what its initial weights had."""

    @classmethod
    def of(
        cls,
        sources: Iterable[SourceSettings],
        cleaning: CleaningSettings,
        buckets: Mapping[str, int],
        kept: Mapping[str, str] | None = None,
    ) -> Splitting:
        """What decides it where a corpus is read, cleaned and split so."""
        return cls(
            sources={
                " and ".join(map(_normal, source.paths)): source.of_texts
                for source in sources
            },
            cleaning=cleaning.of_texts,
            buckets=dict(buckets),
            sketches=dict(kept or {}),
        )

    def after(self, begun: Splitting | None) -> Splitting:
        """That of a model whose initial weights had learned from others."""
        if begun is None:
            return self
        learned = [one.sketches.get("train", "") for one in (self, begun)]
        return self.model_copy(
            update={"sketches": {**self.sketches, "train": sketches.joined(*learned)}}
        )

    def seen_by(self, other: Splitting | None, split: str) -> str:
        """Why a model of another splitting may have learned documents of a split.

        Args:
            other: What the model says; `None` where it says nothing.
            split: The split of this splitting.

        Returns:
            A line; "" where it cannot have.
        """
        if other is None:
            return "it does not say what documents it has learned from"
        paths, others = (", ".join(sorted(one.sources)) for one in (self, other))
        changed = differences({"corpus": paths}, {"corpus": others})
        changed = changed or differences(self._decisive, other._decisive)
        if changed:
            said = "; ".join(changed)
            return f"it has learned from documents made otherwise ({said})"
        held, learned = self._share(split), other._share("train")
        if max(held.start, learned.start) < min(held.stop, learned.stop):
            return f"documents of {split} were in the split that it learned from"
        found = sketches.much_more(
            self.sketches.get(split, ""),
            other.sketches.get("train", ""),
            self.sketches.get("train", ""),
        )
        return f"it has learned from documents of {split} ({found})" if found else ""

    @property
    def _decisive(self) -> dict[str, Any]:
        """All but the buckets, as two of them are compared."""
        read = {
            path: {**SourceSettings(path=path).of_texts, **told}
            for path, told in sorted(self.sources.items())
        }
        cleaning = {**CleaningSettings().of_texts, **self.cleaning}
        corpus = read if len(read) > 1 else read[next(iter(read))]
        return {"corpus": corpus, "cleaning": cleaning}

    def _share(self, name: str) -> range:
        """The buckets of a split."""
        before = itertools.takewhile(lambda split: split != name, self.buckets)
        start = sum(self.buckets[split] for split in before)
        return range(start, start + self.buckets.get(name, 0))


class Labels(FileRecord):
    """Which labels the documents have, or which tags their words; it lies in the
    examples and transform graph."""

    FILE: ClassVar = "labels.json"

    feature: str = LABEL
    """The feature of the examples that has them."""
    multi_label: bool = False
    """Whether a document has any number of them, and not exactly one."""
    documents: dict[str, dict[str, int]]
    """How many documents of each split have each label, or words each tag, repetitions
    included."""

    @property
    def names(self) -> list[str]:
        """The labels that a model learns: those of the training split."""
        return sorted(self.documents["train"])

    def unknown(self, split: str) -> dict[str, int]:
        """The labels of a split that the training split has not."""
        known = self.documents["train"]
        return {k: n for k, n in self.documents[split].items() if k not in known}


class LastRun(FileRecord):
    """What the last ingestion of a pipeline found; it lies in the pipeline's folder."""

    FILE: ClassVar = "ingestion.json"

    sources: str
    """Where and how it read; a run that reads elsewhere is not compared."""
    documents: int
    """Number of documents in all splits."""
    profile: Profile | None = None
    """What those of the training split are like."""
