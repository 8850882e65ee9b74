"""Real text in, a gated and served model out, through the real runner."""

from __future__ import annotations

import io
import pydoc_data.topics
import re
import subprocess
import sys
import time

import pytest
from langzoo import cli
from langzoo.components.errors import InputError
from langzoo.components.trainer import component as trainer
from langzoo.pipelines import config as pipeline_config
from langzoo.pipelines import local
from langzoo.serving.client import Client
from langzoo.serving.process import running_server
from rich.console import Console

# Far from a good model, yet out of reach of one whose predictions are uniform.
BOUND = 4.2


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A small corpus of real text and a tiny model."""
    root = tmp_path_factory.mktemp("pipeline")
    corpus = root / "texts"
    corpus.mkdir()
    for name, text in sorted(pydoc_data.topics.topics.items())[:40]:
        (corpus / f"{name}.txt").write_text(text, encoding="utf-8")
    return [
        f"root={root}",
        f"corpus.path={corpus}",
        "corpus.documents=paragraph",
        "tokenizer.vocabulary_size=512",
        "model.context_length=32",
        "model.num_layers=1",
        "model.num_heads=2",
        "model.hidden_dim=32",
        "trainer.batch_size=16",
        "trainer.steps=150",
        "trainer.learning_rate=1e-2",
        "trainer.warmup_steps=10",
        f"gate.max_bits_per_byte={BOUND}",
    ]


def run(settings, *changes):
    config = pipeline_config.load(settings=[*settings, *changes])
    output = io.StringIO()
    result = local.run(config, Console(file=output, width=200))
    return config, result, output.getvalue()


@pytest.fixture(scope="module")
def first(settings):
    return run(settings)


def test_a_trained_model_is_blessed_and_pushed(first):
    config, result, shown = first
    assert result.decision.blessed
    assert result.decision.bits_per_byte < BOUND
    assert result.pushed is not None
    assert (result.pushed / "saved_model.pb").is_file()
    assert result.pushed.parent == config.folder / "serving"
    assert "blessed" in str(result.decision)
    assert {"TextExampleGen", "Trainer", "Pusher"} <= set(result.executed)
    assert "Trainer" in shown


def test_the_evaluation_counts_the_whole_split(first):
    _, result, _ = first
    metrics = result.decision.metrics
    assert metrics["documents"] == result.ingestion.documents["eval"]
    assert metrics["bytes"] == result.ingestion.bytes["eval"]


def test_the_pushed_model_is_served(first):
    _, result, _ = first
    with (
        running_server(str(result.pushed.parent)) as address,
        Client(address) as client,
    ):
        client.wait_until_ready(timeout=60)
        (score,) = client.score(["The yield statement"])
        (generation,) = client.generate(["The "], max_new_tokens=5)
    assert score.bits_per_byte > 0
    assert score.bytes == len("The yield statement")
    assert generation.new_tokens <= 5


def test_a_second_run_does_no_work(first, settings):
    _, before, _ = first
    _, after, shown = run(settings)
    assert after.executed == []
    assert after.pushed == before.pushed
    assert after.decision == before.decision
    assert shown.count("cached") == len(before.executed)


def test_a_lost_version_is_pushed_again_from_the_cache(first, settings, tmp_path):
    _, before, _ = first
    hidden = tmp_path / before.pushed.name
    before.pushed.rename(hidden)
    try:
        _, after, _ = run(settings)
        assert after.executed == ["Pusher"]
        assert (after.pushed / "saved_model.pb").is_file()
    finally:
        hidden.rename(before.pushed)


def test_an_untrained_model_is_refused_and_the_push_folder_is_as_it_was(
    first, settings
):
    config, before, _ = first
    versions = sorted((config.folder / "serving").iterdir())
    _, result, _ = run(settings, "trainer.steps=0")
    assert not result.decision.blessed
    assert str(result.decision).startswith("refused: ")
    assert result.decision.bits_per_byte > BOUND
    assert result.decision.baseline == before.decision.bits_per_byte
    assert result.pushed is None
    assert sorted((config.folder / "serving").iterdir()) == versions


def test_a_model_within_the_bound_but_not_better_by_the_margin_is_refused(
    first, settings
):
    _, before, _ = first
    _, result, _ = run(settings, "trainer.seed=1", "gate.min_improvement=0.5")
    assert result.decision.bits_per_byte < BOUND
    assert result.decision.baseline == before.decision.bits_per_byte
    assert not result.decision.blessed


def test_a_corpus_that_is_not_there_is_named(settings):
    with pytest.raises(InputError, match="no file matches the corpus '/absent/\\*'"):
        run(settings, "corpus.path=/absent/*")


def test_a_push_folder_that_cannot_be_written_is_named(settings, tmp_path):
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(InputError, match=f"{target} cannot be written"):
        run(settings, f"serving.push_folder={target}")


def command(settings, *changes):
    """The command line of a run."""
    arguments = [f"--set={setting}" for setting in [*settings, *changes]]
    return [sys.executable, "-m", "langzoo", "run", *arguments]


def test_the_command_ends_a_refused_run_with_its_own_status(first, settings):
    changes = ["gate.max_bits_per_byte=0.5"]
    ended = subprocess.run(command(settings, *changes), capture_output=True, text=True)
    assert ended.returncode == cli.EXIT_REFUSED
    assert re.search(r"refused: \d\.\d+ bits per byte, bound 0.500", ended.stdout)
    assert ended.stderr == ""


def test_the_command_names_what_is_wrong_in_one_line(first, settings):
    changes = ["corpus.path=/absent"]
    ended = subprocess.run(command(settings, *changes), capture_output=True, text=True)
    assert ended.returncode == cli.EXIT_ERROR
    assert ended.stderr.count("\n") == 1
    assert "no file matches the corpus '/absent'" in ended.stderr


def test_a_killed_training_goes_on_from_its_last_checkpoint(first, settings):
    config, _, _ = first
    changes = ["trainer.steps=4000", "trainer.checkpoint_seconds=0.5"]
    checkpoints = config.folder / "checkpoints"
    process = subprocess.Popen(
        command(settings, *changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(checkpoints.glob("*/checkpoint")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    _, result, shown = run(settings, *changes)
    step = int(re.search(r"resumed from the checkpoint of step (\d+)", shown)[1])
    assert 0 < step < 4000
    assert result.training.resumed_at == step
    assert result.decision.blessed
    assert not list(checkpoints.iterdir())


def test_changed_code_is_not_served_from_the_cache(first, settings, monkeypatch):
    _, before, _ = first
    monkeypatch.setattr(trainer, "source_hash", lambda *parts: "edited")
    _, after, _ = run(settings)
    assert "Trainer" in after.executed
    assert "Transform" not in after.executed
    assert after.training.eval_loss == pytest.approx(before.training.eval_loss)
