"""The command line: help, one-line errors, statuses."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys

import langzoo
import pytest
import typer
from langzoo import cli
from langzoo.cli import common, hosting
from langzoo.components.errors import InputError
from langzoo.models.families.presets import PRESETS
from typer.testing import CliRunner


def langzoo_command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "langzoo", *arguments],
        capture_output=True,
        text=True,
        timeout=600,  # where others compute: importing TFX takes a while by itself
        **options,
    )


def assert_one_line_error(ended, said):
    assert ended.returncode == cli.EXIT_ERROR
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr


def test_version():
    ended = langzoo_command("--version")
    assert ended.stdout == f"langzoo {langzoo.__version__}\n"
    assert ended.returncode == 0


@pytest.mark.parametrize("module", ["langzoo", "langzoo.serving.server"])
def test_modules_of_the_working_directory_are_not_taken_for_others(module, tmp_path):
    for name in ("argparse", "dataclasses", "queue", "shlex", "typer", "typing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken')")
    command = [sys.executable, "-m", module, "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_a_command_starts_does_not_take_them_either(monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setattr(sys, "argv", ["langzoo", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "compare",
        "runs",
        "report",
        "demo",
        "worker",
        "serve",
        "gateway",
        "generate",
        "score",
        "next",
        "explain",
        "compile",
        "rehearse",
        "versions",
        "rollback",
        "gate",
        "models",
    ],
)
def test_every_command_is_listed_and_has_help(command):
    assert command in CliRunner().invoke(cli.app, ["--help"]).stdout
    assert CliRunner().invoke(cli.app, [command, "--help"]).exit_code == 0


def test_models_lists_every_preset():
    table = langzoo_command("models").stdout
    lines = langzoo_command("models", "--json").stdout.splitlines()
    rows = {row["preset"]: row for row in map(json.loads, lines)}
    assert list(rows) == list(PRESETS)
    assert all(f"{name} " in table for name in PRESETS)
    assert rows["gpt2_base"]["parameters"] == 124_439_808
    assert "124.4 M" in table


def test_a_wrong_configuration_is_one_line():
    assert_one_line_error(
        langzoo_command("run", "--set", "trainer.stepz=3"),
        "unknown key trainer.stepz: did you mean steps?",
    )


def test_a_root_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line_error(
        langzoo_command("run", "--set", f"root={tmp_path}/file"),
        "set root to a folder that can be written",
    )


def test_ctrl_c_says_the_command_that_goes_on(monkeypatch, capsys):
    command = ["run", "my.yaml", "--set", "model={family: lstm}"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/langzoo", *command])
    with pytest.raises(typer.Exit) as ended, common.reported_errors():
        raise KeyboardInterrupt
    assert ended.value.exit_code == cli.EXIT_INTERRUPTED
    said = capsys.readouterr().err
    assert said.startswith("interrupted")
    assert shlex.split(said.partition("to go on: ")[2]) == ["langzoo", *command]


def test_a_worker_without_a_cluster_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    result = langzoo_command("worker", "--set", f"root={tmp_path}")
    assert_one_line_error(result, "TF_CONFIG must name this process")


@pytest.mark.parametrize("command", ["generate", "score", "next"])
def test_a_server_that_is_not_there_is_one_line(command):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert_one_line_error(
            langzoo_command(command, "Text", "--server", address), address
        )


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = langzoo_command(
            *("serve", "--model-base-path", str(tmp_path), "--port", str(port))
        )
    assert_one_line_error(ended, f"port {port}")


def test_an_unknown_engine_is_one_line():
    assert_one_line_error(langzoo_command("serve", "--engine", "triton"), "triton")


def test_a_missing_binary_is_one_line(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    assert_one_line_error(
        langzoo_command(
            "serve", "--engine", "tensorflow_model_server", env=environment
        ),
        "no tensorflow_model_server on PATH",
    )


def test_an_object_store_is_not_served_and_said_so():
    ended = langzoo_command("serve", "--model-base-path", "s3://bucket/models")
    assert_one_line_error(ended, "s3://bucket/models is no folder of this machine")


@pytest.mark.parametrize("base_path", ["/models", "gs://bucket/models"])
def test_the_stock_binary_is_started_with_its_own_flags(tmp_path, base_path):
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    binary.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = langzoo_command(
        *("serve", "--engine", "tensorflow_model_server", "--port", "9000"),
        *("--model-base-path", base_path),
        *("--flag", "enable_batching", "--flag", "--grpc_max_threads=3"),
        env=environment,
    )
    assert ended.stdout.splitlines() == [
        "--port=9000",
        "--rest_api_port=8501",
        "--model_name=langzoo",
        f"--model_base_path={base_path}",
        "--file_system_poll_wait_seconds=1",
        "--enable_batching",
        "--grpc_max_threads=3",
    ]


@pytest.mark.parametrize(
    ("words", "given", "left_out"),
    [
        ([], ["--rest_api_port=8501"], ["--host"]),
        (["--no-rest"], [], ["--rest_api_port", "--host"]),
        (["--host", "0.0.0.0"], ["--host=0.0.0.0", "--rest_api_port=8501"], []),
    ],
)
def test_the_server_is_told_where_to_listen(monkeypatch, words, given, left_out):
    commands = []
    monkeypatch.setattr(os, "execv", lambda path, command: commands.append(command))
    ended = CliRunner().invoke(
        cli.app, ["serve", "--model-base-path", "/models", *words]
    )
    assert ended.exit_code == 0
    ((_, *flags),) = commands
    assert flags[:3] == ["-P", "-m", "langzoo.serving.server"]
    assert set(given) <= set(flags)
    assert not set(left_out) & {flag.partition("=")[0] for flag in flags}


def test_the_stock_binary_is_not_told_where_to_listen(tmp_path):
    (tmp_path / "tensorflow_model_server").touch(0o755)
    ended = langzoo_command(
        *("serve", "--engine", "tensorflow_model_server", "--host", "127.0.0.1"),
        *("--model-base-path", "/models"),
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert_one_line_error(ended, "--host")


@pytest.mark.parametrize(
    ("corpus", "settings", "name"),
    [
        ("texts/*.txt", [], "texts-txt"),
        ("texts/*.md", [], "texts-md"),
        ("2024", [], "2024"),
        ("demo", [], "demo"),
        ("./demo", [], "demo-ec048c1d"),
        ("../texts", [], "texts-8861fa93"),
        ("texts", ["name=mine"], "mine"),
        (None, [], "demo"),
    ],
)
def test_a_corpus_gives_the_pipeline_a_name_of_its_own(corpus, settings, name):
    assert common.load_config(None, corpus, settings=settings).name == name


def test_a_configuration_keeps_its_name_whatever_the_corpus(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("name: mine\nmodel: {family: gru}\n")
    assert common.load_config(path, "texts").name == "mine"


@pytest.fixture
def keys(monkeypatch, tmp_path):
    """What the gateway takes for keys, given the variable and the file's text."""

    def read(variable=None, given=(), text=None):
        monkeypatch.delenv("LANGZOO_API_KEY", raising=False)
        if variable is not None:
            monkeypatch.setenv("LANGZOO_API_KEY", variable)
        file = tmp_path / "keys" if text is not None else None
        if file is not None:
            file.write_text(text)
        return hosting._api_keys(list(given), file)

    return read


