"""What the last run found: whether documents have been lost, or have changed."""

from __future__ import annotations

from ..errors import InputError
from .profiles import Drift
from .records import LastRun

_LARGEST_DROP = 10


def require_no_loss(found: LastRun, last: LastRun | None) -> None:
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


def drift(found: LastRun, last: LastRun | None) -> Drift | None:
    """How far the documents are from those of the last run; `None` if incomparable.

    The sources are the same, so it is their content that has changed: another span, or
    files that were added.
    """
    if last is None or last.sources != found.sources:
        return None
    if not (last.profile and found.profile):
        return None
    return Drift.between(last.profile, found.profile)
