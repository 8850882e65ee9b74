"""Numbers and names in words, for the page and the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from .records import OVERALL

NOTHING = "\N{EN DASH}"
_NAMES = {
    "candidate": "this model",
    "last_blessed": "last blessed",
    "ngram": "n-gram baseline",
    "latency_ms": "latency, ms",
    "size_mb": "size, MB",
    "token_accuracy_at_5": "token accuracy at 5",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "span_f1": "span F1",
    "macro_span_f1": "macro span F1",
    "out_of_vocabulary_rate": "out-of-vocabulary rate",
}


def in_order(slices: Iterable[str]) -> list[str]:
    """Names of slices, `overall` first, their numbers as numbers."""

    def key(name: str) -> tuple[bool, list[tuple[int, str]]]:
        parts = re.findall(r"\d+|\D+", name)
        return name != OVERALL, [
            (int(part), "") if part.isdecimal() else (-1, part) for part in parts
        ]

    return sorted(slices, key=key)


def name_of(name: str) -> str:
    """A metric's or model's name in words."""
    return _NAMES.get(name, name.replace("_", " "))


def number(value: float | None, digits: int = 4) -> str:
    """A number in so many significant digits, such as `1.872` or `12,300`."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return {math.inf: "infinity", -math.inf: "-infinity"}.get(value, "NaN")
    if abs(value) >= 1e6:
        return short(value)
    if float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.2g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 4)}f}"


def interval(low: float | None, high: float | None, digits: int = 4) -> str:
    """An interval; "" where there is none."""
    if low is None or high is None:
        return ""
    return f"{number(low, digits)} to {number(high, digits)}"


def short(value: float | None) -> str:
    """A count in few characters, such as `328 k`, `2.39 M`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for unit in ("", " k", " M", " G"):
        if abs(value) < 1000 or unit == " G":
            break
        value /= 1000
    return f"{value:.3g}{unit}"


def duration(seconds: float | None) -> str:
    """A time such as `12 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
