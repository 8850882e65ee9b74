"""The compiled pipeline, executed container by container.

A container imports TFX, which takes 10 s of CPU and more: the two rehearsals are 14 of
them, some three minutes.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from langzoo.components.errors import InputError
from langzoo.components.evaluator.gate import read_decision
from langzoo.components.pusher.push_folder import PushFolder
from langzoo.pipelines import config as pipeline_config
from langzoo.pipelines.kubeflow import compile_pipeline
from langzoo.pipelines.rehearsal import (
    RESOURCES_FILE,
    Specification,
    TaskError,
    _Task,
    rehearse,
)
from langzoo.pipelines.versions import roll_back, versions

# The components must be found by processes that do not know how pytest found them.
PACKAGE_ROOT = str(Path(pipeline_config.__file__).parents[2])


@pytest.fixture(scope="module")
def specification(settings, tmp_path_factory):
    """The small pipeline, compiled with another corpus, and a root of its own."""
    folder = tmp_path_factory.mktemp("rehearsal")
    changed = ["corpus.path=nowhere", "kubeflow.cache=true"]
    config = pipeline_config.load(settings=[*settings, f"root={folder}", *changed])
    compile_pipeline(config, folder / "pipeline.yaml")
    return folder / "pipeline.yaml"


@pytest.fixture(scope="module")
def rehearsed(specification, settings):
    """Rehearses it with the corpus of the local run, and other parameters."""
    (corpus,) = (text for text in settings if text.startswith("corpus.path="))

    def run(*parameters):
        lines = []
        with pytest.MonkeyPatch.context() as patch:
            found = os.environ.get("PYTHONPATH", "")
            patch.setenv("PYTHONPATH", os.pathsep.join([PACKAGE_ROOT, found]))
            given = [corpus.removeprefix("corpus."), *parameters]
            given[0] = given[0].replace("path=", "corpus=", 1)
            result = rehearse(specification, given, show=lines.append)
        return result, lines

    return run


@pytest.fixture(scope="module")
def rehearsal(rehearsed):
    """The first rehearsal."""
    return rehearsed()


def decision(rehearsal):
    return read_decision(
        rehearsal.uri("Evaluator", "evaluation"), rehearsal.uri("Evaluator", "blessing")
    )


@pytest.mark.timeout(1800)
def test_the_outputs_are_those_of_the_local_run(rehearsal, first):
    result, _ = rehearsal
    _, local, _ = first
    found = decision(result)
    assert found.blessed
    for name in ("perplexity", "bits_per_byte"):
        assert found.metrics[name] == pytest.approx(local.decision.metrics[name], 1e-3)
    version = Path(result.metadata("Pusher", "pushed_model")["pushed_destination"])
    assert (version / "saved_model.pb").exists()
    assert str(local.training.steps) == "150"


@pytest.mark.timeout(1800)
def test_what_each_container_took_is_told(rehearsal):
    result, lines = rehearsal
    took = result.resources["Trainer"]
    # Importing TensorFlow alone takes some seconds and some hundred megabytes.
    assert 1 < took.cpu_seconds < os.cpu_count() * took.wall_seconds
    assert 3e8 < took.peak_memory_bytes < 1e10
    written = json.loads((result.folder / RESOURCES_FILE).read_text())
    assert written["Trainer"] == dataclasses.asdict(took)
    assert list(written) == [line.split()[0] for line in lines]


@pytest.mark.timeout(1800)
def test_a_second_run_is_measured_against_the_model_that_the_first_blessed(
    rehearsal, rehearsed
):
    before, _ = rehearsal
    result, lines = rehearsed("steps=20", "min_improvement=1.5")
    training = json.loads(
        Path(result.uri("Trainer", "model_run"), "training.json").read_text()
    )
    assert training["steps"] == 20
    # What does not depend on what was changed, is taken from the cache.
    assert "Transform  cached" in lines
    assert "Transform" not in result.resources
    assert result.uri("Transform", "transform_graph") == before.uri(
        "Transform", "transform_graph"
    )
    found = decision(result)
    assert not found.blessed
    evaluation = Path(result.uri("Evaluator", "evaluation"), "evaluation.json")
    assert "last_blessed" in evaluation.read_text()
    assert not result.metadata("Pusher", "pushed_model").get("pushed_destination")


@pytest.mark.timeout(900)
def test_after_a_rollback_a_candidate_is_compared_with_what_is_live(
    rehearsal, specification, settings, tmp_path
):
    result, _ = rehearsal
    config = pipeline_config.load(settings=[*settings, f"root={specification.parent}"])
    pushed = Path(result.metadata("Pusher", "pushed_model")["pushed_destination"])
    serving = PushFolder(config.push_folder)
    serving.push(str(pushed))
    live = roll_back(config, int(pushed.name))
    (row,) = (row for row in versions(config) if row.version == live.version)
    assert (row.run, row.state) == (result.folder.name, "earlier")
    assert row.bits_per_byte == decision(result).bits_per_byte
    assert live.model == result.uri("Trainer", "model")

    outputs = copy.deepcopy(result.outputs)
    trained = outputs["Trainer"]["model"]
    trained["uri"] = shutil.copytree(trained["uri"], tmp_path / "candidate").as_posix()
    compiled = Specification.read(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PACKAGE_ROOT)
        judged = _Task(compiled, "Evaluator", tmp_path).run(
            compiled.values([]), outputs
        )
    uris = (judged[key]["uri"] for key in ("evaluation", "blessing"))
    baseline = read_decision(*uris).compared_with
    assert (baseline.version, baseline.again) == (live.number, live.version)
    assert baseline.model == live.folder


def compiled(folder, command, **task):
    """A pipeline of one container."""
    content = {
        "pipelineInfo": {"name": "one"},
        "schemaVersion": "2.1.0",
        "defaultPipelineRoot": str(folder / "root"),
        "components": {
            "Only": {
                "executorLabel": "Only_executor",
                "inputDefinitions": {
                    "parameters": {"text": {"parameterType": "STRING"}}
                },
            }
        },
        "deploymentSpec": {
            "executors": {
                "Only_executor": {"container": {"image": "x", "command": command}}
            }
        },
        "root": {
            "inputDefinitions": {
                "parameters": {"text": {"parameterType": "NUMBER_INTEGER"}}
            },
            "dag": {
                "tasks": {
                    "Only": {
                        "componentRef": {"name": "Only"},
                        "inputs": {
                            "parameters": {"text": {"componentInputParameter": "text"}}
                        },
                        **task,
                    }
                }
            },
        },
    }
    path = folder / "one.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_container_that_fails_is_told_with_its_code_and_last_lines(tmp_path):
    script = "echo told {{$.inputs.parameters['text']}} >&2; exit 7"
    path = compiled(tmp_path, ["sh", "-c", script], retryPolicy={"maxRetryCount": 1})
    with pytest.raises(TaskError) as error:
        rehearse(path, ["text=12"])
    said = str(error.value)
    assert said.startswith("task Only failed: exit code 7, 2 attempt(s)")
    assert said.endswith("told 12\ntold 12")
    (written,) = tmp_path.rglob(RESOURCES_FILE)
    assert json.loads(written.read_text())["Only"]["wall_seconds"] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "--set is needed for text"),
        (["text=some"], "'some' is not a whole number, which text is"),
        (["steps=1"], "write NAME=VALUE, of text"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        rehearse(compiled(tmp_path, ["true"]), settings)


def test_what_the_open_source_backend_does_not_run_is_refused(tmp_path):
    path = compiled(tmp_path, ["true"])
    content = yaml.safe_load(path.read_text())
    content["deploymentSpec"]["executors"]["Only_executor"] = {"resolver": {}}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="Only is a resolver, not a container"):
        rehearse(path, ["text=1"])


@pytest.mark.parametrize("content", ["", "- 1", "a: [", "name: demo", "root: {}"])
def test_a_file_that_is_no_specification_is_refused(tmp_path, content):
    path = tmp_path / "pipeline.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"pipeline\.yaml"):
        rehearse(path)
