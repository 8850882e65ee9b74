"""Which metrics there are: a task's, by its name, and those of any export."""

from __future__ import annotations

from ....models.tasks import (
    CAUSAL_LM,
    MASKED_LM,
    SEQ_TO_SEQ_LM,
    TEXT_CLASSIFIER,
    TOKEN_CLASSIFIER,
)
from ....serving.export import contract
from . import (
    adapted,
    causal_lm,
    exported,
    masked_lm,
    seq_to_seq_lm,
    text_classifier,
    token_classifier,
    written,
)
from .metric import Metric

TASK_MEASURES: dict[str, tuple[Metric, ...]] = {
    CAUSAL_LM.name: causal_lm.METRICS,
    MASKED_LM.name: masked_lm.METRICS,
    TEXT_CLASSIFIER.name: text_classifier.METRICS,
    TOKEN_CLASSIFIER.name: token_classifier.METRICS,
    SEQ_TO_SEQ_LM.name: seq_to_seq_lm.METRICS,
}
"""The metrics that are functions of the corpus sums, by task."""

MEASURES: dict[str, Metric] = {
    metric.name: metric for metrics in TASK_MEASURES.values() for metric in metrics
}
"""Those of all tasks, by name."""

ADAPTED_MEASURES: dict[str, Metric] = {
    metric.name: metric for metrics in adapted.METRICS.values() for metric in metrics
}
"""What is measured of models that adapt to a document while they score it, by name."""

WRITTEN_MEASURES: dict[str, Metric] = {
    metric.name: metric for metric in written.METRICS
}
"""What is measured of texts that models write to sources, by name."""

EXPORT_MEASURES: dict[str, Metric] = {
    metric.name: metric for metric in exported.METRICS
}
"""What is measured of an export itself, by name."""


def measures_of(task: str) -> dict[str, Metric]:
    """Those of a task that are functions of the corpus sums, by name."""
    return {metric.name: metric for metric in TASK_MEASURES[task]}


def adapted_of(task: str) -> dict[str, Metric]:
    """What is measured of models of a task as they adapt, by name."""
    adapts = contract.CACHE_SCORES in contract.SIGNATURES[task]
    return ADAPTED_MEASURES if adapts else {}


def written_of(task: str) -> dict[str, Metric]:
    """What is measured of texts that models of a task write, by name."""
    writes = contract.GENERATE_TARGET in contract.SIGNATURES[task]
    return WRITTEN_MEASURES if writes else {}
