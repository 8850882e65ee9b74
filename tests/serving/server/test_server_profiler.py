"""TensorFlow's profiler, asked by its own client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from grpc import StatusCode
from langzoo.serving.client import Client
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.profiler import _MESSAGES, PROFILER_SERVICE
from tensorflow.python.profiler import profiler_client
from tensorflow.tsl.profiler.protobuf import xplane_pb2


@pytest.fixture(scope="module")
def server(
    language_model: Path,
    push: Callable[[Path, Path, int], None],
    serve: Callable[..., AbstractContextManager[ModelServer]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ModelServer]:
    base_path = tmp_path_factory.mktemp("base")
    push(language_model, base_path, 1)
    with serve(base_path, options=ServerOptions(profiler=True)) as server:
        yield server


@pytest.fixture
def ask(server: ModelServer) -> Iterator[Callable[..., Any]]:
    # As TensorFlow's own client: a process that has done much has much to tell.
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.grpc_address, options) as channel:

        def ask(method: str, **fields: Any) -> Any:
            request = _MESSAGES[f"{method}Request"](**fields)
            return channel.unary_unary(f"/{PROFILER_SERVICE}/{method}").future(
                request.SerializeToString(), timeout=30
            )

        yield ask


def test_a_profile_shows_the_graph(server: ModelServer, tmp_path: Path) -> None:
    end = threading.Event()

    def work() -> None:
        with Client(server.grpc_address) as client:
            while not end.is_set():
                client.score(["a text"])

    worker = threading.Thread(target=work)
    worker.start()
    try:
        profiler_client.trace(server.grpc_address, str(tmp_path), 500, "", 5)
    finally:
        end.set()
        worker.join()
    [file] = tmp_path.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    names = {m.name for plane in space.planes for m in plane.event_metadata.values()}
    assert "ExecutorState::Process" in names


def test_a_profile_ends_when_it_is_told_to(ask: Callable[..., Any]) -> None:
    start = time.monotonic()
    profile = ask("Profile", duration_ms=20_000, session_id="x", emit_xspace=True)
    time.sleep(0.5)
    ask("Terminate", session_id="x").result()
    response = _MESSAGES["ProfileResponse"].FromString(profile.result())
    assert time.monotonic() - start < 15
    assert xplane_pb2.XSpace.FromString(response.xspace).planes


def test_a_cancelled_profile_makes_room_for_the_next(ask: Callable[..., Any]) -> None:
    profile = ask("Profile", duration_ms=20_000)
    time.sleep(0.5)
    assert ask("Profile", duration_ms=1).code() is StatusCode.INTERNAL
    profile.cancel()
    deadline = time.monotonic() + 10
    while ask("Profile", duration_ms=1).code() is not StatusCode.OK:
        assert time.monotonic() < deadline


def test_what_is_refused(ask: Callable[..., Any]) -> None:
    assert ask("Monitor").code() is StatusCode.UNIMPLEMENTED
    too_long = ask("Profile", duration_ms=1 << 40)
    assert too_long.code() is StatusCode.INVALID_ARGUMENT


def test_there_is_no_profiler_by_default(language_server: ModelServer) -> None:
    with grpc.insecure_channel(language_server.grpc_address) as channel:
        call = channel.unary_unary(f"/{PROFILER_SERVICE}/Profile")
        assert call.future(b"", timeout=30).code() is StatusCode.UNIMPLEMENTED
