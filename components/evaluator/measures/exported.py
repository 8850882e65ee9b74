"""What an exported model is besides its scores: how large, and how quick.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .metric import Metric

if TYPE_CHECKING:
    from ....serving.in_process import ExportedModel

LATENCY = Metric(
    "latency_ms",
    unit="ms",
    better="lower",
    definition="Median time of a call of `serving_default` with one text, or its first "
    "100,000 characters, in process.",
)
SIZE = Metric(
    "size_mb",
    unit="MB",
    better="lower",
    definition="Size of the exported model's files.",
)
METRICS = (LATENCY, SIZE)

_WARM_UP_CALLS, _CALLS = 5, 50


def size_mb(path: str) -> float:
    """Size of a folder's files, in millions of bytes."""
    import tensorflow as tf

    sizes = (
        tf.io.gfile.stat(os.path.join(folder, name)).length
        for folder, _, names in tf.io.gfile.walk(path)
        for name in names
    )
    return sum(sizes) / 1e6


def latency_ms(model: ExportedModel, texts: Sequence[str]) -> float:
    """Median time of an answer of `serving_default` to one text, in milliseconds.

    Args:
        model: The model.
        texts: What it is asked, one after the other.
    """
    times = []
    for call in range(_WARM_UP_CALLS + _CALLS):
        started = time.perf_counter()
        model.serving_default([texts[call % len(texts)]])
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[_WARM_UP_CALLS:])
