"""What a search may try: a list of values, or a range, for keys of the configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

_SECTIONS = ("model", "trainer")
_FIXED = {
    "model.family": "search a family at a time",
    "model.preset": "search a preset at a time",
    "model.pretrained": "search with or without",
    "model.initial_weights": "search a preset at a time",
    "trainer.steps": "search.steps are those of a trial",
}
_RANGE = {"min", "max", "step", "sampling"}
_NUMBER = (int, float)
# Draws of the other keys' values for one that is wrong by itself.
_COMPANIONS = 500

Refusal = Callable[[Mapping[str, Any]], str | None]
"""Says why a configuration with some values is wrong, or `None`."""


def normalized(space: dict[str, Any]) -> dict[str, Any]:
    """Checks the form of a space; of integers among fractions it makes fractions.

    Raises:
        ValueError: Naming the key, and what would be right.
    """
    if not space:
        raise ValueError("search.space is empty: give keys such as model.dropout")
    return {key: _normalized(key, domain) for key, domain in space.items()}


def _normalized(key: str, domain: Any) -> Any:
    section, dot, name = key.partition(".")
    if section not in _SECTIONS or not dot or not name:
        raise _Wrong(key, "write model.KEY or trainer.KEY, such as model.dropout")
    if key in _FIXED:
        raise _Wrong(key, f"it cannot be searched: {_FIXED[key]}")
    if isinstance(domain, list):
        return _normalized_list(key, domain)
    if isinstance(domain, dict):
        return _normalized_range(key, domain)
    raise _Wrong(key, f"{domain!r} is neither a list nor a range {{min: 1, max: 9}}")


def _normalized_list(key: str, values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        values, kinds = [float(value) for value in values], {float}
    if len(kinds) != 1 or not kinds <= {bool, int, float, str}:
        raise _Wrong(
            key,
            f"{values!r} must be numbers, or words, or true and false, at least one",
        )
    if len(set(values)) < len(values):
        raise _Wrong(key, f"{values!r} has a value twice")
    return values


def _normalized_range(key: str, domain: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(domain) - _RANGE)
    if unknown or not {"min", "max"} <= set(domain):
        raise _Wrong(key, "a range has min, max and, if wanted, step and sampling")
    numbers = {name: domain[name] for name in domain if name != "sampling"}
    for name, value in numbers.items():
        if type(value) not in _NUMBER or not math.isfinite(value):
            raise _Wrong(key, f"{name} {value!r} is no number")
    if domain["min"] >= domain["max"]:
        raise _Wrong(key, f"min {domain['min']} must be below max {domain['max']}")
    sampling = domain.get("sampling", "linear")
    if sampling not in ("linear", "log"):
        raise _Wrong(key, f"sampling {sampling!r} is not known: it is linear or log")
    if "step" in domain and (domain["step"] <= 0 or sampling == "log"):
        raise _Wrong(key, "step must be above 0, and needs sampling linear")
    if sampling == "log" and domain["min"] <= 0:
        raise _Wrong(key, f"min {domain['min']} must be above 0 with sampling log")
    if {type(value) for value in numbers.values()} != {int}:
        numbers = {name: float(value) for name, value in numbers.items()}
    return {**numbers, "sampling": sampling}


class _Wrong(ValueError):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"search.space.{key}: {reason}")


def settled(space: Mapping[str, Any], refusal: Refusal) -> dict[str, Any]:
    """Makes a range of fractions of one whose ends are integers, for keys with such."""

    def has_fractions(key: str, domain: Any) -> bool:
        return refusal({key: domain["min"] + 0.5}) is None

    return {
        key: {
            name: float(value) if isinstance(value, int) else value
            for name, value in domain.items()
        }
        if isinstance(domain, Mapping) and has_fractions(key, domain)
        else domain
        for key, domain in space.items()
    }


def check_values(space: Mapping[str, Any], refusal: Refusal) -> None:
    """Checks that every value can be: by itself, or with some values of other keys.

    Of a range these are its ends. What is wrong in some company only is left to the
    search, to which it is a trial that fails.

    Raises:
        ValueError: Naming the key, the value and what would be right.
    """
    generator = random.Random(0)
    for key, domain in space.items():
        for value in _ends(domain):
            reason = refusal({key: value})
            for _ in range(_COMPANIONS):
                if reason is None:
                    break
                others = {key: generator.choice(_ends(space[key])) for key in space}
                reason = refusal({**others, key: value})
            if reason is not None:
                raise _Wrong(key, reason)


def _ends(domain: Any) -> list[Any]:
    return domain if isinstance(domain, list) else [domain["min"], domain["max"]]


def combinations(space: Mapping[str, Any]) -> float:
    """How many there are; infinity where a range has no steps."""
    return math.prod(_count(domain) for domain in space.values())


def _count(domain: Any) -> float:
    if isinstance(domain, list):
        return len(domain)
    ends = domain["min"], domain["max"]
    step = domain.get("step") or (1 if isinstance(ends[0], int) else 0)
    return (ends[1] - ends[0]) // step + 1 if step else math.inf
