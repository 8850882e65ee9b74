"""ServingValidator refuses what the model does; what the machine does is an error."""

from __future__ import annotations

import functools
import signal
import subprocess

import grpc
import pytest
from langzoo.components.errors import InputError
from langzoo.components.serving_validator import executor
from langzoo.components.serving_validator.records import read_refusal
from langzoo.serving.errors import ServingError
from langzoo.serving.server import process
from langzoo.serving.server.process import ServerError, UnservableError, running_server
from tfx.types import standard_artifacts


@pytest.fixture
def validate(tmp_path):
    """Validates a model that is none; returns its blessing's folder."""
    (tmp_path / "model" / "Format-Serving").mkdir(parents=True)
    (tmp_path / "model" / "Format-Serving" / "saved_model.pb").write_bytes(b"no graph")
    model, blessed = standard_artifacts.Model(), standard_artifacts.ModelBlessing()
    examples, blessing = (
        standard_artifacts.Examples(),
        standard_artifacts.InfraBlessing(),
    )
    model.uri, blessing.uri = str(tmp_path / "model"), str(tmp_path / "blessing")
    blessed.set_int_custom_property("blessed", 1)
    examples.uri, examples.split_names = str(tmp_path / "examples"), '["eval"]'

    def validate(temporary=tmp_path / "temporary"):
        inputs = {"model": [model], "model_blessing": [blessed], "examples": [examples]}
        context = executor.Executor.Context(tmp_dir=str(temporary), unique_id="1")
        outputs = {"blessing": [blessing]}
        executor.Executor(context).Do(inputs, outputs, {})
        return blessing.uri

    return validate


def test_a_model_that_cannot_be_loaded_is_refused(validate):
    assert "failed to load" in read_refusal(validate())


def test_a_slow_start_is_an_error(validate, monkeypatch):
    slow = functools.partial(running_server, timeout=0.2)
    monkeypatch.setattr(executor, "running_server", slow)
    with pytest.raises(InputError, match=r"tries again: .* not ready after"):
        validate()


def test_a_disk_that_takes_nothing_is_an_error(validate, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="tries again"):
        validate(tmp_path / "file")


@pytest.mark.parametrize(
    ("status", "output", "kind"),
    [
        (-signal.SIGSEGV, "", UnservableError),
        (-signal.SIGABRT, "F0000 check failed", UnservableError),
        (-signal.SIGABRT, "what():  std::bad_alloc", ServerError),
        (-signal.SIGKILL, "", ServerError),
        (1, "langzoo: no port is free", ServerError),
    ],
)
def test_a_server_that_ends_tells_by_how(status, output, kind):
    ended = subprocess.Popen(["true"])
    ended.wait()
    ended.returncode = status
    assert type(process._death(ended, output)) is kind


def test_a_model_that_takes_the_server_down_is_refused(monkeypatch, tmp_path):
    ended = subprocess.Popen(["sh", "-c", "kill -SEGV $$"])
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_, **__: ended)
    monkeypatch.setattr(process, "_wait_for_address", lambda *_: "127.0.0.1:1")
    with (
        pytest.raises(UnservableError, match="ended with status -11"),
        running_server(str(tmp_path)),
    ):
        raise ServingError(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ServingError(grpc.StatusCode.INTERNAL, "op failed"), True),
        (ServingError(grpc.StatusCode.FAILED_PRECONDITION, "no signature"), True),
        (ValueError("score answered nan"), True),
        (ServingError(grpc.StatusCode.UNAVAILABLE, "away"), False),
        (ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer"), False),
        (ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OOM"), False),
    ],
)
def test_only_answers_of_the_models_speak_against_it(monkeypatch, error, refused):
    def check(client, documents):
        raise error

    monkeypatch.setattr(executor, "check_answers", check)
    if refused:
        assert executor.wrong_answer(None, []) == str(error)
    else:
        with pytest.raises(ServingError):
            executor.wrong_answer(None, [])
