"""Real text in, a gated and served model out, through the real runner."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from langzoo import cli
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen.records import Splitting
from langzoo.components.trainer import component as trainer
from langzoo.pipelines import pipeline
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.report.reading import Runs
from tensorflow.compat.v1.train import summary_iterator


def test_a_trained_model_is_blessed_and_pushed(first):
    config, result, shown = first
    assert result.decision.blessed
    assert result.decision.value < result.decision.bound
    assert result.pushed is not None
    assert (result.pushed / "saved_model.pb").is_file()
    assert result.pushed.parent == config.folder / "serving"
    assert "blessed" in str(result.decision)
    assert {"TextExampleGen", "Trainer", "Pusher"} <= set(result.executed)
    assert "Trainer" in shown
    assert re.search(r"eval: [\d,]+ tokens of \d\.\d+ bytes, 0\.00% unknown", shown)


def test_what_decides_the_split_travels_with_blessing_and_export(first):
    _, result, _ = first
    run = Runs(first[0].folder).read(Runs(first[0].folder).ids[0])
    splitting = Splitting.read(run.output("TextExampleGen", "examples"))
    assert splitting.buckets == {"train": 900, "eval": 100}
    for folder in (run.output("Evaluator", "blessing"), str(result.pushed)):
        assert Splitting.read(folder) == splitting


def test_the_evaluation_counts_the_whole_split(first):
    _, result, _ = first
    sums = result.decision.evaluation.models["candidate"].slices["overall"].sums
    assert sums["documents"] == result.ingestion.documents["eval"]
    assert sums["bytes"] == result.ingestion.bytes["eval"]


def test_a_second_run_does_no_work(first, run_pipeline):
    _, before, _ = first
    _, after, shown = run_pipeline()
    assert after.executed == []
    assert after.pushed == before.pushed
    assert after.decision == before.decision
    assert shown.count("cached") == len(before.executed)


def test_the_course_of_a_training_is_with_its_model(first):
    _, result, _ = first
    history = (result.training_folder / "history.csv").read_text().splitlines()
    assert len(history) == 1 + len(result.training.history)
    assert list(result.training_folder.glob("train/events.out.tfevents.*"))


def test_who_watches_otherwise_does_not_train_again(first, run_pipeline):
    _, after, _ = run_pipeline("watch={tensorboard: false, sample_prompt: Other}")
    assert after.executed == []


def test_a_lost_version_is_pushed_again_from_the_cache(first, tmp_path, run_pipeline):
    _, before, _ = first
    hidden = tmp_path / before.pushed.name
    before.pushed.rename(hidden)
    try:
        _, after, _ = run_pipeline()
        assert after.executed == ["Pusher"]
        assert (after.pushed / "saved_model.pb").is_file()
        shutil.rmtree(after.pushed)
    finally:
        hidden.rename(before.pushed)


def test_a_model_within_the_bound_but_not_better_by_the_margin_is_refused(
    first, resumed
):
    _, before, _ = first
    result, versions = resumed.result, resumed.versions
    assert result.decision.value < result.decision.bound
    assert result.decision.baseline == before.decision.value
    assert not result.decision.blessed
    assert str(result.decision).startswith("refused: ")
    assert "Trainer" in result.executed
    kept = {outcome.rule: outcome.passed for outcome in result.decision.verdict.rules}
    assert [rule for rule, passed in kept.items() if not passed] == [
        "bits_per_byte <= last_blessed - 5"
    ]
    assert list(kept)[-3:] == [
        "bits_per_byte <= ngram + 9",
        "latency_ms <= 10000",
        "memorization_rate <= 1",
    ]
    assert result.pushed is None
    assert versions == sorted((resumed.config.folder / "serving").iterdir())


def test_a_corpus_that_is_not_there_is_named(run_pipeline):
    with pytest.raises(InputError, match="no file matches the corpus '/absent/\\*'"):
        run_pipeline("corpus.path=/absent/*")


def test_a_push_folder_that_cannot_be_written_is_named(tmp_path, run_pipeline):
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(InputError, match=f"{target} cannot be written"):
        run_pipeline(f"serving.push_folder={target}")


def test_the_command_names_what_is_wrong_in_one_line(settings, run_command):
    changes = ["corpus.path=/absent"]
    command = run_command(*settings, *changes)
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == cli.EXIT_ERROR
    assert ended.stderr.count("\n") == 1
    assert "no file matches the corpus '/absent'" in ended.stderr


def test_a_killed_training_goes_on_from_its_last_checkpoint(resumed):
    shown, result = resumed.shown, resumed.result
    step = int(re.search(r"resumed from the checkpoint of step (\d+)", shown)[1])
    assert 0 < step < result.training.steps
    assert result.training.resumed_at == step
    left = resumed.config.folder.glob("checkpoints/*/ckpt-*.index")
    assert [path.name for path in left] == [f"ckpt-{result.training.steps}.index"]
    (log,) = result.training_folder.glob("train/events.out.tfevents.*")
    steps = [event.step for event in summary_iterator(str(log)) if event.step]
    assert steps == [row["step"] for row in result.training.history]
    assert steps == sorted(set(steps))


def test_changed_code_is_another_execution_to_the_cache(settings, monkeypatch):
    config = loading.load(settings=settings)
    choices = pipeline.Choices(
        corpus=config.corpus,
        checkpoint_root="checkpoints",
        ingestion_record="",
        watch={},
    )

    def told():
        components = pipeline.make_components(config, choices)
        return {component.id: component.exec_properties for component in components}

    before = told()
    monkeypatch.setattr(trainer, "source_hash", lambda *parts: "edited")
    after = told()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"Trainer"}
