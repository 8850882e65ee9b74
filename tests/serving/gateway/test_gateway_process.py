"""`langzoo gateway` as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import langzoo
import openai
import pytest
from langzoo.serving.server import ModelServer

PARENT = Path(langzoo.__file__).parent.parent


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "langzoo", "gateway", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PARENT,
        env={**os.environ, "LANGZOO_API_KEY": "secret"},
    )


@pytest.fixture
def process(gateway_server: ModelServer) -> Iterator[subprocess.Popen[str]]:
    process = start(
        f"--server={gateway_server.grpc_address}", "--model=mine=bytes", "--port=0"
    )
    yield process
    process.kill()
    process.communicate()


def test_it_serves_and_drains(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(
        r"langzoo: gateway to mine of \S+: (http://\S+/v1), .*\n", line
    )
    assert match, line
    with openai.OpenAI(base_url=match[1], api_key="secret") as api:
        assert [model.id for model in api.models.list()] == ["mine"]
        parts = api.completions.create(
            model="mine", prompt=["a"] * 16, max_tokens=40, temperature=2, stream=True
        )
        first = next(iter(parts))
        process.send_signal(signal.SIGTERM)
        reasons = [
            choice.finish_reason for part in [first, *parts] for choice in part.choices
        ]
    assert sum(reason is not None for reason in reasons) == 16
    assert process.wait(20) == 0
    assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-ca=/nowhere.pem"], "cannot read /nowhere.pem"),
        (["--tls-key=/nowhere.pem"], "give private_key and certificate_chain"),
        (["--timeout=0"], "timeout must be above 0"),
        (["--host=203.0.113.1"], "cannot listen on 203.0.113.1:8000"),
    ],
)
def test_what_it_cannot_do_is_said_in_a_line(
    arguments: list[str], message: str
) -> None:
    process = start(*arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in output
    assert len(output.splitlines()) == 1


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(f"--port={port}")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == (
        f"langzoo: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )
