"""Questions to an exported model beyond its scores: noise, group words, memorization.

They are asked of small, bounded samples, in seconds: the answers warn, and prove
nothing.

| probe | asks | see |
|---|---|---|
| robustness | what typing errors, case and white space cost | `robustness.py` |
| counterfactual | what a group word changes in a sentence | `counterfactual.py` |
| both, of labels | what these change in a classifier's answer | `labels.py` |
| memorization | whether training texts come back verbatim | `memorization.py` |
| contamination | whether training has the evaluation's texts | `contamination.py` |

Importing this loads no TensorFlow, so that a configuration can be settings against
`NAMES` and `ProbeSettings`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ....serving.export import contract
from ...errors import InputError
from ...text_example_gen.records import Contamination
from ..measures.metric import Metric
from . import contamination, counterfactual, labels, memorization, robustness
from .probed import Probed
from .settings import ProbeSettings

__all__ = ["NAMES", "ProbeSettings", "Probed", "names_of", "run"]

NAMES: dict[str, Metric] = {
    **robustness.NAMES,
    **counterfactual.NAMES,
    **labels.ROBUSTNESS,
    **labels.COUNTERFACTUAL,
    **memorization.NAMES,
    **contamination.NAMES,
}
"""The metrics of all probes by name."""

_ASKED = (
    (robustness.NAMES, (contract.SCORE,)),
    (counterfactual.NAMES, (contract.SCORE, contract.TOKEN_SCORES)),
    (labels.ROBUSTNESS, (contract.LABELS, contract.LABEL_INFO)),
    (labels.COUNTERFACTUAL, (contract.LABELS, contract.LABEL_INFO)),
    (memorization.NAMES, (contract.GENERATE,)),
    (contamination.NAMES, ()),
)
"""The signatures that the probes of metrics ask."""


def names_of(task: str) -> dict[str, Metric]:
    """The metrics of the probes that models of a task can answer, by name."""
    answered = contract.SIGNATURES[task]
    return {
        name: metric
        for names, asked in _ASKED
        for name, metric in names.items()
        if all(signature in answered for signature in asked)
    }


def run(
    names: Collection[str],
    model_path: str | os.PathLike[str],
    eval_texts: Iterable[str],
    train_texts: Iterable[str],
    settings: ProbeSettings,
    known: Contamination | None = None,
) -> Probed:
    """Runs the probes that some metrics need.

    The SavedModel is loaded once, as a server loads it, and asked through its
    signatures in batches.

    Args:
        names: Keys of `NAMES`. A probe that gives one of them gives all of its own.
        model_path: The folder of a SavedModel, or of its versions.
        eval_texts: Documents of the evaluation split, such as a list: they are read
            more than once, in any order.
        train_texts: Those of the training split, for memorization and contamination.
        settings: How much is asked.
        known: The contamination, where an ingestion has measured it.

    Raises:
        InputError: A name is wrong, the template file cannot be read or is malformed,
            or the model cannot be loaded or asked.
    """
    from ....serving.errors import ServingError
    from ....serving.in_process import ExportedModel

    for name in sorted(set(names) - NAMES.keys()):
        raise InputError(
            f"the probes know no metric {name}: they know {', '.join(NAMES)}"
        )
    probes = _probes(eval_texts, train_texts, settings, known)
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


def _probes(
    eval_texts: Iterable[str],
    train_texts: Iterable[str],
    settings: ProbeSettings,
    known: Contamination | None,
) -> list[tuple[Collection[str], Callable[[Any], Probed]]]:
    """The metrics of each probe, and what asks an exported model; see `run`."""
    return [
        (robustness.NAMES, lambda one: robustness.probe(one, eval_texts, settings)),
        (counterfactual.NAMES, lambda model: counterfactual.probe(model, settings)),
        (labels.ROBUSTNESS, lambda one: labels.robustness(one, eval_texts, settings)),
        (labels.COUNTERFACTUAL, lambda model: labels.counterfactual(model, settings)),
        (
            memorization.NAMES,
            lambda model: memorization.probe(model, train_texts, eval_texts, settings),
        ),
        (
            contamination.NAMES,
            lambda _: contamination.probe(train_texts, eval_texts, known),
        ),
    ]
