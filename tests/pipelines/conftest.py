"""A small pipeline, run once for all tests of a session that need one."""

from __future__ import annotations

import dataclasses
import io
import json
import pydoc_data.topics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from langzoo.pipelines import config as pipeline_config
from langzoo.pipelines import local
from rich.console import Console

# Far from a good model, yet out of reach of one whose predictions are uniform.
BOUND = 4.2


@pytest.fixture(scope="session")
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
        "model.hidden_dim=32",
        "trainer.batch_size=16",
        "trainer.steps=150",
        "trainer.learning_rate=1e-2",
        "trainer.warmup_steps=10",
        f"gate.max_bits_per_byte={BOUND}",
    ]


@pytest.fixture(scope="session")
def run_pipeline(settings):
    """Runs it with changed settings; gives configuration, result and what was shown."""

    def run(*changes):
        config = pipeline_config.load(settings=[*settings, *changes])
        output = io.StringIO()
        result = local.run(config, Console(file=output, width=200))
        return config, result, output.getvalue()

    return run


@pytest.fixture(scope="session")
def first(run_pipeline):
    """The first run, which trains, blesses and pushes a model."""
    return run_pipeline()


@pytest.fixture(scope="session")
def run_command():
    """Gives the command line of a run with settings."""

    def command(*settings):
        arguments = [f"--set={setting}" for setting in settings]
        return [sys.executable, "-m", "langzoo", "run", *arguments]

    return command


@dataclasses.dataclass(frozen=True)
class Resumed:
    """A run whose training was killed before, in another process.

    Attributes:
        config: Its configuration.
        result: What it did.
        shown: What it showed.
        versions: Those that were pushed before.
        again: Runs it again, and returns the result.
    """

    config: pipeline_config.Config
    result: local.RunResult
    shown: str
    versions: list[Path]
    again: Callable[[], local.RunResult]


@pytest.fixture(scope="session")
def resumed(first, settings, run_pipeline, run_command):
    """The second run: its model keeps all rules but that of the margin."""
    rules = [
        {"metric": "bits_per_byte", "against": "ngram", "margin": -9.0},
        {"metric": "latency_ms", "max": 1e4},
        {"metric": "memorization_rate", "max": 1.0},
    ]
    changes = [
        "trainer.steps=1500",
        "trainer.checkpoint_seconds=0.3",
        "gate.min_improvement=5.0",
        f"gate.rules={json.dumps(rules)}",
    ]
    folder = first[0].folder
    versions = sorted((folder / "serving").iterdir())
    kept = set(folder.glob("checkpoints/*/checkpoint"))
    process = subprocess.Popen(
        run_command(*settings, *changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while kept == set(folder.glob("checkpoints/*/checkpoint")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    config, result, shown = run_pipeline(*changes)
    return Resumed(config, result, shown, versions, lambda: run_pipeline(*changes)[1])
