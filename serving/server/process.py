"""A model server as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO

import grpc

from ..errors import ServingError

_READY = re.compile(r"gRPC on (\S+), REST on (\S+)")
_FAILED = re.compile(r"version \S+ failed to load: .*")
# What the machine lacked, in TensorFlow's words, C++'s or the system's.
_LACKS = re.compile(
    "bad_alloc|OOM when allocating|[Oo]ut of memory|Cannot allocate memory|"
    "No space left|Too many open files"
)
# How a process ends that its own code has taken down; whoever else ends it uses others.
_CRASHES = {
    *(signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
}
_STOP_SECONDS = 20
_DEATH_SECONDS = 2


class ServerError(RuntimeError):
    """The server did not come up, or went; the message holds what it printed last."""


class UnservableError(ServerError):
    """It is the model's doing: it cannot be loaded, or takes the server down."""


@contextlib.contextmanager
def running_server(
    model_base_path: str,
    *,
    model_name: str = "langzoo",
    timeout: float = 120,
    flags: Sequence[str] = (),
) -> Iterator[str]:
    """Runs the embedded model server on free ports of the loopback interface.

    It lets nobody change what it serves, and ends with this process, however that ends.

    Args:
        model_base_path: Folder of versions.
        model_name: Name under which requests ask for the model.
        timeout: Seconds that it may take until it serves.
        flags: More of its flags.

    Yields:
        The gRPC address, `host:port`.

    Raises:
        ServerError: Where it ends or stays silent for `timeout` seconds.
        UnservableError: Where that is the model's doing.
    """
    command = [
        *(sys.executable, "-P", "-m", "langzoo.serving.server"),
        *("--host=127.0.0.1", "--port=0", "--rest_api_port=0"),
        *(f"--model_name={model_name}", f"--model_base_path={model_base_path}"),
        *("--config_reload=off", f"--parent_pid={os.getpid()}"),
        *flags,
    ]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Ctrl-C in a terminal is for the parent, which then stops the server.
            start_new_session=True,
        )
        try:
            yield _wait_for_address(process, log, timeout)
        except ServingError as error:
            if error.code is grpc.StatusCode.UNAVAILABLE and _has_ended(process):
                raise _death(process, _read(log)) from error
            raise
        finally:
            _stop(process)


def _wait_for_address(
    process: subprocess.Popen[bytes], log: IO[str], timeout: float
) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        output = _read(log)
        if match := _READY.search(output):
            return match[1]
        if match := _FAILED.search(output):
            kind = ServerError if _LACKS.search(match[0]) else UnservableError
            raise kind(f"the model server cannot load the model: {match[0]}")
        if process.poll() is not None:
            raise _death(process, output)
        time.sleep(0.1)
    raise ServerError(
        f"the model server was not ready after {timeout:.0f} s: "
        f"{_last_line(_read(log))}"
    )


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    # Its connections close before it can be waited for.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_DEATH_SECONDS)
    return process.returncode is not None


def _death(process: subprocess.Popen[bytes], output: str) -> ServerError:
    crashed = -process.returncode in _CRASHES and not _LACKS.search(output)
    return (UnservableError if crashed else ServerError)(
        f"the model server ended with status {process.returncode}: {_last_line(output)}"
    )


def _read(log: IO[str]) -> str:
    # The child shares the file's offset only through its own descriptor's writes.
    return os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
