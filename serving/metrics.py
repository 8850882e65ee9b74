"""Counters and distributions, as Prometheus reads them.

`prometheus_client` cannot write TensorFlow Serving's: it ends the names of counters in
`_total`.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterable, Sequence

_Cell = tuple[str, ...]


class Counter:
    """A number for each combination of labels, which only grows.

    Args:
        name: with slashes, as TensorFlow Serving declares it.
        labels: the names of the labels.
    """

    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._labels = tuple(labels)
        self._lock = threading.Lock()
        self._cells: dict[_Cell, int] = {}

    def add(self, *labels: str, count: int = 1) -> None:
        """Counts, for these values of the labels."""
        with self._lock:
            self._cells[labels] = self._cells.get(labels, 0) + count

    def value(self, *labels: str) -> int:
        """The count for these values of the labels; for none of them, of the first."""
        with self._lock:
            if labels or not self._labels:
                return self._cells.get(labels, 0)
            return next(iter(self._cells.values()), 0)

    def lines(self) -> Iterable[str]:
        """The lines of text that Prometheus reads."""
        with self._lock:
            cells = sorted(self._cells.items())
        yield f"# TYPE {_exposed(self.name)} counter"
        for values, count in cells:
            labels = _label_text(self._labels, values)
            yield f"{_exposed(self.name)}{{{labels}}} {count}"


class Distribution:
    """How often values fell between bounds, for each combination of labels.

    Args:
        name: with slashes, as TensorFlow Serving declares it.
        labels: the names of the labels.
        scale: the first bound.
        growth: from each bound to the next.
        count: how many bounds; a last bucket takes what is beyond.
    """

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        *,
        scale: float = 10.0,
        growth: float = 1.8,
        count: int = 33,
    ) -> None:
        self.name = name
        self._labels = tuple(labels)
        self._bounds = [scale * growth**power for power in range(count)]
        self._lock = threading.Lock()
        self._cells: dict[_Cell, list[int]] = {}
        self._sums: dict[_Cell, float] = {}

    def add(self, *labels: str, value: float) -> None:
        """Counts a value, for these values of the labels."""
        bucket = bisect.bisect_right(self._bounds, value)
        with self._lock:
            empty = [0] * (len(self._bounds) + 1)
            self._cells.setdefault(labels, empty)[bucket] += 1
            self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> Iterable[str]:
        """The lines of text that Prometheus reads."""
        with self._lock:
            cells = [(key, list(c)) for key, c in sorted(self._cells.items())]
            sums = dict(self._sums)
        name = _exposed(self.name)
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        yield f"# TYPE {name} histogram"
        for values, buckets in cells:
            labels = _label_text(self._labels, values)
            comma = "," if labels else ""
            totals = itertools.accumulate(buckets)
            for bound, total in zip(bounds, totals, strict=True):
                yield f'{name}_bucket{{{labels}{comma}le="{bound}"}} {total}'
            yield f"{name}_sum{{{labels}}} {sums[values]:.6g}"
            yield f"{name}_count{{{labels}}} {sum(buckets)}"


def _exposed(name: str) -> str:
    return name.replace("/", ":")


def _label_text(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(
        f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)
    )


def _escape(value: str) -> str:
    # A line break would begin a metric of the requester's choice.
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return value.replace("\n", "\\n")
