"""Ctrl-C at a moment that is told by what is said; ingestion of a corpus."""

from __future__ import annotations

import contextlib
import logging

import pytest
from quick_beam import quick_beam  # noqa: F401


class Listener(logging.Handler):
    """Keeps what is said, and presses Ctrl-C at some words, as a person would."""

    def __init__(self, words):
        super().__init__()
        self._words = words
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())
        if self._words and self._words in self.said[-1]:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def listening():
    """Gives what is said within a `with` statement, up to some words."""

    @contextlib.contextmanager
    def until(words=None):
        listener, logger = Listener(words), logging.getLogger("langzoo")
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(listener)
        try:
            yield listener.said
        finally:
            logger.removeHandler(listener)
            logger.setLevel(level)

    return until


@pytest.fixture(scope="session")
def interrupted(listening):
    """Interrupts what runs in a `with` statement when some words are said."""

    @contextlib.contextmanager
    def at(words):
        with pytest.raises(KeyboardInterrupt), listening(words):
            yield

    return at


@pytest.fixture
def run_example_gen(tmp_path, monkeypatch):
    """Runs TextExampleGen's executor on sources; returns the artifact.

    Where it is not asked to, it does not look for documents of a split in another.
    """
    from langzoo.components.text_example_gen import contamination, executor
    from langzoo.components.text_example_gen.component import TextExampleGen
    from langzoo.components.text_example_gen.settings import CorpusSettings
    from langzoo.pipelines.configuration.beam import LOCALLY
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    def run(sources, name="examples", *, measured=False, **options):
        others = {
            key: options.pop(key) for key in ("cleaning", "record") if key in options
        }
        corpus = CorpusSettings(sources=sources, **options)
        component = TextExampleGen(corpus, **others)
        properties = {
            key: proto_utils.proto_to_json(value)
            if hasattr(value, "SerializeToString")
            else value
            for key, value in component.exec_properties.items()
        }
        examples = standard_artifacts.Examples()
        examples.uri = str(tmp_path / name)
        context = executor.Executor.Context(
            beam_pipeline_args=LOCALLY,
            tmp_dir=str(tmp_path / f"{name}-scratch"),
            unique_id="1",
        )
        with monkeypatch.context() as patch:
            if not measured:
                nothing = contamination.Measured({}, {})
                patch.setattr(contamination, "measure", lambda *told: nothing)
            executor.Executor(context).Do({}, {"examples": [examples]}, properties)
        return examples

    return run
