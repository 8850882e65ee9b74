"""What a version says of itself, in files beside what a server loads.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from typing import ClassVar

from ..records import FileRecord

CARD_FILE = "assets.extra/README.md"
"""Where a version has its model card."""


class Marker(FileRecord):
    """Where a version is in an object store: that it is whole."""

    FILE: ClassVar[str] = "assets.extra/pushed.json"

    files: int
    """Of how many files."""


class Source(FileRecord):
    """Which model of a pipeline a version is."""

    FILE: ClassVar[str] = "assets.extra/source.json"

    model: str = ""
    """The pipeline's artifact; "" where it is not known."""


class PushedSource(Source):
    """The same, in the artifact that is a copy of the version."""

    version: str = ""
    """The version's folder."""


class WentBack(FileRecord):
    """That a version is an earlier one again."""

    FILE: ClassVar[str] = "assets.extra/rollback.json"

    version: int
    """The version that it is again."""
    taken_back: dict[str, int] = {}
    """The versions that are newer than that one, by the pipeline's models that they
    are."""
