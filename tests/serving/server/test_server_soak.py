"""The server over a long time, shortened; `make soak` runs all of it.

LANGZOO_SOAK is by how much longer.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
from langzoo.serving.client import Client
from langzoo.serving.errors import ServingError

Push = Callable[[Path, Path, int], None]
LONGER = int(os.environ.get("LANGZOO_SOAK", "1"))
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A server process of one model, and the lines that it prints."""

    def __init__(self, base_path: Path, *flags: str) -> None:
        command = [
            *(sys.executable, "-m", "langzoo.serving.server", "--host=127.0.0.1"),
            *("--port=0", "--model_name=langzoo", f"--model_base_path={base_path}"),
            *("--file_system_poll_wait_seconds=0.05", *flags),
            f"--parent_pid={os.getpid()}",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.lines: list[str] = []
        self._said = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        match = re.search(r"gRPC on (\S+),", self.await_line("gRPC on"))
        assert match
        self.address = match[1]

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._said:
                self.lines.append(line)
                self._said.notify_all()

    def await_line(self, text: str) -> str:
        """Waits until it has said a line with this text."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._said:
            line = self._said.wait_for(found, timeout=90)
        assert line, self.lines
        return line

    def memory(self) -> int:
        """Bytes that it holds."""
        return (
            int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE
        )


@contextmanager
def serving(base_path: Path, *flags: str) -> Iterator[Process]:
    server = Process(base_path, *flags)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@contextmanager
def load(address: str, clients: int) -> Iterator[tuple[list[int], list[ServingError]]]:
    """Asks without a pause; gives what was answered and what was refused."""
    stop = threading.Event()
    answers: list[int] = []
    errors: list[ServingError] = []

    def ask() -> None:
        with Client(address) as client:
            while not stop.is_set():
                try:
                    answers.append(client.score(["a b c"])[0].words)
                except ServingError as error:
                    errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers, errors
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_versions_change_under_load_without_a_failed_request_or_a_leak(
    tmp_path: Path, language_model: Path, push: Push
) -> None:
    push(language_model, tmp_path, 1)
    with serving(tmp_path) as server, load(server.address, 4) as (answers, errors):
        memory: dict[int, int] = {}
        for version in range(2, 2 + 20 * LONGER):
            push(language_model, tmp_path, version)
            server.await_line(f"version {version} is available")
            server.await_line(f"version {version - 1} is unloaded")
            shutil.rmtree(tmp_path / str(version - 1))
            memory[version] = server.memory()
        assert not errors
        assert len(answers) > len(memory)
    # The first swaps still fill caches.
    assert memory[max(memory)] < 1.15 * memory[6]


def test_sigterm_lets_requests_finish_and_refuses_new_ones(
    tmp_path: Path, language_model: Path, push: Push
) -> None:
    push(language_model, tmp_path, 1)
    with serving(tmp_path) as server:
        with load(server.address, 4) as (answers, errors):
            while len(answers) < 20:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0
        # gRPC cancels what has come in and been given to nobody yet.
        refused = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert {error.code for error in errors} <= refused
        assert set(answers) == {3}


PUSHER = """
import os, random, signal, sys, time
from pathlib import Path
from langzoo.components.push_folder.versions import push
model, folder, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = time.monotonic()
push(model, folder)
whole = time.monotonic() - start
draw = random.Random(0)
for _ in range(rounds):
    child = os.fork()
    if not child:
        push(model, folder)
        os._exit(0)
    time.sleep(draw.uniform(0, 1.2 * whole))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
push(model, folder)
"""


def test_a_push_killed_at_any_moment_is_never_seen_by_half(
    tmp_path: Path, language_model: Path
) -> None:
    command = [sys.executable, "-c", PUSHER, str(language_model), str(tmp_path)]
    with (
        subprocess.Popen([*command, str(10 * LONGER)]) as pusher,
        serving(tmp_path) as server,
    ):
        assert pusher.wait(120 * LONGER) == 0
        newest = max(int(f.name) for f in tmp_path.iterdir() if f.name.isdigit())
        server.await_line(f"version {newest} is available")
        assert not [line for line in server.lines if "failed" in line]
        with Client(server.address) as client:
            assert client.score(["a b"])[0].words == 2
