"""What a metric is: the contract that ours follow, and one of yours.

A metric is a `Metric`: what it is called and means, and a function of the sums over a
corpus. The function gets `sums.CorpusSums`, whose columns (`sums["nll"]`, see
`sums.NAMES`) are arrays `[1 + N]`: the sum over all documents, then those without each
of them, or without each of `sums.BLOCKS` blocks of them. It gives an array of that
shape, so all it does is arithmetic with columns; value, confidence interval and paired
differences follow.

One of your own is named by its module, in a rule of the gate, and is then measured,
sliced, compared and told like ours:

```python
# mypackage/measures.py
from langzoo.components.evaluator.measures.metric import Metric

bytes_per_token = Metric(
    "bytes_per_token",
    unit="bytes",
    better="higher",
    definition="Bytes of text that a token of the vocabulary stands for.",
    compute=lambda sums: sums["bytes"] / sums["tokens"],
)
```

```yaml
gate:
  rules:
    - {metric: "mypackage.measures:bytes_per_token", min: 2.5, significant: true}
```

Its name must be none of ours. The module is imported where the configuration is checked
and where the model is evaluated, on Beam's workers too, and its source is part of the
Evaluator's cache key: when it changes, models are judged anew.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from typing import Literal

import numpy as np

from ....models import references
from ..records import Definition
from .sums import CorpusSums

Compute = Callable[[CorpusSums], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that a model gets.

    Attributes:
        name: Its name in rules, files and tables, of small letters, digits and `_`.
        unit: Its unit; "" for a number without.
        better: Which is better.
        definition: What it is, in a sentence.
        source: Where that is from.
        words: Its name in words, where that is not `name` with blanks.
        compute: From the sums to `[1 + N]` values; `None` for what is no function of
            them.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    definition: str
    source: str = ""
    words: str = ""
    compute: Compute | None = None

    def values(self, sums: CorpusSums) -> np.ndarray:
        """The metric of a corpus, and of it without each block, `[1 + N]`."""
        assert self.compute is not None, f"{self.name} is no function of sums"
        return self.compute(sums)

    @property
    def defined(self) -> Definition:
        """What is told of it beside its values."""
        return Definition(
            name=self.words or self.name.replace("_", " "),
            unit=self.unit,
            definition=self.definition,
            source=self.source,
            better=self.better,
        )


def of_function(
    compute: Compute, unit: str, better: Literal["lower", "higher"]
) -> Metric:
    """A metric of ours: its function's docstring is its definition, and its source."""
    documentation = str(inspect.getdoc(compute))
    definition = " ".join(documentation.partition("\n\n")[0].split())
    source = " ".join(documentation.partition("Source: ")[2].split())
    name = str(getattr(compute, "__name__", ""))
    return Metric(name, unit, better, definition, source, compute=compute)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where there is nothing to divide by."""
    some = denominator != 0
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, math.nan), where=some
    )


def calibration_error(sums: CorpusSums) -> np.ndarray:
    """How far confidence is from being right, over the bins that `sums` has."""
    number, confidence, right = np.moveaxis(sums.calibration, -1, 0)
    return ratio(np.abs(confidence - right).sum(axis=-1), number.sum(axis=-1))


def own(reference: str) -> Metric:
    """Imports a metric of the user's.

    Args:
        reference: `module:name`.

    Raises:
        ValueError: In a line: there is no such object, or it is no metric.
    """
    try:
        metric = references.load(reference)
    except ImportError as error:
        raise ValueError(str(error)) from error
    problem = _problem(metric)
    if problem:
        raise ValueError(f"{reference} is no metric: {problem}")
    found: Metric = metric
    return found


def _problem(metric: object) -> str | None:
    """How an object breaks the contract."""
    if not isinstance(metric, Metric):
        return f"it is no {Metric.__module__}.Metric but a {type(metric).__name__}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(metric.name)):
        return f"its name {metric.name!r} is not of small letters, digits and _"
    if metric.better not in ("lower", "higher"):
        return f"better is lower or higher, not {metric.better!r}"
    if not (metric.definition and isinstance(metric.definition, str)):
        return "it has no definition"
    if not callable(metric.compute):
        return "it has no function compute of the corpus sums"
    sums = CorpusSums.ones()
    try:
        with np.errstate(all="ignore"):
            values = np.asarray(metric.compute(sums))
    except Exception as error:  # of whatever the function does
        reason = " ".join(str(error).split())
        return f"compute fails: {type(error).__name__}: {reason}"
    shape = sums["documents"].shape
    if values.shape != shape or values.dtype.kind not in "fiu":
        return (
            f"compute must give as many numbers as a column, {list(shape)}, and gives "
            f"{values.dtype} {list(values.shape)}"
        )
    return None
