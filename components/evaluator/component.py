"""Evaluator: TensorFlow Model Analysis, and rules that say which model is blessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import (
    ChannelParameter,
    ComponentSpec,
    ExecutionParameter,
)

from ..source import source_hash
from . import executor
from .gate.baseline import Record
from .probes import templates_hash


class EvaluatorSpec(ComponentSpec):
    """Interface of `Evaluator`."""

    PARAMETERS = {
        executor.SETTINGS_KEY: ExecutionParameter(type=str),
        executor.RECORD_KEY: ExecutionParameter(type=str, optional=True),
        "source_hash": ExecutionParameter(type=str),
    }
    INPUTS = {
        executor.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        executor.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        executor.BASELINE_KEY: ChannelParameter(
            type=standard_artifacts.Model, optional=True
        ),
        executor.NGRAM_KEY: ChannelParameter(
            type=standard_artifacts.Model, optional=True
        ),
    }
    OUTPUTS = {
        executor.EVALUATION_KEY: ChannelParameter(
            type=standard_artifacts.ModelEvaluation
        ),
        executor.BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """Evaluates a model with TFMA and blesses it if it keeps every rule.

    It stands where TFX's Evaluator would, which knows two models and thresholds: here
    are a third, an n-gram model, confidence intervals, and what is no metric of TFMA's.
    `evaluation` holds what TFMA writes and `evaluation.json`; `blessing` is as TFX's,
    with `gate.json`, which says what became of each rule.

    ```python
    evaluator = Evaluator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=resolver.outputs["model"],
        rules=[
            {"metric": "bits_per_byte", "max": 2.5},
            {"metric": "bits_per_byte", "against": "last_blessed", "margin": 0.01},
        ],
    )
    ```

    Args:
        examples: Examples with the feature `text`, of which the split `eval` is used.
        model: The candidate.
        baseline_model: The model that was blessed last, if there is one, or that a
            rollback has made live since.
        ngram_model: An n-gram model of the same data, if a rule is against it.
        rules: Each the arguments of a `rules.Rule`; with `min` and `max` it is two.
        slices: Features by which the metrics are sliced: `length`, and others that the
            examples have.
        features: Features that the examples have besides `text`.
        probes: Settings of `probes.run`, which measures all that it knows then; without
            it measures what rules are about.
        blessed_record: In the place of `baseline_model`, where it is found.

    Raises:
        ValueError: Where a rule says what cannot be.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        *,
        examples: BaseChannel,
        model: BaseChannel,
        baseline_model: BaseChannel | None = None,
        ngram_model: BaseChannel | None = None,
        rules: Sequence[dict[str, Any]],
        slices: Sequence[str] = (),
        features: Sequence[str] = (),
        probes: dict[str, Any] | None = None,
        blessed_record: Record | None = None,
    ) -> None:
        settings = {
            "rules": list(rules),
            "slices": list(slices),
            "features": list(features),
            "probes": probes,
            # TFX's cache sees the name of the file only.
            "templates": templates_hash(probes or {}),
        }
        executor.Settings.of(settings)
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                ngram_model=ngram_model,
                settings=json.dumps(settings, sort_keys=True),
                blessed_record=blessed_record.dump() if blessed_record else None,
                source_hash=source_hash(executor.__name__),
                evaluation=Channel(type=standard_artifacts.ModelEvaluation),
                blessing=Channel(type=standard_artifacts.ModelBlessing),
            )
        )