def test_the_keys_of_a_gateway(keys):
    assert keys() == []
    assert keys("one") == ["one"]
    assert keys("unused", ["two"], "three\n\nfour \n") == ["two", "three", "four"]


@pytest.mark.parametrize(
    "given",
    [("",), (" ",), ("hid den",), (None, [""]), (None, [], ""), (None, [], "hid den")],
    ids=str,
)
def test_a_key_that_is_none_is_refused(keys, given, capsys):
    with pytest.raises(typer.Exit):
        keys(*given)
    said = capsys.readouterr().err
    assert "a key is of printable ASCII without white space" in said
    assert "hid" not in said


ACTS = "\x1b[31mred\n\udce9"


def test_a_text_goes_into_a_pipe_byte_by_byte(capfdbinary):
    common.print_text(ACTS)
    assert capfdbinary.readouterr().out == b"\x1b[31mred\n\xe9\n"


def test_a_text_does_nothing_to_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    common.print_text(ACTS)
    assert capsys.readouterr().out == "\\x1b[31mred\n\\xe9\n"


def test_an_error_does_nothing_to_a_terminal(capsys):
    with pytest.raises(typer.Exit), common.reported_errors():
        raise InputError(f"no such file {ACTS}")
    assert capsys.readouterr().err == ("langzoo: no such file \\x1b[31mred\\n\\xe9\n")
