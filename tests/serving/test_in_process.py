"""An export asked in the process, and pages of it, beside a server that answers."""

from __future__ import annotations

import signal
import threading
import time

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
from grpc import StatusCode
from langzoo import cli
from langzoo.serving.client import Client
from langzoo.serving.errors import ServingError
from langzoo.serving.in_process import ExportedModel, saved_model_folder
from typer.testing import CliRunner

TEXTS = ["To be, or not", "", "to <b>be</b>", "that is", "the question"]


@pytest.fixture(scope="module")
def model(language_model):
    with ExportedModel(language_model, batch_size=2) as model:
        yield model


def test_answers_are_those_of_a_server(model, language_server):
    with Client(language_server.grpc_address) as client:
        for method, texts in (
            ("next_tokens", TEXTS[2:]),  # This model says none after no text.
            ("score", TEXTS),
            ("token_scores", TEXTS),
            ("generate", TEXTS),
        ):
            served = getattr(client, method)(texts)
            assert getattr(model, method)(texts) == served
    assert model.score([]) == []


def test_it_continues_as_it_is_told(model):
    new = model.generate(TEXTS, [1, 2, 3, 4, 5], temperature=0)
    # This model says what it was asked: tokens, temperature, top k, top p, seed.
    assert [said.text for said in new] == [
        f"{text}|{count}|0|0|1|0" for count, text in enumerate(TEXTS, 1)
    ]


def test_a_folder_of_versions_is_its_newest(language_model, push, tmp_path):
    for version in (2, 10):
        push(language_model, tmp_path, version)
    (tmp_path / "99.unfinished").mkdir()
    assert saved_model_folder(tmp_path) == str(tmp_path / "10")
    assert saved_model_folder(str(language_model)) == str(language_model)


def test_what_is_no_model_or_has_no_such_signature_is_named(scale_model, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ServingError, match=f"{folder} is no exported model"):
            ExportedModel(folder)
    with (
        ExportedModel(scale_model(2)) as model,
        pytest.raises(ServingError, match="has no signature score"),
    ):
        model.score(["x"])


def explain(*arguments):
    return CliRunner().invoke(cli.app, ["explain", *arguments])


def test_langzoo_explain_writes_the_same_page_of_a_server_and_of_a_folder(
    language_server, language_model, model, tmp_path
):
    pages = []
    for option, value in [
        ("--server", language_server.grpc_address),
        ("--model", str(language_model)),
    ]:
        output = tmp_path / f"{option}.html"
        ended = explain(*TEXTS, option, value, "--output", str(output))
        assert (ended.exit_code, ended.stderr) == (0, "")
        assert ended.stdout == f"wrote {output}\n"
        pages.append(output.read_text().replace(value, "langzoo"))
    assert pages[0] == pages[1]
    for scores in model.token_scores(TEXTS):
        bits = -np.sum(scores.log_probabilities) / np.log(2)
        assert f"{bits:.1f} bits over {len(scores.tokens)} tokens" in pages[0]


def test_langzoo_explain_says_in_a_line_what_is_wrong(language_model, tmp_path):
    no_model = explain("x", "--model", str(tmp_path), "--output", str(tmp_path / "a"))
    no_folder = explain(
        *("x", "--model", str(language_model), "--output", str(tmp_path / "no" / "a"))
    )
    for ended, said in [(no_model, "is no exported"), (no_folder, "cannot be written")]:
        assert ended.exit_code == 1
        assert ended.stderr.count("\n") == 1
        assert said in ended.stderr


def test_a_timeout_stops_the_graph(endless_model):
    with ExportedModel(endless_model) as model:
        start = time.monotonic()
        with pytest.raises(ServingError, match=r"within 0\.3 s") as caught:
            model.generate(["a"], temperature=1.5, timeout=0.3)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - start < 3
        assert model.generate(["a"], timeout=30)


@pytest.fixture
def interruptible():
    # A shell lets what it runs in the background ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_stops_the_graph(endless_model, interruptible):
    with ExportedModel(endless_model) as model:
        main = threading.main_thread().ident
        threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            model.generate(["a"], temperature=1.5, timeout=60)
        assert model.generate(["a"])
