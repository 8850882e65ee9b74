"""Pusher: TFX's own interface, with an atomic push."""

from __future__ import annotations

from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter
from tfx.utils import json_utils

from ..source import source_hash
from . import executor
from .settings import Card

# What a model card is made of, besides the blessing.
_CARD_INPUTS = {
    executor.EVALUATION_KEY: standard_artifacts.ModelEvaluation,
    executor.EXAMPLES_KEY: standard_artifacts.Examples,
    executor.MODEL_RUN_KEY: standard_artifacts.ModelRun,
}


class PusherSpec(standard_component_specs.PusherSpec):
    """TFX's interface and what the model card is made of."""

    INPUTS = {
        **standard_component_specs.PusherSpec.INPUTS,
        **{
            key: ChannelParameter(type=kind, optional=True)
            for key, kind in _CARD_INPUTS.items()
        },
    }


class Pusher(base_component.BaseComponent):
    """Pushes a blessed model as a new version, with a model card.

    ```python
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_validator.outputs["blessing"],
        push_folder="serving/langzoo",
        card=Card(name="x", model={"family": "lstm"}, tokenizer="bpe", sources=[]),
        evaluation=evaluator.outputs["evaluation"],
        examples=example_gen.outputs["examples"],
        model_run=trainer.outputs["model_run"],
    )
    ```

    Args:
        model: The model.
        model_blessing: The Evaluator's verdict.
        infra_blessing: The ServingValidator's verdict.
        push_folder: Folder whose numeric subfolders a model server loads.
        card: What the model card says of the model, beside what the inputs below say;
            without, there is no card.
        evaluation: What the Evaluator measured.
        examples: What TextExampleGen read.
        model_run: What the Trainer did.
    """

    SPEC_CLASS = PusherSpec

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        model: BaseChannel,
        model_blessing: BaseChannel,
        infra_blessing: BaseChannel,
        push_folder: str,
        card: Card | None = None,
        evaluation: BaseChannel | None = None,
        examples: BaseChannel | None = None,
        model_run: BaseChannel | None = None,
    ) -> None:
        filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=push_folder)
        config = {
            "source": source_hash(executor.__name__),
            executor.CARD_KEY: card.model_dump() if card else None,
        }
        super().__init__(
            PusherSpec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                evaluation=evaluation,
                examples=examples,
                model_run=model_run,
                push_destination=pusher_pb2.PushDestination(filesystem=filesystem),
                custom_config=json_utils.dumps(config),
                pushed_model=Channel(type=standard_artifacts.PushedModel),
            )
        )
