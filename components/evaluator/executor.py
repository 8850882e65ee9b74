"""Executor of Evaluator, whose parts also judge a model outside a pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from ...serving.in_process import ExportedModel
from ..documents import Documents, split
from ..progress import report
from . import probes
from .gate import baseline, verdict
from .gate.rules import LAST_BLESSED, NGRAM, Rule, parse, sliced_features
from .measures import analysis, exported
from .results import CANDIDATE, Evaluation

MODEL_KEY = "model"
BASELINE_KEY = "baseline_model"
NGRAM_KEY = "ngram_model"
EXAMPLES_KEY = "examples"
EVALUATION_KEY = "evaluation"
BLESSING_KEY = "blessing"
SETTINGS_KEY = "settings"
RECORD_KEY = "blessed_record"

_SAMPLES = 3
_LATENCY_TEXTS = 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a candidate is asked for.

    Attributes:
        rules: The rules that it must keep.
        slices: Features by which its metrics are sliced.
        probes: Metrics of `probes` that are measured.
        probe_settings: How, as `probes.run` takes it.
    """

    rules: list[Rule]
    slices: list[str]
    probes: list[str]
    probe_settings: dict[str, Any]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Settings:
        """Makes settings of what `Evaluator` is given."""
        rules = parse(content["rules"], content["features"])
        slices = sliced_features(rules, content["slices"])
        probe_settings = content["probes"]
        named = {rule.metric for rule in rules}
        wanted = [n for n in probes.NAMES if n in named or probe_settings is not None]
        return cls(rules, slices, wanted, probe_settings or {})


def evaluate(
    models: Mapping[str, str],
    documents: Documents,
    settings: Settings,
    output: str,
    make_pipeline: Callable[[], beam.Pipeline],
    *,
    train_texts: Iterable[str] = (),
) -> Evaluation:
    """Measures a candidate, and the models that it is compared with.

    Args:
        models: Folders of SavedModels by name: `candidate` and, where there are such,
            `last_blessed` and `ngram`.
        documents: What they are evaluated on.
        settings: What is asked for.
        output: Folder for what TFMA writes.
        make_pipeline: Makes a Beam pipeline.
        train_texts: What the candidate was trained on, for probes that ask for it.
    """
    missing = exported.missing_signatures(models[CANDIDATE])
    if analysis.SIGNATURE in missing:
        return Evaluation(missing_signatures=missing)
    models = dict(_comparable(models))
    seconds: dict[str, float] = {}
    with _timed(seconds, "analysis"), make_pipeline() as pipeline:
        patterns, slices = documents.file_patterns, settings.slices
        analysis.analyze(pipeline, models, patterns, slices, output)
    texts = [] if missing else list(itertools.islice(documents, _LATENCY_TEXTS))
    with _timed(seconds, "export"):
        measured, samples = _measure(models, texts)
    probed = probes.Probed({}, {})
    if settings.probes and texts:
        with _timed(seconds, "probes"):
            probed = probes.run(
                settings.probes,
                models[CANDIDATE],
                documents,
                train_texts,
                settings.probe_settings,
            )
    return Evaluation(
        sums=analysis.read_sums(output, CANDIDATE),
        exported=measured,
        probes=probed.metrics,
        details=probed.details,
        samples=samples,
        missing_signatures=missing,
        seconds=seconds,
    )


def _comparable(models: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The models that can be evaluated; an export of old may lack the signature."""
    for name, path in models.items():
        if analysis.SIGNATURE in exported.missing_signatures(path):
            report(f"{name} is not compared with: it has no {analysis.SIGNATURE}")
        else:
            yield name, path


def _measure(
    models: Mapping[str, str], texts: list[str]
) -> tuple[dict[str, dict[str, float]], list[dict[str, str]]]:
    """What is measured of each export, and what the candidate writes."""
    measured = {name: {"size_mb": exported.size_mb(p)} for name, p in models.items()}
    samples: list[dict[str, str]] = []
    for name, path in models.items() if texts else ():
        with ExportedModel(path) as model:
            measured[name]["latency_ms"] = exported.latency_ms(model, texts)
            if name == CANDIDATE:
                samples = exported.samples(model, texts[:_SAMPLES])
    return measured, samples


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[part] = time.monotonic() - started


class Executor(base_beam_executor.BaseBeamExecutor):
    """Evaluates the candidate and applies the rules."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the artifacts `evaluation` and `blessing`."""
        settings = Settings.of(json.loads(exec_properties[SETTINGS_KEY]))
        evaluation_uri = artifact_utils.get_single_uri(output_dict[EVALUATION_KEY])
        models = {
            name: path_utils.serving_model_path(input_dict[key][0].uri)
            for name, key in (
                (CANDIDATE, MODEL_KEY),
                (NGRAM, NGRAM_KEY),
            )
            if input_dict.get(key)
        }
        candidate = artifact_utils.get_single_uri(input_dict[MODEL_KEY])
        told = exec_properties.get(RECORD_KEY)
        record = baseline.Record.parse(told) if told else None
        comparison = (
            record.comparison(candidate)
            if record
            else baseline.resolved(input_dict.get(BASELINE_KEY, []))
        )
        with comparison.model() as last:
            if last:
                models[LAST_BLESSED] = last
            evaluation = evaluate(
                models,
                split(input_dict[EXAMPLES_KEY], "eval"),
                settings,
                evaluation_uri,
                self._make_beam_pipeline,
                train_texts=split(input_dict[EXAMPLES_KEY], "train"),
            )
        decision = verdict.decide(
            settings.rules,
            evaluation,
            compared_with=comparison.baseline,
            taken_back=comparison.taken_back.get(candidate),
        )
        evaluation.write(evaluation_uri)
        _bless(decision, input_dict, output_dict, exec_properties)
        if record and decision.blessed:
            record.bless(candidate, comparison)


def _bless(
    decision: verdict.Decision,
    input_dict: dict[str, list[types.Artifact]],
    output_dict: dict[str, list[types.Artifact]],
    exec_properties: dict[str, Any],
) -> None:
    """Writes the blessing as TFX's Evaluator does, and `gate.json`."""
    blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
    fileio.makedirs(blessing.uri)
    decision.write(blessing.uri)
    of_models = {
        MODEL_KEY: (
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY,
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY,
        ),
        BASELINE_KEY: (
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY,
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY,
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
