"""Bounds that several components keep."""

from __future__ import annotations

LONGEST = 100_000
"""Characters of a document that are asked about at most, where it is not scored."""
