"""A small pipeline, run once for all tests of a session that need one."""

from __future__ import annotations

import io
import pydoc_data.topics

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
