"""A classifier from labelled text to a server's Classify, and what is told of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo import cli
from langzoo.cli import judging
from langzoo.components.evaluator.gate.decision import Decision
from langzoo.components.evaluator.records import OVERALL, Measure
from langzoo.components.push_folder.records import CARD_FILE
from langzoo.components.text_example_gen import demo_corpus
from langzoo.models.tasks import TASKS
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow import compiler
from langzoo.pipelines.kubeflow.rehearsal import rehearse
from langzoo.pipelines.local import comparison
from langzoo.pipelines.report import data, page
from langzoo.pipelines.report.reading import Runs
from langzoo.serving.client import Client, RestClient
from langzoo.serving.in_process import ExportedModel
from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc
from typer.testing import CliRunner

LABELS = ["class", "method", "topic"]
RULES = [
    {"metric": "cross_entropy", "against": "ngram", "margin": -9.0},
    {"metric": "macro_f1", "min": 0.0},
    {"metric": "accuracy", "min": 0.0, "slice": "label=method"},
]


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """What the small pipeline lacks for a run on some docstrings."""
    path = tmp_path_factory.mktemp("labelled") / "docstrings.jsonl"
    kinds = dict.fromkeys(LABELS, 60)
    with open(path, "w") as file:
        for document in demo_corpus.documents():
            if kinds.get(document.kind):
                kinds[document.kind] -= 1
                record = {"text": document.text[:300], "kind": document.kind}
                file.write(f"{json.dumps(record)}\n")
        file.write(json.dumps({"text": "No label."}) + "\n")
    return [
        "name=classifier",
        "task=text_classifier",
        f"corpus.path={path}",
        "corpus.label_field=kind",
        "corpus.eval_fraction=0.2",
        "trainer.steps=60",
        "trainer.classifier.class_weights=balanced",
        f"gate={json.dumps({'slices': ['label'], 'rules': RULES})}",
    ]


@pytest.fixture(scope="module")
def run(run_pipeline, changes):
    """Configuration, result, and what was shown."""
    return run_pipeline(*changes)


@pytest.fixture(scope="module")
def server(run):
    config, *_ = run
    with unchecked.server(config.push_folder) as running:
        yield running


def test_a_classifier_is_gated_and_pushed(run):
    _, result, shown = run
    assert result.destination, shown
    assert "3 label(s) in train" in shown
    verdict = result.decision.verdict
    assert verdict.blessed
    rules = " ".join(outcome.rule for outcome in verdict.rules)
    assert "cross_entropy <= 2" in rules
    assert "cross_entropy <= ngram + 9" in rules


def test_what_was_measured_is_told_by_label(run):
    _, result, _ = run
    evaluation = result.decision.evaluation
    assert set(evaluation.models) == {"candidate", "ngram"}
    assert [label.label for label in evaluation.labels] == LABELS
    documents = [label.documents for label in evaluation.labels]
    assert sum(documents) == evaluation.documents
    confusion = evaluation.models["candidate"].confusion
    assert [sum(row) for row in confusion] == documents
    right = sum(confusion[i][i] for i in range(3))
    assert evaluation.candidate["accuracy"].value == right / evaluation.documents
    slices = evaluation.models["candidate"].slices
    method = slices["label=method"].metrics["accuracy"].value
    assert method == pytest.approx(evaluation.labels[1].recall)
    page = result.report.read_text()
    assert "Confusion matrix" in page
    assert "<th>method</th>" in page
    card = Path(result.destination, CARD_FILE).read_text()
    assert "pipeline_tag: text-classification" in card
    assert "| method |" in card


def test_classifiers_are_ranked_by_cross_entropy(run, capsys):
    config, result, _ = run
    runs = Runs(config.folder)
    report = runs.read(runs.find(None))
    worse = report.model_copy(deep=True)
    worse.metrics["cross_entropy"] = Measure(value=9.0)
    candidates = [
        data.Candidate(name="worse", run=worse),
        data.Candidate(name="better", run=report),
    ]
    task = TASKS["text_classifier"]
    comparison_ = data.ComparisonReport(
        pipeline=config.name,
        started=report.started,
        seconds=1.0,
        task=task.name,
        metric=task.metric,
        definitions=report.evaluation.definitions,
        candidates=comparison.ranked(candidates, task),
    )
    judging.print_ranking(comparison_)
    shown = capsys.readouterr().out
    assert shown.index("cross entropy") < shown.index("better") < shown.index("worse")
    page_ = page.comparison_page(comparison_, config.folder)
    assert "macro F1" in page_
    assert "Samples" not in page_
    assert "Samples" not in result.report.read_text()


def test_it_answers_in_text(server):
    texts = ["Return the number of items.", "é"]
    with Client(server.grpc_address) as client:
        answers = client.classify(texts)
        scores = client.score_labels(texts, "method")
        assert client.score_labels(texts, ["x", ""]) == [float("-inf")] * 2
        [info] = client.label_info()
        assert (info.labels, info.multi_label) == (tuple(LABELS), False)
    with RestClient(str(server.rest_address)) as client:
        assert client.classify(texts)[0].labels == answers[0].labels
    for answer, score in zip(answers, scores, strict=True):
        assert sorted(answer.labels) == LABELS
        assert list(answer.probabilities) == sorted(answer.probabilities, reverse=True)
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
        told = dict(zip(answer.labels, answer.probabilities, strict=True))
        assert tf.exp(score).numpy() == pytest.approx(told["method"], rel=1e-4)


def test_tensorflow_servings_own_method_answers(server):
    text = "Return the number of items."
    with Client(server.grpc_address) as client:
        [expected] = client.classify([text])
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "langzoo"
    request.model_spec.signature_name = "classify"
    example = request.input.example_list.examples.add()
    example.features.feature["text"].bytes_list.value.append(text.encode())
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        [found] = stub.Classify(request).result.classifications
    assert tuple(entry.label for entry in found.classes) == expected.labels
    assert [entry.score for entry in found.classes] == pytest.approx(
        expected.probabilities
    )
    body = {"signature_name": "classify", "examples": [{"text": text}]}
    url = f"http://{server.rest_address}/v1/models/langzoo:classify"
    [result] = httpx.post(url, json=body).json()["results"]
    assert [label for label, _ in result] == list(expected.labels)


@pytest.mark.parametrize("rest", [False, True])
def test_the_command_says_labels(server, rest, tmp_path):
    address = server.rest_address if rest else server.grpc_address
    options = ["--server", str(address), *(["--rest"] if rest else [])]
    asked = CliRunner().invoke(cli.app, ["classify", "A class.", *options, "--json"])
    assert asked.exit_code == 0, asked.output
    told = json.loads(asked.stdout)
    assert told["text"] == "A class."
    assert sorted(told["labels"]) == LABELS
    lines = tmp_path / "lines.txt"
    lines.write_text("A class.\nTwo.\n")
    shown = CliRunner().invoke(cli.app, ["classify", "--file", str(lines), *options])
    first = shown.stdout.splitlines()
    assert (first[0], first[4]) == ("A class.", "Two.")
    assert re.fullmatch(r" +\d+\.\d\d%  '\w+'", first[1])


def test_the_example_configuration_compiles_for_kubeflow(tmp_path):
    path = loading.DEMO_CONFIG.with_name("classification.yaml")
    config = loading.load(path, ["root=gs://bucket", "kubeflow.image=image"])
    compiler.compile_pipeline(config, tmp_path / "pipeline.yaml")
    assert "label_field" in (tmp_path / "pipeline.yaml").read_text()


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("as_containers")
def test_its_containers_do_what_the_local_run_does(run, settings, changes, tmp_path):
    config = loading.load(settings=[*settings, *changes, f"root={tmp_path}/runs"])
    compiler.compile_pipeline(config, tmp_path / "pipeline.yaml")
    result = rehearse(tmp_path / "pipeline.yaml", [])
    found = Decision.read(
        result.uri("Evaluator", "evaluation"), result.uri("Evaluator", "blessing")
    )
    assert found.blessed
    _, local, _ = run
    expected = local.decision.evaluation
    assert found.evaluation.models["candidate"].confusion == pytest.approx(
        np.array(expected.models["candidate"].confusion), abs=1
    )
    for name, one in found.evaluation.models.items():
        ours, theirs = (
            it.slices[OVERALL].metrics["cross_entropy"].value
            for it in (one, expected.models[name])
        )
        assert ours == pytest.approx(theirs, 1e-3)
    version = result.metadata("Pusher", "pushed_model")["pushed_destination"]
    with ExportedModel(version) as model:
        [answer] = model.classify(["Return the number of items."])
    assert sorted(answer.labels) == LABELS


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("task=text_classifier", "corpus.label_field must name the field"),
        ("gate.max_cross_entropy=1", "gate.max_cross_entropy is of task"),
    ],
)
def test_what_does_not_fit_the_task_is_a_line(setting, said):
    with pytest.raises(loading.ConfigError, match=said):
        loading.load(settings=[setting])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("trainer.packing=lines", "trainer.packing is of tasks whose rows"),
        ("trainer.carry_state=true", "trainer.carry_state"),
        ("trainer.classifier.pooling=first", "whose first state has seen the whole"),
        ("model={family: mixture}", "not for models of family mixture"),
        ("gate.max_bits_per_byte=1", "give gate.max_cross_entropy"),
    ],
)
def test_what_a_classifier_has_no_use_for_is_refused(setting, said):
    path = loading.DEMO_CONFIG.with_name("classification.yaml")
    with pytest.raises(loading.ConfigError, match=said):
        loading.load(path, [setting])
