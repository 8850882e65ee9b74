"""Executor of Pusher."""

from __future__ import annotations

import os
from typing import Any

from tfx import types
from tfx.components.pusher import executor as tfx_executor
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, json_utils, proto_utils

from ..errors import InputError
from ..evaluator.records import EVALUATION_FILE, GATE_FILE, Evaluation, Verdict
from ..progress import report
from ..text_example_gen.executor import Summary
from ..trainer.training import TrainingResult
from . import object_stores
from .model_card import CARD_PATH, CardSettings, model_card
from .versions import push

CARD_KEY = "card"
EVALUATION_KEY = "evaluation"
EXAMPLES_KEY = "examples"
MODEL_RUN_KEY = "model_run"

_PRESET_FILE = "preset/config.json"


class Executor(tfx_executor.Executor):
    """Pushes as TFX's executor does, but a version appears whole or not at all.

    TFX's own creates the numeric folder first and fills it, and a model server loads
    any numeric folder that it sees; and it skips a push that comes in the same second
    as another.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the `pushed_model` artifact, and the version if the model is blessed.

        Raises:
            InputError: Where the push folder cannot be written.
        """
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = proto_utils.json_to_proto(
            exec_properties["push_destination"], pusher_pb2.PushDestination()
        )
        model_path = self.GetModelPath(input_dict)
        card = _card(input_dict, exec_properties)
        texts = {} if card is None else {CARD_PATH: card}
        folder = destination.filesystem.base_directory
        if object_stores.is_object_store(folder):
            try:
                version = object_stores.push(model_path, folder, texts)
            except OSError as error:
                raise InputError(
                    f"the push folder {folder} cannot be written ({error}): set "
                    "serving.push_folder to one that can"
                ) from error
            report(f"{folder} renames no folder: the version's graph was written last")
        else:
            version = str(push(model_path, folder, texts))
        parent, _, number = version.rpartition("/")
        io_utils.copy_dir(model_path, pushed_model.uri)
        self._MarkPushed(
            pushed_model, pushed_destination=version, pushed_version=number
        )
        report(f"pushed version {number} to {parent}")


def _card(
    inputs: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]
) -> str | None:
    """The model card, of what there is; `None` where none is wanted."""
    settings = json_utils.loads(exec_properties["custom_config"])[CARD_KEY]
    if settings is None:
        return None

    def uri(key: str) -> str | None:
        return artifact_utils.get_single_uri(inputs[key]) if inputs.get(key) else None

    evaluation = _read(uri(EVALUATION_KEY), EVALUATION_FILE)
    verdict = _read(uri("model_blessing"), GATE_FILE)
    examples, model_run = uri(EXAMPLES_KEY), uri(MODEL_RUN_KEY)
    return model_card(
        CardSettings(**settings).with_trained(_read(model_run, _PRESET_FILE)),
        Evaluation.model_validate_json(evaluation) if evaluation else None,
        Verdict.model_validate_json(verdict) if verdict else None,
        Summary.read(examples) if examples else None,
        TrainingResult.read(model_run) if model_run else None,
    )


def _read(folder: str | None, name: str) -> str:
    """The text of an artifact's file; "" where there is none."""
    path = os.path.join(folder or "", name)
    if folder is None or not fileio.exists(path):
        return ""
    with fileio.open(path) as file:
        return file.read()
