"""The metric that models are gated on."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Gated(NamedTuple):
    """A metric."""

    name: str
    words: str
    unit: str
    better: Literal["lower", "higher"]


GATED = Gated("bits_per_byte", "bits per byte", "bits", "lower")
