"""The compiled pipeline, executed container by container, on files in a store.

The two rehearsals are 16 containers, of one pipeline with all components. Of them the
first training is the process that each is; others are forks of one that has imported
TFX.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading

import pytest
import yaml
from langzoo.components import storage
from langzoo.components.errors import InputError
from langzoo.components.evaluator.executor import RECORD_KEY
from langzoo.components.evaluator.gate.baseline import BlessedRecord
from langzoo.components.evaluator.gate.decision import Decision
from langzoo.components.push_folder.push_folder import PushFolder
from langzoo.components.push_folder.records import CARD_FILE
from langzoo.components.trainer.records import TrainingResult
from langzoo.components.tuner.records import read_trials
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow import container
from langzoo.pipelines.kubeflow import rehearsal as rehearsal_module
from langzoo.pipelines.kubeflow.compiler import compile_pipeline
from langzoo.pipelines.kubeflow.rehearsal import (
    RESOURCES_FILE,
    Specification,
    TaskError,
    _Task,
    rehearse,
    run_measured,
)
from langzoo.pipelines.versions import roll_back, versions
from tfx.utils import io_utils


@pytest.fixture(scope="module", autouse=True)
def first_training_apart(as_containers):
    """The first training is a process as a container is, and no fork."""
    trained = []

    def run_container(command, **options):
        is_first = options["cwd"].name == "Trainer" and not trained
        if is_first:
            trained.append(command)
        return (run_measured if is_first else as_containers)(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal_module, "run_measured", run_container)
        yield


@pytest.fixture(scope="module")
def specification(settings, store, tmp_path_factory):
    """The small pipeline with a search and an n-gram model, and a root in a store.

    What the local run has, is left to the search and to parameters.
    """
    folder = tmp_path_factory.mktemp("rehearsal")
    space = {"model.hidden_dim": [32]}
    search = {"algorithm": "random", "trials": 1, "steps": 2, "space": space}
    rule = {"metric": "bits_per_byte", "against": "ngram", "margin": -9.0}
    changed = {
        "root": f"{store}/runs",
        "corpus.path": "nowhere",
        "model.hidden_dim": 16,
        "trainer.steps": 1,
        "search": search,
        "gate.rules": [rule],
        "kubeflow.cache": True,
    }
    changes = [f"{name}={json.dumps(value)}" for name, value in changed.items()]
    config = loading.load(settings=[*settings, *changes])
    compile_pipeline(config, folder / "pipeline.yaml")
    return folder / "pipeline.yaml"


@pytest.fixture(scope="module")
def rehearsed(specification, settings, store):
    """Rehearses it with the corpus and the steps of the local run."""
    given = dict(setting.split("=", 1) for setting in settings)
    io_utils.copy_dir(given["corpus.path"], f"{store}/texts")
    parameters = [f"corpus={store}/texts", f"steps={given['trainer.steps']}"]

    def run(*more):
        lines = []
        result = rehearse(specification, [*parameters, *more], show=lines.append)
        return result, lines

    return run


@pytest.fixture(scope="module")
def rehearsal(rehearsed):
    """The first rehearsal."""
    return rehearsed()


def decision(rehearsal):
    return Decision.read(
        rehearsal.uri("Evaluator", "evaluation"), rehearsal.uri("Evaluator", "blessing")
    )


@pytest.mark.timeout(1800)
def test_the_outputs_are_those_of_the_local_run(rehearsal, first):
    result, lines = rehearsal
    _, local, _ = first
    found = decision(result)
    assert found.blessed
    expected = local.decision.evaluation.candidate
    for name in ("perplexity", "bits_per_byte"):
        measure = found.evaluation.candidate[name]
        assert measure.value == pytest.approx(expected[name].value, 1e-3)
    version = result.metadata("Pusher", "pushed_model")["pushed_destination"]
    assert storage.exists(f"{version}/saved_model.pb")
    training = TrainingResult.read(result.uri("Trainer", "model_run"))
    # The steps are a parameter, the width is the search's.
    assert training.steps == local.training.steps
    assert training.parameters == local.training.parameters
    assert len(lines) == len(set(lines)) == len(result.outputs) == 12


@pytest.mark.timeout(1800)
def test_the_training_takes_what_was_found(rehearsal):
    result, _ = rehearsal
    (trial,) = read_trials(result.uri("Tuner", "tuner_results"))
    assert (trial.values, trial.steps) == ({"model.hidden_dim": 32}, 2)
    version = result.metadata("Pusher", "pushed_model")["pushed_destination"]
    assert "| hidden_dim | 32 |" in storage.read_text(f"{version}/{CARD_FILE}")


@pytest.mark.timeout(1800)
def test_the_gate_compares_with_the_ngram_model(rehearsal):
    result, _ = rehearsal
    training = TrainingResult.read(result.uri("NgramTrainer", "model_run"))
    assert training.tokens_seen > 0
    outcome = decision(result).verdict.rules[-1]
    assert (outcome.rule, outcome.passed) == ("bits_per_byte <= ngram + 9", True)


@pytest.mark.timeout(1800)
def test_what_each_container_took_is_told(rehearsal):
    result, lines = rehearsal
    took = result.resources["Trainer"]
    # Importing TensorFlow alone takes some seconds and some hundred megabytes.
    assert 1 < took.cpu_seconds < os.cpu_count() * took.wall_seconds
    assert 3e8 < took.peak_memory_bytes < 1e10
    written = json.loads((result.folder / RESOURCES_FILE).read_text())
    assert written["Trainer"] == dataclasses.asdict(took)
    assert set(written) == {line.split()[0] for line in lines}


@pytest.mark.timeout(1800)
def test_a_second_run_is_measured_against_the_model_that_the_first_blessed(
    rehearsal, rehearsed
):
    before, _ = rehearsal
    result, lines = rehearsed("steps=20", "min_improvement=1.5")
    assert TrainingResult.read(result.uri("Trainer", "model_run")).steps == 20
    # What does not depend on what was changed, is taken from the cache.
    ran = {line.split()[0] for line in lines if not line.endswith("  cached")}
    assert ran == {"Trainer", "Evaluator", "ServingValidator", "Pusher"}
    assert set(result.resources) == ran
    assert result.uri("Tuner", "tuner_results") == before.uri("Tuner", "tuner_results")
    found = decision(result)
    assert not found.blessed
    assert found.baseline == decision(before).value
    assert not result.metadata("Pusher", "pushed_model").get("pushed_destination")


@pytest.mark.timeout(900)
def test_after_a_rollback_a_candidate_is_compared_with_what_is_live(
    rehearsal, specification, settings, store, tmp_path
):
    result, _ = rehearsal
    config = loading.load(settings=[*settings, f"root={store}/runs"])
    pushed = result.metadata("Pusher", "pushed_model")["pushed_destination"]
    PushFolder(config.push_folder).push(pushed)
    copied = PushFolder(str(tmp_path / "serving")).push(pushed)
    assert storage.exists(f"{copied}/{CARD_FILE}")
    live = roll_back(config, int(pushed.rpartition("/")[2]))
    (row,) = (row for row in versions(config) if row.version == live.version)
    assert (row.run, row.state) == (result.folder.name, "earlier")
    assert row.value == decision(result).value
    assert live.model == result.uri("Trainer", "model")

    # What the Evaluator's container is told.
    compiled = Specification.read(specification)
    task = _Task(compiled, "Evaluator", tmp_path, f"{store}/again", threading.Event())
    inputs = task._executor_input(compiled.values([]), result.outputs)
    command = task._command(inputs)
    told = json.loads(command[command.index(container._INPUT) + 1])
    record = BlessedRecord.parse(told["inputs"]["parameterValues"][RECORD_KEY])
    baseline = record.comparison(f"{store}/candidate").baseline
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


MEETS = """
touch ../$$.here
for second in 1 2 3 4 5 6 7 8 9 10; do
  test $(ls .. | grep -c here) -ge 2 && exit 0
  sleep 1
done
exit 1
"""


@pytest.mark.skipif(
    os.cpu_count() == 1, reason="as many run at once as there are cores"
)
def test_containers_that_do_not_need_each_other_run_at_once(tmp_path):
    path = compiled(tmp_path, ["sh", "-c", MEETS])
    content = yaml.safe_load(path.read_text())
    tasks = content["root"]["dag"]["tasks"]
    tasks["Other"] = tasks["Only"]
    tasks["Last"] = {**tasks["Only"], "dependentTasks": ["Only", "Other"]}
    path.write_text(yaml.safe_dump(content))
    lines = []
    rehearse(path, ["text=1"], show=lines.append)
    assert {line.split()[0] for line in lines[:2]} == {"Only", "Other"}
    assert lines[2].startswith("Last")


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


@pytest.mark.parametrize("root", ["minio://mlpipeline/v2/artifacts", "s3://bucket"])
def test_a_store_that_containers_cannot_write_to_is_refused(tmp_path, root):
    path = compiled(tmp_path, ["true"])
    with pytest.raises(InputError, match=f"the root '{root}' is neither a folder"):
        rehearse(path, ["text=1"], root)


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
