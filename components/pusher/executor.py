"""Executor of Pusher."""

from __future__ import annotations

import os

from tfx.components.pusher import executor as tfx_executor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, json_utils, proto_utils

from .. import storage
from ..errors import InputError
from ..evaluator.records import Evaluation, Verdict
from ..progress import report
from ..push_folder.push_folder import PushFolder
from ..push_folder.records import CARD_FILE, Marker, PushedSource, Source
from ..text_example_gen.records import Summary
from ..trainer.records import TrainingResult
from ..types import Artifacts, Properties
from .model_card import model_card
from .settings import Card

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
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> None:
        """Writes the `pushed_model` artifact, and the version if the model is blessed.

        Raises:
            InputError: Where the push folder cannot be written, or a rollback was made
                since the model was judged.
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
        texts = {} if card is None else {CARD_FILE: card}
        model = artifact_utils.get_single_uri(input_dict["model"])
        folder = PushFolder(destination.filesystem.base_directory)
        _require_judged_since(folder, model, input_dict)
        source = Source(model=model)
        version = folder.push(model_path, {**texts, source.FILE: source.dump()})
        parent, _, number = version.rpartition("/")
        if storage.is_remote(parent):
            report(
                f"not atomic: {parent} renames no folder, so the graph was written "
                f"last, and then the marker {Marker.FILE}"
            )
        io_utils.copy_dir(model_path, pushed_model.uri)
        for path, text in texts.items():
            io_utils.write_string_file(os.path.join(pushed_model.uri, path), text)
        PushedSource(model=model, version=version).write(pushed_model.uri)
        self._MarkPushed(
            pushed_model, pushed_destination=version, pushed_version=number
        )
        report(f"pushed version {number} to {parent}")


def _require_judged_since(folder: PushFolder, model: str, inputs: Artifacts) -> None:
    """Sees that a model was compared with what a rollback has brought back.

    Raises:
        InputError: Where the rollback came later.
    """
    if not inputs.get("model_blessing"):
        return
    live = folder.live_rollback
    verdict = Verdict.find(artifact_utils.get_single_uri(inputs["model_blessing"]))
    if live is None or live.model == model:
        return
    baseline = verdict.baseline if verdict else None
    if baseline is None or baseline.version != live.number:
        raise InputError(
            f"nothing was pushed: a rollback to version {live.version} was made in "
            f"{folder.path} after this model was judged; run again, and it is compared "
            "with that"
        )


def _card(inputs: Artifacts, exec_properties: Properties) -> str | None:
    """The model card, of what there is; `None` where none is wanted."""
    settings = json_utils.loads(exec_properties["custom_config"])[CARD_KEY]
    if settings is None:
        return None

    def uri(key: str) -> str | None:
        return artifact_utils.get_single_uri(inputs[key]) if inputs.get(key) else None

    examples, model_run = uri(EXAMPLES_KEY), uri(MODEL_RUN_KEY)
    return model_card(
        Card(**settings).with_trained(_read(model_run, _PRESET_FILE)),
        Evaluation.find(uri(EVALUATION_KEY)),
        Verdict.find(uri("model_blessing")),
        Summary.read(examples) if examples else None,
        TrainingResult.read(model_run) if model_run else None,
    )


def _read(folder: str | None, name: str) -> str:
    """The text of an artifact's file; "" where there is none."""
    return storage.read_text(os.path.join(folder, name)) if folder else ""
