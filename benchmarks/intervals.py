"""Confidence intervals: how often a model is called significantly better by chance.

Two models are compared that are equally good, on documents of log-normal lengths. One
in forty of their differences may lie above its 95 % interval, and one in forty below.

Where differences are skewed, none of the usual remedies holds that with few documents,
which do not show how skewed they are: a second table has them beside the one in use.

References:
    - Johnson 1978, "Modified t tests and confidence intervals for asymmetrical
      populations"; Hall 1992, "On the removal of skewness by transformation".
    - Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 12 and 14.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from langzoo.components.evaluator.measures.sums import NAMES, CorpusSums, interval
from langzoo.components.evaluator.measures.tables import MEASURES
from scipy import special

from .tables import show, table_of

DOCUMENTS = (10, 20, 30, 100, 1000)
_PAIRS = 10_000
_RESAMPLED_PAIRS, _RESAMPLES = 1000, 999
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
    """Compares pairs of models and prints the tables."""
    kinds = [kind for kind in DIFFERENCES if only in kind]
    _print("", kinds, false_alarms)
    if _SKEWED in kinds:
        _print(
            f", {_SKEWED}",
            [*INTERVALS],
            lambda name, documents: false_alarms(_SKEWED, documents, name),
        )


def _print(
    what: str, names: list[str], measure: Callable[[str, int], tuple[float, float]]
) -> None:
    title = f"By chance better / worse, %, meant are 2.5{what}"
    table = table_of(title, "documents", *names)
    for documents in DOCUMENTS:
        found = [measure(name, documents) for name in names]
        cells = [f"{100 * more:.1f} / {100 * less:.1f}" for more, less in found]
        table.add_row(f"{documents:,}", *cells)
    show(table)


def false_alarms(
    kind: str, documents: int, name: str = "in use", pairs: int | None = None
) -> tuple[float, float]:
    """Shares of pairs of equal models where one is called better, or worse.

    Args:
        kind: One of `DIFFERENCES`.
        documents: Number of documents that they are compared on.
        name: One of `INTERVALS`.
        pairs: Number of pairs; by default as many as the interval is quick.
    """
    pairs = pairs or (_RESAMPLED_PAIRS if name in _RESAMPLING else _PAIRS)
    draw = np.random.default_rng(0)
    better = worse = 0
    for _ in range(pairs):
        bytes_ = np.exp(draw.normal(6, 1, documents))
        nats = bytes_ * draw.normal(1.4, 0.3, documents)
        more = bytes_ * DIFFERENCES[kind](draw, bytes_)
        difference = _bits(nats + more, bytes_) - _bits(nats, bytes_)
        low, high = INTERVALS[name](difference) or (0.0, 0.0)
        better += high < 0
        worse += low > 0
    return better / pairs, worse / pairs


def _bits(nats: np.ndarray, bytes_: np.ndarray) -> np.ndarray:
    blocks = np.zeros((len(nats), _COLUMNS))
    blocks[:, NAMES.index("nll")] = nats
    blocks[:, NAMES.index("bytes")] = bytes_
    return _BITS.values(CorpusSums(blocks))


def _johnson(values: np.ndarray) -> tuple[float, float] | None:
    """That in use, with the limit on the skewed side farther away."""
    value, error, skewness, quantile = _parts(values)
    more = error * skewness * (2 * quantile**2 + 1) / 6
    error *= quantile
    return value - error + min(more, 0), value + error + max(more, 0)


def _hall(values: np.ndarray) -> tuple[float, float] | None:
    value, error, skewness, quantile = _parts(values)

    def back(wanted: float) -> float:
        return 3 / skewness * (np.cbrt(1 + skewness * (wanted - skewness / 6)) - 1)

    return value - error * back(quantile), value - error * back(-quantile)


def _bootstrap_t(values: np.ndarray) -> tuple[float, float] | None:
    """Student's t of resampled documents in place of its distribution."""
    pseudo = _pseudo_values(values)
    means, errors = _resampled(pseudo)
    ((mean, error),) = zip(*_mean_and_error(pseudo[None]), strict=True)
    t = (means - mean) / np.maximum(errors, 1e-300)
    low, high = np.quantile(t, [0.025, 0.975])
    return mean - high * error, mean - low * error


def _accelerated(values: np.ndarray) -> tuple[float, float] | None:
    """BCa."""
    pseudo = _pseudo_values(values)
    means, _ = _resampled(pseudo)
    below = np.clip((means < pseudo.mean()).mean(), 1e-3, 1 - 1e-3)
    bias, acceleration = special.ndtri(below), _parts(values)[2] / 6
    shifted = bias + special.ndtri([0.025, 0.975])
    low, high = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    return tuple(np.quantile(means, [low, high]))


def _parts(values: np.ndarray) -> tuple[float, float, float, float]:
    """The value, its standard error and skewness, and Student's quantile in use."""
    pseudo = _pseudo_values(values)
    ((mean, error),) = zip(*_mean_and_error(pseudo[None]), strict=True)
    low, high = interval(values) or (0.0, 0.0)
    cubes = ((pseudo - mean) ** 3).sum() / ((pseudo - mean) ** 2).sum() ** 1.5
    return float(values[0]), error, float(cubes), (high - low) / (2 * error)


def _pseudo_values(values: np.ndarray) -> np.ndarray:
    number = len(values) - 1
    return number * values[0] - (number - 1) * values[1:]


def _mean_and_error(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    errors = samples.std(axis=1, ddof=1) / samples.shape[1] ** 0.5
    return samples.mean(axis=1), errors


def _resampled(pseudo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    drawn = draw.integers(0, len(pseudo), (_RESAMPLES, len(pseudo)))
    return _mean_and_error(pseudo[drawn])


INTERVALS: dict[str, Callable[[np.ndarray], tuple[float, float] | None]] = {
    "in use": interval,
    "Johnson": _johnson,
    "Hall": _hall,
    "bootstrap-t": _bootstrap_t,
    "BCa": _accelerated,
}
"""Ways to an interval, from a value and what it is without each document."""
_RESAMPLING = {"bootstrap-t", "BCa"}
_SKEWED = "skewed"
