"""What the last run found: whether documents have been lost, or have changed."""

from __future__ import annotations

import dataclasses
import json
import os

from tfx.dsl.io import fileio

from ..errors import InputError
from .profiles import Drift, Profile

_LARGEST_DROP = 10


@dataclasses.dataclass(frozen=True)
class Record:
    """What the last ingestion of a pipeline found.

    Attributes:
        sources: Where and how it read; a run that reads elsewhere is not compared.
        documents: Number of documents in all splits.
        profile: What those of the training split are like.
    """

    sources: str
    documents: int
    profile: Profile | None = None

    @classmethod
    def read(cls, path: str) -> Record | None:
        """Reads a record; `None` where there is none."""
        if not fileio.exists(path):
            return None
        with fileio.open(path, "r") as file:
            content = json.load(file)
        if content.get("profile"):
            content["profile"] = Profile(**content["profile"])
        return cls(**content)

    def write(self, path: str) -> None:
        """Writes the record, whole or not at all."""
        fileio.makedirs(os.path.dirname(path))
        with fileio.open(f"{path}.new", "w") as file:
            json.dump(dataclasses.asdict(self), file)
        fileio.rename(f"{path}.new", path, overwrite=True)


def require_no_loss(found: Record, last: Record | None) -> None:
    """Refuses a tenfold drop in documents.

    Raises:
        InputError: Where the same sources give a tenth of the last run's documents or
            less.
    """
    if last is None or last.sources != found.sources:
        return
    if found.documents * _LARGEST_DROP <= last.documents:
        raise InputError(
            f"the corpus gives {found.documents:,} document(s), and gave "
            f"{last.documents:,} in the last run: that looks like a loss; if it is "
            "meant, --set corpus.allow_fewer_documents=true"
        )


def drift(found: Record, last: Record | None) -> Drift | None:
    """How far the documents are from those of the last run; `None` if incomparable.

    The sources are the same, so it is their content that has changed: another span, or
    files that were added.
    """
    if last is None or last.sources != found.sources:
        return None
    if not (last.profile and found.profile):
        return None
    return Drift.between(last.profile, found.profile)
