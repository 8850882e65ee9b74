"""A tagger from words with tags to a server's answers, and what is told of it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import unchecked
from langzoo import cli
from langzoo.components.push_folder.records import CARD_FILE
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow import compiler
from langzoo.serving.client import Client, RestClient
from typer.testing import CliRunner

TAGS = ["B-LOC", "B-PER", "I-PER", "O"]
RULES = [
    {"metric": "nats_per_tag", "against": "ngram", "margin": -9.0},
    {"metric": "span_f1", "min": 0.0},
]
NAMES = [("Ann", "Lee"), ("Bob",), ("Eve", "Ray")]
PLACES = ["Rome", "Oslo", "Lima"]


def sentences(count):
    """Words and tags of so many sentences about people and places."""
    draw = random.Random(0)
    for number in range(count):
        name, place = draw.choice(NAMES), draw.choice(PLACES)
        tags = ["B-PER", *["I-PER"] * (len(name) - 1), "O", "O", "B-LOC", "O"]
        yield [*name, "lived", "in", place, str(number)], tags


@pytest.fixture(scope="module")
def run(run_pipeline, tmp_path_factory):
    """Configuration, result, and what was shown, of a run on some sentences."""
    folder = tmp_path_factory.mktemp("tagged")
    lines = []
    for words, tags in sentences(120):
        lines += [f"{word} {tag}" for word, tag in zip(words, tags, strict=True)]
        lines.append("")
    (folder / "x.conll").write_text("\n".join(lines))
    return run_pipeline(
        "name=tagger",
        "task=token_classifier",
        f"corpus.path={folder}",
        "corpus.tags_field=-1",
        "corpus.eval_fraction=0.2",
        "trainer.steps=60",
        f"gate={json.dumps({'rules': RULES})}",
    )


@pytest.fixture(scope="module")
def server(run):
    config, *_ = run
    with unchecked.server(config.push_folder) as running:
        yield running


def test_a_tagger_is_gated_and_pushed(run):
    _, result, shown = run
    assert result.destination, shown
    assert "4 tag(s) in train" in shown
    rules = " ".join(outcome.rule for outcome in result.decision.verdict.rules)
    assert "nats_per_tag <= 1" in rules
    assert "nats_per_tag <= ngram + 9" in rules


def test_what_was_measured_is_told_by_tag_and_by_type(run):
    _, result, _ = run
    evaluation = result.decision.evaluation
    assert set(evaluation.models) == {"candidate", "ngram"}
    assert [label.label for label in evaluation.labels] == TAGS
    assert [span.label for span in evaluation.spans] == ["LOC", "PER"]
    assert [s.documents for s in evaluation.spans] == [evaluation.documents] * 2
    confusion = evaluation.models["candidate"].confusion
    words = [label.documents for label in evaluation.labels]
    assert [sum(row) for row in confusion] == words
    # Names and places are known by heart from their own tokens.
    assert evaluation.of("ngram")["span_f1"].value == 1.0
    assert evaluation.of("ngram")["nats_per_tag"].value < 0.2
    page = result.report.read_text()
    assert "<h3>Spans</h3>" in page
    assert "<h3>Tags</h3>" in page
    card = Path(result.destination, CARD_FILE).read_text()
    assert "pipeline_tag: token-classification" in card
    assert "| PER |" in card


def test_it_answers_in_words(server):
    texts = ["Ann Lee lived  in Rome 7", ["Bob", "lived"], ""]
    with Client(server.grpc_address) as client:
        answers = client.tag(texts)
        scores = client.score_tags(texts[:2], [answers[0].tags, "O"])
        with pytest.raises(ValueError, match="no white space"):
            client.tag([["a b"]])
    with RestClient(str(server.rest_address)) as client:
        assert [it.tags for it in client.tag(texts)] == [it.tags for it in answers]
    assert [len(answer.words) for answer in answers] == [6, 2, 0]
    assert answers[0].words == ("Ann", "Lee", "lived", "in", "Rome", "7")
    assert set(answers[0].tags) <= set(TAGS)
    likely = math.fsum(map(math.log, answers[0].probabilities))
    assert scores == [pytest.approx(likely, abs=1e-5), -math.inf]


@pytest.mark.parametrize("rest", [False, True])
def test_the_command_says_tags(server, rest, tmp_path):
    address = server.rest_address if rest else server.grpc_address
    options = ["--server", str(address), *(["--rest"] if rest else [])]
    asked = CliRunner().invoke(cli.app, ["tag", "Ann lived", *options, "--json"])
    assert asked.exit_code == 0, asked.output
    told = json.loads(asked.stdout)
    assert (told["text"], told["words"]) == ("Ann lived", ["Ann", "lived"])
    lines = tmp_path / "lines.txt"
    lines.write_text("Ann lived\nTwo\n")
    shown = CliRunner().invoke(cli.app, ["tag", "--file", str(lines), *options])
    first = shown.stdout.splitlines()
    assert (first[0], first[3]) == ("Ann lived", "Two")
    assert first[1].split()[1:] == [told["tags"][0], "Ann"]


def test_the_example_configuration_compiles_for_kubeflow(tmp_path):
    path = loading.DEMO_CONFIG.with_name("tagging.yaml")
    config = loading.load(path, ["root=gs://bucket", "kubeflow.image=image"])
    compiler.compile_pipeline(config, tmp_path / "pipeline.yaml")
    assert "tags_field" in (tmp_path / "pipeline.yaml").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["task=token_classifier", "gate={}"], "corpus.tags_field must name the field"),
        (
            ["task=token_classifier", "gate={}", "corpus.fields={tag: kind}"],
            "corpus.tags_field must name the field",
        ),
        (["trainer.tagger={dropout: 0.2}"], "trainer.tagger is of task token_class"),
    ],
)
def test_what_does_not_fit_the_task_is_a_line(settings, said):
    with pytest.raises(loading.ConfigError, match=said):
        loading.load(settings=settings)
