"""The gate: which candidate is blessed, in TFMA's terms and in words."""

from __future__ import annotations

import dataclasses
import json

import tensorflow_model_analysis as tfma

from ..source import source_hash
from . import metrics

SIGNATURE = "evaluate"
GATED_METRIC = metrics.BitsPerByte.NAME
_CANDIDATE = "candidate"
_BASELINE = "baseline"
_SUMS = ("documents", *metrics.OUTPUTS)


def eval_config(max_bits_per_byte: float, min_improvement: float) -> tfma.EvalConfig:
    """Configures TFX's Evaluator.

    Args:
        max_bits_per_byte: A candidate above it is refused.
        min_improvement: Bits per byte by which a candidate must be below the last
            blessed model. Without such a model only the bound counts.
    """
    source = source_hash("components/evaluator", "models/scoring.py")

    def metric(cls: type, name: str, **thresholds: object) -> tfma.MetricConfig:
        return tfma.MetricConfig(
            class_name=cls.__name__,
            module=metrics.__name__,
            config=json.dumps({"name": name, "source": source}),
            **thresholds,
        )

    threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(
            upper_bound={"value": max_bits_per_byte}
        ),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.LOWER_IS_BETTER,
            absolute={"value": -min_improvement},
        ),
    )
    spec = {"signature_name": SIGNATURE, "model_type": tfma.TF_GENERIC}
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(name=_CANDIDATE, **spec),
            tfma.ModelSpec(name=_BASELINE, is_baseline=True, **spec),
        ],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    metric(metrics.BitsPerByte, GATED_METRIC, threshold=threshold),
                    metric(metrics.Perplexity, metrics.Perplexity.NAME),
                    metric(metrics.WordPerplexity, metrics.WordPerplexity.NAME),
                    *(metric(metrics.CorpusSum, name) for name in _SUMS),
                ]
            )
        ],
    )


@dataclasses.dataclass(frozen=True)
class Decision:
    """Outcome of the gate.

    Attributes:
        blessed: Whether the candidate may be pushed.
        metrics: The candidate's metrics by name.
        baseline: The last blessed model's bits per byte, if there was one.
        max_bits_per_byte: The absolute bound.
        min_improvement: The margin against the baseline, in bits per byte.
    """

    blessed: bool
    metrics: dict[str, float]
    baseline: float | None
    max_bits_per_byte: float
    min_improvement: float

    @property
    def bits_per_byte(self) -> float:
        """The candidate's bits per byte."""
        return self.metrics[GATED_METRIC]

    @property
    def spelled_share(self) -> float:
        """Share of those bits that spell what the candidate's vocabulary lacks."""
        spelled = self.metrics["spelling_nll"]
        return spelled / (self.metrics["nll"] + spelled)

    def __str__(self) -> str:
        verdict = "blessed" if self.blessed else "refused"
        spelled = self.spelled_share
        unknown = f" ({spelled:.1%} of them spell the unknown)" if spelled else ""
        words = (
            f"{verdict}: {self.bits_per_byte:.3f} bits per byte{unknown}, "
            f"bound {self.max_bits_per_byte:.3f}"
        )
        if self.baseline is None:
            return words
        return (
            f"{words}, last blessed {self.baseline:.3f} "
            f"(margin {self.min_improvement:.3f})"
        )


def read_decision(evaluation_uri: str) -> Decision:
    """Reads the outcome from an Evaluator's `evaluation` artifact."""
    candidate = _read_metrics(evaluation_uri, _CANDIDATE)
    baseline = _read_metrics(evaluation_uri, _BASELINE)
    validation = tfma.load_validation_result(evaluation_uri)
    config = tfma.load_eval_result(evaluation_uri, model_name=_CANDIDATE).config
    threshold = next(
        metric.threshold
        for spec in config.metrics_specs
        for metric in spec.metrics
        if metric.HasField("threshold")
    )
    return Decision(
        blessed=validation.validation_ok,
        metrics=candidate,
        baseline=baseline.get(GATED_METRIC),
        max_bits_per_byte=threshold.value_threshold.upper_bound.value,
        min_improvement=0.0 - threshold.change_threshold.absolute.value,
    )


def _read_metrics(evaluation_uri: str, model_name: str) -> dict[str, float]:
    values: dict[str, float] = {}
    for metrics_for_slice in tfma.load_metrics(evaluation_uri):
        for item in metrics_for_slice.metric_keys_and_values:
            # A model without a baseline is evaluated without a name.
            names = {model_name, ""} if model_name == _CANDIDATE else {model_name}
            if item.key.model_name in names and not item.key.is_diff:
                values[item.key.name] = item.value.double_value.value
    return values
