"""Confidence intervals: how often a model is called significantly better by chance.

Two models are compared that are equally good, on documents of log-normal lengths. One
in forty of their differences may lie above its 95 % interval, and one in forty below.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from langzoo.components.evaluator.measures.sums import NAMES, CorpusSums, interval
from langzoo.components.evaluator.measures.tables import MEASURES
from rich.console import Console
from rich.table import Table

DOCUMENTS = (10, 20, 30, 100, 1000)
_PAIRS = 10_000
_BITS = MEASURES["bits_per_byte"]
_COLUMNS = CorpusSums.ones().blocks.shape[1]

_Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]
DIFFERENCES: dict[str, _Draw] = {
    "by document": lambda draw, bytes_: draw.normal(0, 0.3, bytes_.shape),
    "by token": lambda draw, bytes_: draw.normal(0, 3, bytes_.shape) / bytes_**0.5,
    "heavy tails": lambda draw, bytes_: draw.laplace(0, 0.3, bytes_.shape),
    "skewed": lambda draw, bytes_: draw.exponential(0.3, bytes_.shape) - 0.3,
}
"""By what two models differ, in nats a byte of documents of some lengths."""


def main(only: str) -> None:
    """Compares pairs of models and prints the table."""
    table = Table(title="Significant by chance: better / worse, %; meant are 2.5")
    table.add_column("documents", justify="right")
    kinds = [kind for kind in DIFFERENCES if only in kind]
    for kind in kinds:
        table.add_column(kind, justify="right")
    for documents in DOCUMENTS:
        found = [false_alarms(kind, documents, _PAIRS) for kind in kinds]
        cells = [f"{100 * more:.1f} / {100 * less:.1f}" for more, less in found]
        table.add_row(f"{documents:,}", *cells)
    Console(width=80).print(table)


def false_alarms(kind: str, documents: int, pairs: int) -> tuple[float, float]:
    """Shares of pairs of equal models where one is called better, or worse.

    Args:
        kind: One of `DIFFERENCES`.
        documents: Number of documents that they are compared on.
        pairs: Number of pairs.
    """
    draw = np.random.default_rng(0)
    better = worse = 0
    for _ in range(pairs):
        bytes_ = np.exp(draw.normal(6, 1, documents))
        nats = bytes_ * draw.normal(1.4, 0.3, documents)
        more = bytes_ * DIFFERENCES[kind](draw, bytes_)
        difference = _bits(nats + more, bytes_) - _bits(nats, bytes_)
        low, high = interval(difference) or (0.0, 0.0)
        better += high < 0
        worse += low > 0
    return better / pairs, worse / pairs


def _bits(nats: np.ndarray, bytes_: np.ndarray) -> np.ndarray:
    blocks = np.zeros((len(nats), _COLUMNS))
    blocks[:, NAMES.index("nll")] = nats
    blocks[:, NAMES.index("bytes")] = bytes_
    return _BITS.values(CorpusSums(blocks))
