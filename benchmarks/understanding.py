"""Encoders in the zoo beside Hugging Face's transformers: same sizes, weights, batches.

Each side runs in a process of its own, in turn, several times; what is printed are
medians.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

from . import masking, minilm
from .apart import measure_apart
from .tables import show, table_of

_THEIRS, _OURS, _COMPILED = "transformers", "zoo", "zoo + XLA"
_STEPS_GOAL, _ANSWERS_GOAL = 1.1, 1.2
_VECTORS_GOAL, _NATS_GOAL = 1e-4, 0.02
# Cosines that are nearer to each other may change places.
_TIE = 1e-5


def main(rounds: int, only: str) -> None:
    """Measures and prints the table."""
    table = table_of(
        "understanding, beside Hugging Face's transformers",
        *("work", _THEIRS, _OURS, "ratio", "goal"),
        left="work",
    )
    works = {
        "fine-tuning MiniLM, rows/s": _steps,
        "MiniLM's answers over gRPC, texts/s": _answers,
        "MiniLM's embeddings": _vectors,
        "masked LM from scratch, nats": _nats,
    }
    for name, work in works.items():
        if only.lower() in name.lower():
            work(table, name, rounds)
    show(table)


def _steps(table: Table, name: str, rounds: int) -> None:
    found: dict[str, list[float]] = {_THEIRS: [], _OURS: [], _COMPILED: []}
    for _ in range(rounds):
        for side, rates in found.items():
            rates.append(measure_apart(minilm.__name__, "steps", side))
    medians = {side: statistics.median(rates) for side, rates in found.items()}
    ours = max(medians[_OURS], medians[_COMPILED])
    _add_rates(table, name, medians[_THEIRS], ours, _STEPS_GOAL)


def _answers(table: Table, name: str, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {_THEIRS: [], _OURS: []}
    for _ in range(rounds):
        for side, rates in found.items():
            rates.append(measure_apart(minilm.__name__, "answers", side))
    for size in map(str, minilm.BATCH_SIZES):
        theirs, ours = (
            statistics.median(one[size] for one in rates) for rates in found.values()
        )
        _add_rates(table, f"{name}, batch {size}", theirs, ours, _ANSWERS_GOAL)


def _add_rates(
    table: Table, name: str, theirs: float, ours: float, goal: float
) -> None:
    ratio = ours / theirs
    table.add_row(name, f"{theirs:,.1f}", f"{ours:,.1f}", f"{ratio:.2f}", f">= {goal}")


def _vectors(table: Table, name: str, rounds: int) -> None:
    """No noise is in these: one round shows all."""
    del rounds
    theirs, ours = (
        np.array(measure_apart(minilm.__name__, "vectors", side))
        for side in (_THEIRS, _OURS)
    )
    apart = float(np.abs(ours - theirs).max())
    goal = f"<= {_VECTORS_GOAL:.0e}"
    table.add_row(f"{name}, apart at most", "", f"{apart:.1e}", "", goal)
    cosines, other = theirs @ theirs.T, ours @ ours.T
    order = np.argsort(-cosines, axis=1)
    gaps, kept = (
        -np.diff(np.take_along_axis(part, order, axis=1)) for part in (cosines, other)
    )
    changed = int(((kept <= 0) & (gaps > _TIE)).sum())
    table.add_row(f"{name}, ranks that change", "", f"{changed}", "", "0")


def _nats(table: Table, name: str, rounds: int) -> None:
    found: dict[str, list[float]] = {_THEIRS: [], _OURS: []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.npz")
        measure_apart(masking.__name__, path, "data", 0)
        for seed in range(rounds):
            for side, nats in found.items():
                nats.append(measure_apart(masking.__name__, path, side, seed))
    theirs, ours = (statistics.median(nats) for nats in found.values())
    goal = f"<= +{_NATS_GOAL}"
    table.add_row(name, f"{theirs:.3f}", f"{ours:.3f}", f"{ours - theirs:+.3f}", goal)
