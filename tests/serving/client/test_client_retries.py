"""Clients of servers that are away, busy or slow; and clients that give up."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
from grpc import StatusCode
from langzoo.serving.client import AsyncClient, RestClient, ServingError
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.servable import Signature
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

Push = Callable[[Path, Path, int], None]
Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def narrow_server(
    language_model: Path,
    example_model: Path,
    push: Push,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ModelServer]:
    """A server that does one thing at a time and refuses all else."""
    folder = tmp_path_factory.mktemp("base")
    config = ""
    for name, model in {"langzoo": language_model, "example": example_model}.items():
        (folder / name).mkdir()
        push(model, folder / name, 1)
        config += (
            f'config {{ name: "{name}" base_path: "{folder / name}" '
            'model_platform: "tensorflow" } '
        )
    (folder / "models.config").write_text(f"model_config_list {{ {config} }}")
    server = ModelServer(
        config_file=str(folder / "models.config"),
        host="127.0.0.1",
        grpc_port=0,
        rest_port=0,
        threads=1,
        options=ServerOptions(queue_size=0),
    )
    with server:
        assert server.wait_ready(60)
        yield server


@contextmanager
def busy(server: ModelServer, kind: str) -> Iterator[threading.Event]:
    """Keeps the only thread of an interface busy until the event or the end."""
    released, call = threading.Event(), Signature.call

    def held(self: Signature, feeds: Mapping[str, Any], *rest: Any) -> dict[str, Any]:
        if "turns" in feeds:
            released.wait(60)
        return call(self, feeds, *rest)

    spin = {"rest": spin_over_rest}.get(kind, spin_over_grpc)
    thread = threading.Thread(target=spin, args=(server,))
    with patch.object(Signature, "call", held):
        thread.start()
        await_users(server, "example", 1)
        try:
            yield released
        finally:
            released.set()
            thread.join()


def spin_over_grpc(server: ModelServer) -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "example"
    request.model_spec.signature_name = "spin"
    request.inputs["turns"].CopyFrom(tf.make_tensor_proto([1], tf.int64))
    with grpc.insecure_channel(server.grpc_address) as channel:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)


def spin_over_rest(server: ModelServer) -> None:
    body = {"signature_name": "spin", "instances": [1]}
    url = f"http://{server.rest_address}/v1/models/example:predict"
    urllib.request.urlopen(url, json.dumps(body).encode(), timeout=60).close()


def await_users(server: ModelServer, name: str, count: int) -> None:
    """Waits until so many requests of a model are worked on."""
    repository = server._models.get(name)
    assert repository is not None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if sum(entry.users for entry in repository._available.values()) == count:
            return
        time.sleep(0.001)
    raise AssertionError(f"there are not {count} requests in progress")


def test_a_busy_server_is_asked_again(
    connect: Connect, kind: str, narrow_server: ModelServer
) -> None:
    client = connect(narrow_server, retries=4)
    with busy(narrow_server, kind) as released:
        threading.Timer(1.0, released.set).start()
        [score] = client.score(["abc"])
    assert score.bytes == 3


def test_a_busy_server_is_an_error_without_retries(
    connect: Connect, kind: str, narrow_server: ModelServer
) -> None:
    client = connect(narrow_server)
    with busy(narrow_server, kind), pytest.raises(ServingError) as caught:
        client.score(["abc"])
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED


def test_a_server_that_comes_late_is_asked_again(
    connect: Connect, kind: str, language_server: ModelServer, free_port: int
) -> None:
    address = (
        language_server.rest_address if kind == "rest" else language_server.grpc_address
    )
    client = connect(f"127.0.0.1:{free_port}", retries=4)
    # Long messages are kept to be sent again as well.
    text = "a" * 1_000_000
    with late_relay(free_port, str(address), seconds=0.5):
        [score] = client.score([text])
    assert score.bytes == len(text)


@contextmanager
def late_relay(port: int, address: str, seconds: float) -> Iterator[None]:
    """Listens on a port after some seconds, and then hands bytes on to an address."""
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, other = address.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(other))
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async def listen() -> None:
        await asyncio.sleep(seconds)
        async with await asyncio.start_server(relay, "127.0.0.1", port):
            await stopped.wait()

    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(listen(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def test_all_retries_have_one_deadline(connect: Connect, free_port: int) -> None:
    client = connect(f"127.0.0.1:{free_port}", retries=4, timeout=0.5)
    start = time.monotonic()
    with pytest.raises(ServingError) as caught:
        client.score(["a"])
    # Without it they would take 3 seconds.
    assert time.monotonic() - start < 2.5
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    assert str(caught.value) == f"no answer from 127.0.0.1:{free_port} within 0.5 s"


def test_all_batches_have_one_deadline(
    connect: Connect, language_server: ModelServer
) -> None:
    client = connect(language_server, batch_size=1)
    texts = ["a b " * 1000] * 5000
    start = time.monotonic()
    with pytest.raises(ServingError) as caught:
        client.score(texts, timeout=0.5)
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 300  # and not half a second a batch


def test_a_server_that_is_silent(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServingError) as caught:
            connect(target, timeout=0.3).score(["a"])
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    assert str(caught.value) == f"no answer from {target} within 0.3 s"


@pytest.mark.parametrize(
    "whole",
    ["HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", ""],
    ids=["body", "head"],
)
def test_an_answer_that_comes_drop_by_drop_has_the_same_deadline(whole: str) -> None:
    def drip() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(whole.encode() or b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        target = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with RestClient(target) as client, pytest.raises(ServingError) as caught:
            client.score(["a"], timeout=0.5)
        assert time.monotonic() - start < 1.5
        thread.join()
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED


def test_a_cancelled_call_is_never_run_by_the_server(
    serve: Callable[..., AbstractContextManager[ModelServer]],
    tmp_path: Path,
    language_model: Path,
    push: Push,
) -> None:
    push(language_model, tmp_path, 1)

    async def await_in_progress(server: ModelServer, count: int) -> None:
        while server._grpc is None or server._grpc._intake._requests != count:
            await asyncio.sleep(0.001)

    async def ask(server: ModelServer) -> None:
        async with AsyncClient(server.grpc_address) as client:
            long = asyncio.create_task(client.score(["a b " * 500_000]))
            await await_in_progress(server, 1)
            waiting = asyncio.create_task(client.score(["abc"]))
            await await_in_progress(server, 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await await_in_progress(server, 1)
            assert (await long)[0].words == 1_000_000

    with serve(tmp_path, threads=1) as server:
        asyncio.run(ask(server))
        assert server.metrics.requests._cells == {("langzoo", "OK"): 1}


def test_no_more_requests_of_a_call_are_on_their_way_than_allowed(
    language_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_their_way, peak, call = itertools.count(), 0, AsyncClient._response
    running = 0

    async def counted(self: AsyncClient, *arguments: Any) -> Any:
        nonlocal running, peak
        running, _ = running + 1, next(on_their_way)
        peak = max(peak, running)
        try:
            return await call(self, *arguments)
        finally:
            running -= 1

    async def ask() -> list:
        async with AsyncClient(
            language_server.grpc_address, batch_size=1, max_in_flight=3
        ) as client:
            return await client.score(["a"] * 20)

    monkeypatch.setattr(AsyncClient, "_response", counted)
    assert len(asyncio.run(ask())) == next(on_their_way) == 20
    assert peak == 3
