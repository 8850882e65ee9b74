"""The report: what it tells is what MLMD and the artifacts hold, and it is one page."""

from __future__ import annotations

import html.parser
import json
import math
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from langzoo.components.evaluator.records import Evaluation, Measure, Slice, Verdict
from langzoo.pipelines.report import figures, page
from langzoo.pipelines.report.data import RunReport
from langzoo.pipelines.report.reading import Runs, run_folder

HOSTILE = "<script>alert('$x$ & \"y\"')</script>"
BARE = RunReport(pipeline="bare", run_id="1", started="2026-01-02T03:04:05", seconds=1)


class Page(html.parser.HTMLParser):
    """A page's elements, with their attributes, and its text."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(first):
    """The report of the first run, as its JSON tells it."""
    _, result, _ = first
    return RunReport.model_validate_json(result.report.with_suffix(".json").read_text())


def test_its_figures_are_those_of_the_run(first, report):
    _, result, _ = first
    assert {s.name: s.documents for s in report.corpus.splits} == (
        result.ingestion.documents
    )
    assert report.training.parameters == result.training.parameters
    assert report.training.history == result.training.history
    assert report.metrics["bits_per_byte"].value == result.decision.value
    assert report.verdict.blessed
    assert len(report.verdict.rules) == len(result.decision.verdict.rules)
    assert (report.outcome, report.serving.version) == ("pushed", result.pushed.name)
    assert report.size_mb > 0.01
    assert "family: lstm" in report.configuration
    assert report.versions["tensorflow"]


def test_it_is_read_again_as_it_was_written(first, report):
    config, _, _ = first
    runs = Runs(config.folder)
    assert runs.read(report.run_id) == report
    assert report.page == str(run_folder(config.folder, report.run_id) / "report.html")


def test_what_was_selected_on_stands_beside_what_it_is_judged_by(report):
    measures = {"bits_per_byte": Measure(value=7.125, low=7.0625, high=7.25)}
    selected_on = Slice(documents=9, metrics=measures)
    changes = {"split": "test", "selected_on": selected_on}
    evaluation = report.evaluation.model_copy(update=changes)
    verdict = report.verdict.model_copy(update={"accepted": True})
    told = {"evaluation": evaluation, "verdict": verdict}
    text = Page(page.run_page(report.model_copy(update=told))).text
    assert "documents of the split test" in text
    assert "this model on eval, selected on" in text
    assert "7.125" in text
    assert "accepted on purpose in the place of the last blessed one" in text
    assert "selected on" not in Page(page.run_page(report)).text


def test_its_lineage_leads_from_the_pushed_model_to_the_corpus(report):
    producers = {artifact.id: artifact.producer for artifact in report.artifacts}
    executions = {execution.id: execution for execution in report.executions}
    (pusher,) = (e for e in report.executions if e.node == "Pusher")
    ancestors, waiting = set(), [pusher]
    while waiting:
        execution = waiting.pop()
        ancestors.add(execution.node)
        for numbers in execution.inputs.values():
            waiting += [executions[producers[number]] for number in numbers]
    assert {"Evaluator", "Trainer", "Transform", "TextExampleGen"} <= ancestors


def test_what_came_from_the_cache_is_of_the_run_that_made_it(first, run_pipeline):
    config, before, _ = first
    # Where its version has been deleted since, this one pushes it again.
    _, between, _ = run_pipeline()
    _, after, _ = run_pipeline()
    runs = Runs(config.folder)
    earlier, pushed, cached = (
        RunReport.model_validate_json(result.report.with_suffix(".json").read_text())
        for result in (before, between, after)
    )
    assert cached.run_id == runs.ids[-1]
    assert {e.node for e in cached.executions if e.state != "CACHED"} == {
        "BaselineResolver"
    }
    made = {e.id for report in (earlier, pushed) for e in report.executions}
    assert {artifact.producer for artifact in cached.artifacts} <= made
    assert cached.metrics == earlier.metrics


def test_the_page_asks_for_nothing_and_runs_nothing(first):
    _, result, _ = first
    shown = Page(result.report.read_text())
    assert "svg" in {tag for tag, _ in shown.elements}
    for tag, attributes in shown.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "base")
        assert not {"src", "srcset", "data", "action"} & attributes.keys()
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
        style = attributes.get("style") or ""
        assert "url(" not in style.replace("url(#", "")


def test_ids_on_the_page_are_unique_and_links_lead_to_them(first):
    _, result, _ = first
    elements = Page(result.report.read_text()).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    links = {attributes["href"][1:] for tag, attributes in elements if tag == "a"}
    assert len(ids) == len(set(ids))
    assert links <= set(ids)


def test_text_of_the_corpus_stays_text(report):
    slices = {**report.evaluation.models["candidate"].slices}
    slices[f"source={HOSTILE}"] = slices["overall"]
    evaluation = {
        "models": {"candidate": {"slices": slices}},
        "samples": [{"prompt": HOSTILE, "text": HOSTILE}],
    }
    hostile = report.model_copy(
        update={
            "evaluation": Evaluation.model_validate(
                {**report.evaluation.model_dump(), **evaluation}
            ),
            "configuration": HOSTILE,
        }
    )
    shown = Page(page.run_page(hostile))
    assert "script" not in {tag for tag, _ in shown.elements}
    # A prompt, its continuation, the configuration, a row of the slices.
    assert shown.text.count(HOSTILE) == 4
    drawn = str(figures.slices(hostile.evaluation, "bits_per_byte"))
    assert "&lt;script&gt;" in drawn
    assert "<script" not in drawn


def test_what_is_missing_is_said_in_words():
    shown = Page(page.run_page(BARE))
    for words in (
        "The gate was not asked",
        "Nothing is recorded here",
        "No slices were measured",
        "The training left no figures",
        "The model has written nothing",
        "The ingestion left no figures",
        "The run's folder holds no configuration",
    ):
        assert words in shown.text


def test_a_run_of_before_there_was_an_evaluation_file_says_its_verdict(report):
    old = report.model_copy(update={"evaluation": None, "verdict": None})
    text = Page(page.run_page(old)).text
    assert "The candidate was blessed. By which rule is not recorded" in text
    assert "wrote no evaluation.json" in text


def test_an_evaluation_on_nothing_is_shown():
    verdict = {"rule": "there are documents", "value": "NaN", "passed": False}
    refused = BARE.model_copy(
        update={
            "blessed": False,
            "evaluation": Evaluation(documents=0),
            "verdict": Verdict.model_validate({"blessed": False, "rules": [verdict]}),
        }
    )
    text = Page(page.run_page(refused)).text
    assert "refused" in text
    assert "NaN" in text


def test_no_number_and_infinity_are_strings_in_its_json():
    metrics = {"a": Measure(value=math.nan), "b": Measure(value=math.inf)}
    slices = {"overall": {"documents": 1, "metrics": metrics}}
    evaluation = Evaluation.model_validate(
        {"documents": 1, "models": {"candidate": {"slices": slices}}}
    )
    text = BARE.model_copy(update={"evaluation": evaluation}).model_dump_json()

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(text, parse_constant=refuse)
    again = RunReport.model_validate_json(text).metrics
    assert math.isnan(again["a"].value)
    assert again["b"].value == math.inf


def test_the_pushed_version_carries_its_model_card(first):
    _, result, _ = first
    card = ModelCard.load(result.pushed / "assets.extra" / "README.md")
    measured = {found.metric_type: found for found in card.data.eval_results}
    assert measured["bits_per_byte"].metric_value == pytest.approx(
        result.decision.value, abs=1e-6
    )
    documents = result.ingestion.documents["train"]
    assert f"| train | {documents:,} |" in card.content
    assert f"{result.training.parameters:,} parameters" in card.content


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "langzoo", *arguments], capture_output=True, text=True
    )


def test_runs_are_listed_with_their_figures(first, settings, report):
    _, result, _ = first
    options = [f"--set={setting}" for setting in settings]
    lines = command("runs", "--json", *options).stdout.splitlines()
    rows = {row["run"]: row for row in map(json.loads, lines)}
    row = rows[report.run_id]
    assert row["metrics"]["bits_per_byte"]["value"] == result.decision.value
    assert (row["outcome"], row["version"]) == ("pushed", result.pushed.name)
    assert row["report"] == str(result.report)
    table = command("runs", *options).stdout
    assert report.started.replace(":", "-") in table
    assert "pushed" in table


def test_a_report_is_written_again(first, settings, report):
    _, result, _ = first
    before = result.report.read_text()
    result.report.unlink()
    options = [f"--set={setting}" for setting in settings]
    ended = command("report", "--run", report.run_id, *options)
    assert ended.stdout == f"{result.report}\n"
    assert Page(result.report.read_text()).text == Page(before).text


@pytest.mark.parametrize("arguments", [("runs",), ("report", "--run", "1999")])
def test_a_run_that_is_not_there_is_one_line(arguments, settings, tmp_path, first):
    options = [f"--set={setting}" for setting in settings]
    if arguments == ("runs",):
        options.append(f"--set=root={tmp_path}")
    ended = command(*arguments, *options)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "`langzoo run" in ended.stderr
