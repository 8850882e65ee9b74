"""Start and end of the server: ports, signals and what it prints."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from langzoo.serving.client import Client
from langzoo.serving.server import ModelServer, PortInUseError, ServerStartError
from langzoo.serving.server.command import main

Push = Callable[[Path, Path, int], None]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    "ports", [("grpc_port", "rest_port"), ("rest_port", "grpc_port")]
)
def test_a_port_in_use_is_named(
    tmp_path: Path, taken_port: int, ports: tuple[str, str], host: str
) -> None:
    taken, free = ports
    server = ModelServer("m", tmp_path, host=host, **{taken: taken_port, free: 0})
    with pytest.raises(PortInUseError, match=f"port {taken_port} on {host} is in use"):
        server.start()


def test_two_servers_do_not_share_a_port(scale_server: ModelServer) -> None:
    second = ModelServer(
        "m", "nowhere", host="127.0.0.1", grpc_port=scale_server.grpc_port
    )
    with pytest.raises(PortInUseError):
        second.start()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_refused(tmp_path: Path, port: int) -> None:
    server = ModelServer("m", tmp_path, grpc_port=port, rest_port=None)
    with pytest.raises(ServerStartError, match=f"there is no port {port}"):
        server.start()


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    server = ModelServer("m", tmp_path, host="192.0.2.1", grpc_port=0, rest_port=None)
    with pytest.raises(ServerStartError, match="cannot listen on 192"):
        server.start()


def test_the_ports_are_free_again_after_a_stop(
    tmp_path: Path, language_model: Path, push: Push
) -> None:
    push(language_model, tmp_path, 1)
    server = ModelServer("m", tmp_path, host="127.0.0.1", grpc_port=0, rest_port=0)
    with server, Client(server.grpc_address, "m") as client:
        assert server.wait_ready(60)
        assert client.score(["a"])
    again = ModelServer(
        "m",
        tmp_path,
        host="127.0.0.1",
        grpc_port=server.grpc_port,
        rest_port=server.rest_port,
    )
    with again:
        assert again.wait_ready(60)


def test_a_request_in_progress_is_answered_before_the_stop(
    tmp_path: Path, language_model: Path, push: Push
) -> None:
    push(language_model, tmp_path, 1)
    server = ModelServer("m", tmp_path, host="127.0.0.1", grpc_port=0, rest_port=None)
    server.start()
    assert server.wait_ready(60)
    answers: list[int] = []

    def ask() -> None:
        with Client(server.grpc_address, "m") as client:
            answers.append(client.score(["a b " * 500_000])[0].words)

    thread = threading.Thread(target=ask)
    thread.start()
    while not answers and not _in_use(server):
        time.sleep(0.001)
    server.stop(grace_seconds=30)
    thread.join()
    assert answers == [1_000_000]


def _in_use(server: ModelServer) -> bool:
    repository = server._models.get("m")
    assert repository is not None
    return any(entry.users for entry in repository._available.values())


def test_what_it_says_without_a_version(tmp_path: Path) -> None:
    lines: list[str] = []
    server = ModelServer(
        "m",
        tmp_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=None,
        announce=lines.append,
    )
    with server:
        assert not server.wait_ready(0.2)
    assert lines == [
        f"langzoo: no version of model m in {tmp_path} yet, waiting for one"
    ]


def test_the_command_names_a_port_in_use(
    tmp_path: Path, taken_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    status = main([f"--port={taken_port}", f"--model_base_path={tmp_path}"])
    assert status == 1
    expected = f"langzoo: port {taken_port} on 127.0.0.1 is in use\n"
    assert capsys.readouterr().err == expected
    assert (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
    ) == handlers


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model_base_path=x", "--port=eighty"],
        ["--model_base_path=x", "--file_system_poll_wait_seconds=-1"],
        ["--model_base_path=x", "--grpc_max_threads=0"],
        ["--model_base_path=x", "--unknown"],
    ],
)
def test_the_command_refuses_bad_arguments(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def printed_lines(process: subprocess.Popen[str]) -> queue.SimpleQueue[str]:
    """The lines of a process as it prints them."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line.rstrip("\n"))

    threading.Thread(target=read).start()
    return lines


def test_the_process_serves_and_ends_on_sigterm(
    tmp_path: Path, language_model: Path, push: Push
) -> None:
    push(language_model, tmp_path, 3)
    command = [
        *(sys.executable, "-m", "langzoo.serving.server", "--host", "127.0.0.1"),
        *("--port", "0", "--rest_api_port=0", "--model_name=langzoo"),
        *("--model_base_path", str(tmp_path), "--file_system_poll_wait_seconds=0.05"),
        f"--parent_pid={os.getpid()}",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = printed_lines(process)
            assert lines.get(timeout=90) == "langzoo: version 3 is available"
            serving = lines.get(timeout=10)
            match = re.fullmatch(
                rf"langzoo: serving model langzoo from {re.escape(str(tmp_path))}: "
                r"gRPC on (127\.0\.0\.1:\d+), REST on 127\.0\.0\.1:\d+",
                serving,
            )
            assert match, serving
            with Client(match[1]) as client:
                assert client.score(["a b"])[0].words == 2
            push(language_model, tmp_path, 4)
            assert lines.get(timeout=60) == "langzoo: version 4 is available"
            assert lines.get(timeout=60) == "langzoo: version 3 is unloaded"
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
        finally:
            process.kill()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0
