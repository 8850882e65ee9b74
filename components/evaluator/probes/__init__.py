"""Questions to an exported model beyond its scores: noise, group words, memorization.

They are asked of small, bounded samples, in seconds: the answers warn, and prove
nothing.

| probe | asks | see |
|---|---|---|
| robustness | what typing errors, case and white space cost | `robustness.py` |
| counterfactual | what a group word changes in a sentence | `counterfactual.py` |
| memorization | whether training texts come back verbatim | `memorization.py` |

Importing this loads no TensorFlow, so that a configuration can be checked against
`NAMES` and `ProbeSettings`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from ...errors import InputError
from . import counterfactual, memorization, robustness, templates
from .probed import Definition, Probed
from .settings import ProbeSettings

__all__ = [
    "NAMES",
    "ProbeSettings",
    "Probed",
    "check_settings",
    "run",
    "templates_hash",
]

NAMES: dict[str, Definition] = {
    **robustness.NAMES,
    **counterfactual.NAMES,
    **memorization.NAMES,
}
"""The metrics by name: each its `name`, `unit`, `definition`, `source`, `better`."""


def run(
    names: Collection[str],
    model_path: str | os.PathLike[str],
    eval_texts: Iterable[str],
    train_texts: Iterable[str],
    settings: Mapping[str, Any] | None = None,
) -> Probed:
    """Runs the probes that some metrics need.

    The SavedModel is loaded once, as a server loads it, and asked through its
    signatures in batches.

    Args:
        names: Keys of `NAMES`. A probe that gives one of them gives all of its own.
        model_path: The folder of a SavedModel, or of its versions.
        eval_texts: Documents of the evaluation split, such as a list: they are read
            more than once, in any order.
        train_texts: Those of the training split; only memorization reads them.
        settings: Keys of `ProbeSettings`; the others have its defaults.

    Raises:
        InputError: A name or a setting is wrong, the template file cannot be read or
            is malformed, or the model cannot be loaded or asked.
    """
    from ....serving.errors import ServingError
    from ....serving.in_process import ExportedModel

    unknown = sorted(set(names) - NAMES.keys())
    if unknown:
        raise InputError(
            f"the probes know no metric {unknown[0]}: they know {', '.join(NAMES)}"
        )
    checked = check_settings(settings or {})
    probes: list[tuple[Collection[str], Callable[[ExportedModel], Probed]]] = [
        (
            robustness.NAMES,
            lambda model: robustness.probe(model, eval_texts, checked),
        ),
        (counterfactual.NAMES, lambda model: counterfactual.probe(model, checked)),
        (
            memorization.NAMES,
            lambda model: memorization.probe(model, train_texts, eval_texts, checked),
        ),
    ]
    wanted = [probe for known, probe in probes if not set(names).isdisjoint(known)]
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    if not wanted:
        return Probed(metrics, details)
    try:
        with ExportedModel(model_path) as model:
            for probe in wanted:
                found = probe(model)
                metrics |= found.metrics
                details |= found.details
    except ServingError as error:
        raise InputError(f"the model cannot be probed: {error}") from error
    return Probed(metrics, details)


def check_settings(settings: Mapping[str, Any]) -> ProbeSettings:
    """The settings with their defaults.

    Raises:
        InputError: A key is unknown, a value out of range, or the template file cannot
            be read or is malformed.
    """
    try:
        checked = ProbeSettings.model_validate(dict(settings))
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(ProbeSettings.model_fields)
            raise InputError(f"unknown setting {key} of the probes: {known}") from error
        reason = problem["msg"][0].lower() + problem["msg"][1:]
        raise InputError(
            f"the probes' {key}: {problem['input']!r} cannot be: {reason}"
        ) from error
    templates.read_pairs(checked.templates)
    return checked


def templates_hash(settings: Mapping[str, Any]) -> str:
    """What says that a template file has changed, 16 hexadecimal digits.

    Settings only name it, and the shipped one is no source code.
    """
    path = Path(check_settings(settings).templates or templates.SHIPPED)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
