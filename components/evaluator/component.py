"""Evaluator: TensorFlow Model Analysis, and rules that say which model is blessed."""

from __future__ import annotations

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ComponentSpec

from ..source import source_hash
from ..types import channels, parameters
from . import executor
from .gate.baseline import BlessedRecord
from .probes import ProbeSettings
from .settings import EvaluatorSettings


class EvaluatorSpec(ComponentSpec):
    """Interface of `Evaluator`."""

    PARAMETERS = {
        **parameters(str, executor.SETTINGS_KEY, "source_hash"),
        **parameters(str, executor.RECORD_KEY, optional=True),
    }
    INPUTS = {
        **channels(standard_artifacts.Examples, executor.EXAMPLES_KEY),
        **channels(standard_artifacts.Model, executor.MODEL_KEY),
        **channels(
            standard_artifacts.Model,
            *(executor.BASELINE_KEY, executor.ACCEPTED_KEY, executor.NGRAM_KEY),
            optional=True,
        ),
        **channels(standard_artifacts.ModelRun, executor.MODEL_RUN_KEY, optional=True),
    }
    OUTPUTS = {
        **channels(standard_artifacts.ModelEvaluation, executor.EVALUATION_KEY),
        **channels(standard_artifacts.ModelBlessing, executor.BLESSING_KEY),
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
        settings=GateSettings(max_bits_per_byte=2.5).asked(features=[]),
    )
    ```

    Args:
        examples: Examples with the feature `text`, of which the split `test` is used
            where there is one, else `eval`.
        model: The candidate.
        baseline_model: The model that was blessed last, if there is one, or that a
            rollback has made live since.
        accepted_model: The same, where the candidate is accepted in its place on
            purpose and need not be better.
        ngram_model: An n-gram model of the same data, if a rule is against it.
        model_run: Trainer's, which has the weights, if dynamic evaluation is asked for.
        settings: What the candidate is asked for, and what features the examples have.
        blessed_record: In the place of `baseline_model`, where it is found.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        *,
        examples: BaseChannel,
        model: BaseChannel,
        settings: EvaluatorSettings,
        baseline_model: BaseChannel | None = None,
        accepted_model: BaseChannel | None = None,
        ngram_model: BaseChannel | None = None,
        model_run: BaseChannel | None = None,
        blessed_record: BlessedRecord | None = None,
    ) -> None:
        templates = (settings.probes or ProbeSettings()).templates_hash
        settings = settings.model_copy(update={"templates": templates})
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                accepted_model=accepted_model,
                ngram_model=ngram_model,
                model_run=model_run,
                settings=settings.dump(),
                blessed_record=blessed_record.dump() if blessed_record else None,
                source_hash=source_hash(
                    executor.__name__, *settings.own_metrics.values()
                ),
                evaluation=Channel(type=standard_artifacts.ModelEvaluation),
                blessing=Channel(type=standard_artifacts.ModelBlessing),
            )
        )
