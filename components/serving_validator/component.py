"""ServingValidator: a model server loads the candidate and answers."""

from __future__ import annotations

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ComponentSpec

from ..source import source_hash
from ..types import channels, parameters
from . import executor


class ServingValidatorSpec(ComponentSpec):
    """Interface of `ServingValidator`."""

    PARAMETERS = parameters(str, "source_hash")
    INPUTS = {
        **channels(standard_artifacts.Model, "model"),
        **channels(standard_artifacts.ModelBlessing, "model_blessing"),
        **channels(standard_artifacts.Examples, "examples"),
    }
    OUTPUTS = channels(standard_artifacts.InfraBlessing, "blessing")


class ServingValidator(base_component.BaseComponent):
    """Starts a model server on the candidate and queries it with real documents.

    It stands where TFX's InfraValidator would, which needs Docker or Kubernetes. The
    server is a process of its own, so a model that takes it down is refused.

    ```python
    serving_validator = ServingValidator(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        examples=example_gen.outputs["examples"],
    )
    ```

    Args:
        model: The candidate.
        model_blessing: The Evaluator's verdict; a refused model is not served.
        examples: Examples with the feature `text`; some of `eval` are the queries.
    """

    SPEC_CLASS = ServingValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        model: BaseChannel,
        model_blessing: BaseChannel,
        examples: BaseChannel,
    ) -> None:
        super().__init__(
            ServingValidatorSpec(
                model=model,
                model_blessing=model_blessing,
                examples=examples,
                source_hash=source_hash(executor.__name__),
                blessing=Channel(type=standard_artifacts.InfraBlessing),
            )
        )
