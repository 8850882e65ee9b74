"""Comparisons: the same data once, each model by itself, nothing pushed."""

from __future__ import annotations

import io
import shutil

import pytest
import unchecked
from langzoo.cli import judging
from langzoo.pipelines.configuration.loading import ConfigError
from langzoo.pipelines.configuration.loading import load as load_config
from langzoo.pipelines.local import comparison
from langzoo.pipelines.report import page
from langzoo.pipelines.report.data import ComparisonReport
from langzoo.pipelines.report.reading import Runs
from rich.console import Console

MASKED = "name: a\ntask: masked_lm\nmodel: {family: bert}"
SHARED = ("TextExampleGen", "StatisticsGen", "TokenizerTrainer", "Transform")


@pytest.fixture(scope="module")
def compared(first, settings):
    """A model that fails, the first run's and an n-gram model, through its pipeline."""
    diverging = ["trainer.learning_rate=1e30", "trainer.clip_norm=0"]
    models = {
        "diverging": diverging,
        "first": [],
        # The last to be blessed, and so what others would be measured against.
        "ngram": ["model={family: ngram, order: 3, context_length: 32}"],
    }
    plan = {
        name: load_config(settings=[*settings, *changes])
        for name, changes in models.items()
    }
    output = io.StringIO()
    with unchecked.pipelines():
        report = comparison.compare(plan, Console(file=output, width=200))
    shutil.rmtree(first[0].checkpoint_root)  # The failed one's are kept to go on from.
    written = comparison.write(report, first[0].folder)
    return plan, report, written, output.getvalue()


def names(report):
    return [candidate.name for candidate in report.candidates]


def test_models_are_ranked_by_bits_per_byte_and_the_failed_one_is_last(compared):
    _, report, _, _ = compared
    assert names(report)[-1] == "diverging"
    assert [candidate.rank for candidate in report.candidates] == [1, 2, None]
    best, second = (
        candidate.run.metrics["bits_per_byte"] for candidate in report.candidates[:2]
    )
    assert best.low < best.value < best.high
    assert best.value < second.value


def test_a_model_that_fails_says_why_and_stops_no_other(compared):
    _, report, _, shown = compared
    failed = report.candidates[-1]
    assert failed.run is None
    assert "loss" in failed.error
    assert f"diverging failed: {failed.error}" in shown


def test_the_run_of_a_model_that_failed_is_listed_as_such(first, compared):
    _, report, _, _ = compared
    runs = Runs(first[0].folder)
    ranked = [candidate.run.run_id for candidate in report.candidates[:2]]
    failed = runs.read(runs.ids[runs.ids.index(min(ranked)) - 1])
    assert (failed.outcome, failed.reasons) == ("failed", ["Trainer did not end"])
    assert failed.corpus.splits
    assert "The training left no figures" in page.run_page(failed)


def test_what_models_share_is_done_once(compared):
    _, report, _, _ = compared
    for candidate in report.candidates[:2]:
        states = {e.node: e.state for e in candidate.run.executions}
        assert {states[node] for node in SHARED} == {"CACHED"}
        assert states["ComparisonEvaluator"] == "COMPLETE"
        # The first run has trained its model already.
        expected = "CACHED" if candidate.name == "first" else "COMPLETE"
        assert states["Trainer"] == expected


def test_nothing_is_pushed(first, compared):
    config, before, _ = first
    _, report, _, _ = compared
    for candidate in report.candidates[:2]:
        assert candidate.run.compared
        assert candidate.run.serving is None
    versions = {path.name for path in (config.folder / "serving").iterdir()}
    assert before.pushed.name in versions
    assert not report.pushed


def test_a_blessing_in_a_comparison_is_none_to_beat(first, resumed, compared):
    _, before, _ = first
    _, report, _, _ = compared
    assert any(c.run.blessed and c.name == "ngram" for c in report.candidates[:2])
    after = resumed.again()
    assert after.decision.baseline == before.decision.value


