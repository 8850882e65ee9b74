"""Executor of Evaluator."""

from __future__ import annotations

import os

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from ..documents import split
from ..text_example_gen.records import Splitting, Summary, judged_split
from ..trainer.records import PRESET_FOLDER
from ..types import Artifacts, Properties
from .gate import baseline
from .gate.decision import Decision
from .judging import Split, judge
from .records import CANDIDATE, LAST_BLESSED, NGRAM
from .settings import EvaluatorSettings

MODEL_KEY = "model"
BASELINE_KEY = "baseline_model"
ACCEPTED_KEY = "accepted_model"
NGRAM_KEY = "ngram_model"
MODEL_RUN_KEY = "model_run"
EXAMPLES_KEY = "examples"
EVALUATION_KEY = "evaluation"
BLESSING_KEY = "blessing"
SETTINGS_KEY = "settings"
RECORD_KEY = "blessed_record"


class Executor(base_beam_executor.BaseBeamExecutor):
    """Evaluates the candidate and applies the rules."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> None:
        """Writes the artifacts `evaluation` and `blessing`."""
        settings = EvaluatorSettings.parse(exec_properties[SETTINGS_KEY])
        evaluation_uri = artifact_utils.get_single_uri(output_dict[EVALUATION_KEY])
        models = {
            name: path_utils.serving_model_path(input_dict[key][0].uri)
            for name, key in ((CANDIDATE, MODEL_KEY), (NGRAM, NGRAM_KEY))
            if input_dict.get(key)
        }
        candidate = artifact_utils.get_single_uri(input_dict[MODEL_KEY])
        told = exec_properties.get(RECORD_KEY)
        record = baseline.BlessedRecord.parse(told) if told else None
        accepted = input_dict.get(ACCEPTED_KEY, [])
        comparison = (
            record.comparison(candidate)
            if record
            else baseline.resolved(input_dict.get(BASELINE_KEY) or accepted)
        )
        judged = _judged(input_dict[EXAMPLES_KEY])
        with comparison.model() as last:
            if last:
                models[LAST_BLESSED] = last
            left_out = {LAST_BLESSED: comparison.trouble} if comparison.trouble else {}
            decision = judge(
                models,
                split(input_dict[EXAMPLES_KEY], judged.name),
                settings,
                evaluation_uri,
                self._make_beam_pipeline,
                train_texts=split(input_dict[EXAMPLES_KEY], "train"),
                left_out=left_out,
                of=judged,
                compared_with=comparison.baseline,
                accepted=comparison.accepted or bool(accepted),
                taken_back=comparison.taken_back.get(candidate),
                preset=_preset(input_dict),
            )
        decision.evaluation.write(evaluation_uri)
        if judged.splitting:
            blessing_uri = artifact_utils.get_single_uri(output_dict[BLESSING_KEY])
            judged.splitting.write(blessing_uri)
        _bless(decision, input_dict, output_dict, exec_properties)
        if record and decision.blessed:
            record.bless(candidate, comparison)


def _preset(input_dict: Artifacts) -> str:
    """Folder of the candidate as a Keras preset, where it is given."""
    runs = input_dict.get(MODEL_RUN_KEY)
    return os.path.join(runs[0].uri, PRESET_FOLDER) if runs else ""


def _judged(examples: list[types.Artifact]) -> Split:
    """The split that the candidate is judged by."""
    artifact = artifact_utils.get_single_instance(examples)
    name = judged_split(artifact_utils.decode_split_names(artifact.split_names))
    selected_on = split(examples, "eval") if name != "eval" else None
    found = Summary.contamination_of(artifact.uri, name)
    return Split(name, Splitting.find(artifact.uri), selected_on, found)


def _bless(
    decision: Decision,
    input_dict: Artifacts,
    output_dict: Artifacts,
    exec_properties: Properties,
) -> None:
    """Writes the blessing as TFX's Evaluator does, and `gate.json`."""
    blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
    decision.verdict.write(blessing.uri)
    of_models = {
        MODEL_KEY: (
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY,
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY,
        ),
        **dict.fromkeys(
            (BASELINE_KEY, ACCEPTED_KEY),
            (
                constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY,
                constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY,
            ),
        ),
    }
    for key, (uri_property, id_property) in of_models.items():
        for model in input_dict.get(key, []):
            blessing.set_string_custom_property(uri_property, model.uri)
            blessing.set_int_custom_property(id_property, model.id)
    if "current_component_id" in exec_properties:
        component_id = exec_properties["current_component_id"]
        blessing.set_string_custom_property("component_id", component_id)
    name, value = (
        (constants.BLESSED_FILE_NAME, constants.BLESSED_VALUE)
        if decision.blessed
        else (constants.NOT_BLESSED_FILE_NAME, constants.NOT_BLESSED_VALUE)
    )
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
