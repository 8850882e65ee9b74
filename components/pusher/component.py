"""Pusher: TFX's own interface, with an atomic push."""

from __future__ import annotations

from tfx.components.pusher import component as tfx_pusher
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types.channel import BaseChannel

from ..source import source_hash
from . import executor


class Pusher(tfx_pusher.Pusher):
    """Pushes a blessed model as a new version.

    ```python
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_validator.outputs["blessing"],
        push_folder="serving/langzoo",
    )
    ```

    Args:
        model: The model.
        model_blessing: The Evaluator's verdict.
        infra_blessing: The ServingValidator's verdict.
        push_folder: Folder whose numeric subfolders a model server loads.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        model: BaseChannel,
        model_blessing: BaseChannel,
        infra_blessing: BaseChannel,
        push_folder: str,
    ) -> None:
        filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=push_folder)
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=pusher_pb2.PushDestination(filesystem=filesystem),
            custom_config={"source": source_hash("components/pusher")},
        )
