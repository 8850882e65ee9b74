"""When the server opens its ports, and what ends it: signals, parents, bad models."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.app import Opening
from langzoo.serving.server.batching import BatchingParameters
from langzoo.serving.server.command import _openness, _Printer, main
from langzoo.serving.server.flags import build_parser
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

Push = Callable[[Path, Path, int], None]
COMMAND = (sys.executable, "-m", "langzoo.serving.server", "--port=0")
FOREVER = 1 << 60  # turns of a loop


def await_line(process: subprocess.Popen[str], words: str) -> str:
    """The first line with these words that a process prints."""
    for line in process.stdout or ():
        if words in line:
            return line
    raise AssertionError(f"the process ended without a word of {words}")


def spin(channel: grpc.Channel) -> grpc.Future:
    """The answer to a request that is worked on for ever."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.model_spec.signature_name = "spin"
    request.inputs["turns"].CopyFrom(tf.make_tensor_proto([FOREVER]))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict.future(request)


def cpu_used(pid: int, seconds: float) -> None:
    """Waits until a process has worked for so long from now on."""
    ticks = os.sysconf("SC_CLK_TCK")

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    before, deadline = used(), time.monotonic() + 30
    while used() < before + seconds:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stop_ends_batches_with_the_grace(
    tmp_path: Path, example_model: Path, push: Push
) -> None:
    push(example_model, tmp_path, 1)
    options = ServerOptions(batching=BatchingParameters())
    server = ModelServer("m", tmp_path, grpc_port=0, rest_port=None, options=options)
    with server, grpc.insecure_channel(server.grpc_address) as channel:
        assert server.wait_ready(30)
        answers = [spin(channel) for _ in range(5)]
        cpu_used(os.getpid(), 0.3)
        start = time.monotonic()
        server.stop(1)
        assert 0.9 < time.monotonic() - start < 2.5
        assert not any(
            t.name.startswith("model_server_b") for t in threading.enumerate()
        )
        assert all(answer.exception() for answer in answers)


