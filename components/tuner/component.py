"""Tuner: TFX's own, searching with this package's training."""

from __future__ import annotations

from typing import Any

from tfx.components.tuner import component as tfx_tuner
from tfx.dsl.components.base import executor_spec
from tfx.types.channel import BaseChannel

from ...models.tasks import CAUSAL_LM
from ..trainer.component import learner_config
from . import executor

TUNER_FN = "langzoo.components.tuner.run.tuner_fn"


class Tuner(tfx_tuner.Tuner):
    """Searches for the hyperparameters with the best figure, such as bits per byte.

    A trial is a training as Trainer's, with other hyperparameters and mostly fewer
    steps, measured on the evaluation split. Trainer takes the best as its
    `hyperparameters`.

    ```python
    tuner = Tuner(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        model={"family": "lstm", "context_length": 128},
        training={"steps": 1000},
        search={
            "algorithm": "random",
            "trials": 12,
            "steps": 300,
            "seed": 0,
            "space": {"model.hidden_dim": [128, 256]},
        },
        checkpoint_root="runs/checkpoints",
    )
    ```

    Args:
        examples: Examples with the feature `token_ids`.
        transform_graph: The graph that made them; it carries the tokenizer.
        model: As of Trainer; hyperparameters take the place of what it says.
        training: As of Trainer, likewise; of its `steps` nothing depends here.
        search: Fields of `settings.SearchSettings`.
        checkpoint_root: Folder for checkpoints and results of trials; it must outlive
            the process, so that an interrupted search goes on.
        task: As of Trainer.

    Raises:
        InputError: As Trainer.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        examples: BaseChannel,
        transform_graph: BaseChannel,
        model: dict[str, Any],
        training: dict[str, Any],
        search: dict[str, Any],
        checkpoint_root: str,
        task: str = CAUSAL_LM.name,
    ) -> None:
        training = {name: training[name] for name in training if name != "steps"}
        super().__init__(
            examples=examples,
            transform_graph=transform_graph,
            tuner_fn=TUNER_FN,
            custom_config={
                **learner_config(model, training, checkpoint_root, task, TUNER_FN),
                "search": search,
            },
        )
