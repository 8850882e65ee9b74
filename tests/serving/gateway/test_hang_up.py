"""Whoever hangs up on the gateway stops the model behind it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import unchecked
from langzoo.serving.server import ModelServer, ServerOptions

ENDLESS = {"model": "bytes", "prompt": "a", "temperature": 1.5, "max_tokens": 30}
# The stop itself takes some milliseconds; a machine may be busy with other tests.
SOON = 2.0


@pytest.fixture(scope="module")
def endless_server(
    endless_model: Path,
    push: Callable[[Path, Path, int], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ModelServer]:
    base_path = tmp_path_factory.mktemp("base")
    push(endless_model, base_path, 1)
    with ModelServer(
        *("bytes", base_path),
        host="127.0.0.1",
        grpc_port=0,
        rest_port=None,
        options=ServerOptions(session=unchecked.AS_IT_IS),
    ) as server:
        assert server.wait_ready(60)
        yield server


def await_stops(server: ModelServer, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.metrics.requests.value("bytes", "CANCELLED") == count:
            return
        time.sleep(0.001)
    raise AssertionError("the model goes on")


def await_start(server: ModelServer) -> None:
    """Waits until something has been worked on for a while."""
    repository = server._models.get("bytes")
    assert repository is not None
    busy = 0
    end = time.monotonic() + 30
    while busy < 100:
        assert time.monotonic() < end
        users = sum(entry.users for entry in repository._available.values())
        busy = busy + 1 if users else 0
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
def test_the_model_stops(
    endless_server: ModelServer, gateway: Callable[..., Any], stream: bool
) -> None:
    with gateway(endless_server.grpc_address) as url:
        address = urlsplit(url)
        body = json.dumps({**ENDLESS, "stream": stream}).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        )
        before = endless_server.metrics.requests.value("bytes", "CANCELLED")
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            await_start(endless_server)
        await_stops(endless_server, before + 1, SOON)
