"""Trainer: TFX's own, running this package's training."""

from __future__ import annotations

from typing import Any

from tfx.components.trainer import component as tfx_trainer
from tfx.types.channel import BaseChannel

from ...models.families import family_of, parts_of
from ...models.references import is_reference
from ...models.tasks import CAUSAL_LM
from ..errors import InputError
from ..source import preset_hash, source_hash

RUN_FN = "langzoo.components.trainer.run.run_fn"


class Trainer(tfx_trainer.Trainer):
    """Packs token ids into windows, trains a model of the zoo and exports it.

    ```python
    trainer = Trainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        model={"family": "lstm", "context_length": 128, "hidden_dim": 256},
        training={"steps": 1000},
        export={},
        checkpoint_root="runs/checkpoints",
    )
    ```

    Args:
        examples: Examples with the feature `token_ids`.
        transform_graph: The graph that made them; it carries the tokenizer.
        model: `family`, `context_length`, `initial_weights` if any, and the family's
            hyperparameters (KerasHub's: `preset` and `pretrained`), as
            `models.zoo.build_causal_lm` takes them.
        training: Fields of `settings.TrainerSettings`.
        export: Options of the task's signatures, as `serving.export.saved_model.export`
            takes them.
        checkpoint_root: Folder for checkpoints; it must outlive the process, so that
            a killed run goes on.
        watch: Fields of `watching.settings.WatchSettings`, or the path of a JSON file
            with them: a change there is none to TFX, and a result in its cache stays
            good. By default nothing is shown.
        hyperparameters: Those that a Tuner found best, in the place of what `model`
            and `training` say.
        task: What the model learns to do, a key of `rows.ROWS`.

    Raises:
        InputError: Where a family or an optimizer of your own is not there, or is not
            what it must be.
    """

    def __init__(
        self,
        *,
        examples: BaseChannel,
        transform_graph: BaseChannel,
        model: dict[str, Any],
        training: dict[str, Any],
        export: dict[str, Any],
        checkpoint_root: str,
        watch: dict[str, Any] | str | None = None,
        hyperparameters: BaseChannel | None = None,
        task: str = CAUSAL_LM.name,
    ) -> None:
        super().__init__(
            examples=examples,
            transform_graph=transform_graph,
            hyperparameters=hyperparameters,
            run_fn=RUN_FN,
            custom_config={
                **learner_config(model, training, checkpoint_root, task, RUN_FN),
                "export": export,
                "watch": watch or {},
            },
        )


def learner_config(
    model: dict[str, Any],
    training: dict[str, Any],
    checkpoint_root: str,
    task: str,
    function: str,
) -> dict[str, Any]:
    """What is configured alike of all that trains, with what decides its results.

    Args:
        model: As of `Trainer`.
        training: Likewise.
        checkpoint_root: Likewise.
        task: Likewise.
        function: What does it, for `source_hash`.

    Raises:
        InputError: As of `Trainer`.
    """
    return {
        "model": model,
        "training": training,
        "checkpoint_root": checkpoint_root,
        # As before there were others, so that what was cached then is still found.
        **({} if task == CAUSAL_LM.name else {"task": task}),
        "source": source_hash(function, *_own_parts(model, training)),
        "preset_hash": preset_hash(
            model.get("preset") or model.get("initial_weights", "")
        ),
    }


def _own_parts(model: dict[str, Any], training: dict[str, Any]) -> list[str]:
    """References to a user's own parts; each is loaded, to see that it is there."""
    optimizer = training.get("optimizer") or ""
    families = [model["family"]]
    key = "model.family"
    try:
        families += [part["family"] for part in parts_of(model)]
        for family in filter(is_reference, families):
            family_of(family)
        key = "trainer.optimizer"
        if is_reference(optimizer):
            from ...models.learning.optimizers import find_optimizer

            find_optimizer(optimizer)
    except (ImportError, ValueError) as error:
        raise InputError(f"{key}: {error}") from error
    own = dict.fromkeys([*families, optimizer])
    return [part for part in own if is_reference(part)]
