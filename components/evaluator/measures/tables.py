"""Which metrics there are: a task's, by its name, and those of any export."""

from __future__ import annotations

from . import adapted, causal_lm, exported, text_classifier
from .metric import Metric

TASK_MEASURES: dict[str, tuple[Metric, ...]] = {
    "causal_lm": causal_lm.METRICS,
    "text_classifier": text_classifier.METRICS,
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

EXPORT_MEASURES: dict[str, Metric] = {
    metric.name: metric for metric in exported.METRICS
}
"""What is measured of an export itself, by name."""