def test_a_second_sigterm_ends_a_busy_server_at_once(
    tmp_path: Path, example_model: Path, push: Push
) -> None:
    push(example_model, tmp_path, 1)
    command = [*COMMAND, "--enable_batching", "--shutdown_grace_seconds=600"]
    command.append(f"--parent_pid={os.getpid()}")
    with subprocess.Popen(
        [*command, "--model_name=m", f"--model_base_path={tmp_path}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            address = re.search(r"gRPC on (\S+),", await_line(process, "gRPC on"))
            assert address
            with grpc.insecure_channel(address[1]) as channel:
                answer = spin(channel)
                cpu_used(process.pid, 0.3)
                process.send_signal(signal.SIGTERM)
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.5)
                process.send_signal(signal.SIGTERM)
                assert process.wait(2) == -signal.SIGTERM
                assert answer.exception()
        finally:
            process.kill()


PARENT = """
import sys, time
from langzoo.serving.server.process import running_server
with running_server(sys.argv[1], model_name="m") as address:
    print(address, flush=True)
    time.sleep(600)
"""


def test_a_server_of_the_pipelines_is_not_reconfigured_and_ends_with_it(
    tmp_path: Path, example_model: Path, push: Push
) -> None:
    push(example_model, tmp_path, 1)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        address = parent.stdout.readline().strip()
        with grpc.insecure_channel(address) as channel:
            models = model_service_pb2_grpc.ModelServiceStub(channel)
            request = model_management_pb2.ReloadConfigRequest()
            request.config.model_config_list.SetInParent()
            with pytest.raises(grpc.RpcError) as caught:
                models.HandleReloadConfigRequest(request, timeout=30)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        parent.kill()
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + 10
    while listens(host, int(port)):
        assert time.monotonic() < deadline, "the server goes on"
        time.sleep(0.1)


def listens(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((host, port)).close()
        return True
    return False


@pytest.mark.parametrize("stock", [True, False])
def test_ports_open_when_the_models_have_loaded(
    tmp_path: Path, example_model: Path, push: Push, stock: bool
) -> None:
    opening = Opening.LOADED if stock else Opening.TRIED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    push(example_model, tmp_path, 1)
    (tmp_path / "1").rename(tmp_path / "other")
    server = ModelServer(
        "m",
        tmp_path,
        grpc_port=0,
        rest_port=port,
        poll_seconds=0.02,
        options=ServerOptions(opening=opening),
    )
    starting = threading.Thread(target=server.start)
    starting.start()
    starting.join(1)
    # Without a version TensorFlow Serving waits; we, who may be there before a first
    # push, answer that there is none.
    assert starting.is_alive() is stock
    assert listens("127.0.0.1", port) is not stock
    (tmp_path / "other").rename(tmp_path / "1")
    starting.join(30)
    assert listens("127.0.0.1", port)
    assert server.wait_ready(0 if stock else 30)
    server.stop()


def test_the_stop_ends_a_start_that_waits(tmp_path: Path) -> None:
    server = ModelServer(
        base_path=tmp_path, grpc_port=0, options=ServerOptions(opening=Opening.LOADED)
    )
    starting = threading.Thread(target=server.start)
    starting.start()
    server.stop(0)
    starting.join(5)
    assert not starting.is_alive()


def test_a_model_that_does_not_load_ends_the_stock_server_with_255(
    tmp_path: Path,
    example_model: Path,
    push: Push,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    push(example_model, tmp_path / "good", 1)
    (tmp_path / "bad" / "1").mkdir()
    (tmp_path / "bad" / "1" / "saved_model.pb").write_bytes(b"garbage")
    file = tmp_path / "models.config"
    models = (
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" '
        'model_platform: "tensorflow" }'
        for name in ("good", "bad")
    )
    file.write_text(f"model_config_list {{ {' '.join(models)} }}")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    flags = [f"--port={port}", f"--model_config_file={file}"]
    assert main(flags, stock=True) == 255
    error = capsys.readouterr().err
    assert "1 model(s) did not become available: {{name: bad version: 1" in error


def test_a_bad_configuration_ends_the_stock_server_with_255(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").write_text("improper")
    assert (
        main(["--port=1", f"--model_config_file={tmp_path / 'f'}"], stock=True) == 255
    )
    words = "Error parsing text-format tensorflow.serving.ModelServerConfig"
    assert words in capsys.readouterr().err


def test_what_cannot_be_told_stops_nothing_and_probes_are_told_before_people(
    tmp_path: Path, example_model: Path, push: Push
) -> None:
    push(example_model, tmp_path, 1)
    healthy: list[bool] = []

    def announce(line: str) -> None:
        if "version 1 is available" in line:
            with grpc.insecure_channel(server.grpc_address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
                healthy.append(answer.status == answer.SERVING)
        raise ValueError("I/O operation on closed file")

    server = ModelServer(
        "m",
        tmp_path,
        grpc_port=0,
        rest_port=None,
        poll_seconds=0.02,
        announce=announce,
    )
    with server:
        assert server.wait_ready(60)
        push(example_model, tmp_path, 2)
        repository = server._models.get("m")
        assert repository is not None
        deadline = time.monotonic() + 60
        while list(repository._available) != [2]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert healthy == [True]


def test_lines_that_nobody_reads_hold_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("langzoo.serving.server.command._PRINT_SECONDS", 0.1)
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as full, os.fdopen(reading) as pipe:
        monkeypatch.setattr(sys, "stdout", full)
        with _Printer() as tell:
            for _ in range(1000):
                tell("a" * 1000)
        pipe.read(1_001_000)


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_line_that_cannot_be_printed_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class Broken(io.StringIO):
        failures = 2

        def write(self, text: str) -> int:
            self.failures -= 1
            if self.failures >= 0:
                raise error
            return super().write(text)

    out = Broken()
    monkeypatch.setattr(sys, "stdout", out)
    with _Printer() as tell:
        for line in ("a", "b", "c"):
            tell(line)
    assert out.getvalue() == "c\n"


@pytest.mark.parametrize(
    ("flags", "stock", "warned"),
    [
        ([], False, False),
        (["--host=::1"], False, False),
        (["--host=localhost"], False, False),
        (["--host=0.0.0.0"], False, True),
        (["--host=::"], False, True),
        (["--host=example.com"], False, True),
        ([], True, True),
        (["--host=127.0.0.1"], True, False),
        (["--port=0", "--grpc_socket_path=s"], True, False),
    ],
)
def test_a_server_that_others_reach_says_so(
    flags: list[str], stock: bool, warned: bool
) -> None:
    options = build_parser("x", stock=stock).parse_args(flags)
    warning = _openness(options, stock, tls=None)
    assert (warning is not None) is warned
    if warning and stock:
        assert "may have it load any model" in warning