def test_its_page_links_the_pages_of_the_runs_and_its_json_is_the_same(compared):
    _, report, written, _ = compared
    text = written.read_text()
    for candidate in report.candidates[:2]:
        link = f"../../runs/{candidate.run.run_id.replace(':', '-')}/report.html"
        assert f'href="{link}"' in text
        assert (written.parent / link).is_file()
    assert "Bits per byte against size" in text
    assert report.candidates[-1].error in text.replace("&#39;", "'")
    stored = written.with_suffix(".json").read_text()
    assert ComparisonReport.model_validate_json(stored) == report


def test_the_best_is_pushed_only_through_the_gate(first, compared):
    config, _, _ = first
    plan, report, _, _ = compared
    versions = sorted((config.folder / "serving").iterdir())
    strict = {
        name: config.model_copy(
            update={"gate": config.gate.model_copy(update={"max_bits_per_byte": 0.1})}
        )
        for name, config in plan.items()
    }
    console = Console(file=io.StringIO())
    after, result = comparison.push_best(strict, report, console)
    assert "Trainer" not in result.executed
    assert not result.decision.blessed
    assert not after.pushed
    assert sorted((config.folder / "serving").iterdir()) == versions


def test_the_ranking_is_printed(compared, capsys):
    _, report, _, _ = compared
    judging.print_ranking(report)
    shown = capsys.readouterr().out
    assert shown.index("1  ") < shown.index("2  ") < shown.index("-  diverging")
    assert f"diverging: {report.candidates[-1].error}" in shown


def test_presets_take_the_place_of_the_model(tmp_path):
    file = tmp_path / "base.yaml"
    file.write_text("name: base\nmodel: {family: lstm}\ntrainer: {steps: 7}\n")
    plan = comparison.planned(
        [file], ["tcn_tiny", "ngram_base"], ["model.context_length=64"]
    )
    assert [config.model.family for config in plan.values()] == ["tcn", "ngram"]
    assert {config.model.context_length for config in plan.values()} == {64}
    assert {config.trainer.steps for config in plan.values()} == {7}


def test_the_first_configuration_gives_the_pipeline_and_the_gate(tmp_path):
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "same.yaml")
        files[-1].write_text(
            f"name: {name}\nroot: {tmp_path}\nmodel: {{family: gru}}\n"
            f"gate: {{max_bits_per_byte: {len(files)}.5}}\n"
            f"serving: {{push_folder: /pushed/{name}}}\n"
        )
    plan = comparison.planned(files)
    assert list(plan) == [str(file) for file in files]
    for config in plan.values():
        assert config.folder == tmp_path / "a"
        assert config.gate.max_bits_per_byte == 1.5
        assert config.push_folder == "/pushed/a"


@pytest.mark.parametrize(
    ("second", "presets", "said"),
    [
        (
            "name: b\nmodel: {family: gru}\ncorpus: {path: b.txt}",
            [],
            r"\(corpus.path b.txt instead of ",
        ),
        ("name: b\nmodel: {family: gruu}", [], "'gruu' is not known"),
        ("name: b\nmodel: {family: gru}", ["gru_tiny"], "give one, not 2"),
        (
            f"{MASKED}\ntokenizer: {{vocabulary_size: 600}}",
            [],
            r"\(tokenizer.vocabulary_size 600 instead of ",
        ),
        (None, [], "two models or more"),
        (None, ["gru_tiny", "gru_tinny"], "did you mean gru_tiny"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(
    tmp_path, second, presets, said
):
    files = [tmp_path / "a.yaml"]
    masked = second and second.startswith(MASKED)
    files[0].write_text(MASKED if masked else "name: a\nmodel: {family: lstm}\n")
    if second:
        files.append(tmp_path / "b.yaml")
        files[1].write_text(second)
    with pytest.raises(ConfigError, match=said):
        comparison.planned(files, presets)
