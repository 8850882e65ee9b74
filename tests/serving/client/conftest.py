"""The three clients, asked alike."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from langzoo.serving.client import AsyncClient, Client, RestClient
from langzoo.serving.server import ModelServer


class WaitingClient:
    """An `AsyncClient` whose methods wait, as those of the others do."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value
        return lambda *args, **options: self._runner.run(value(*args, **options))

    def __enter__(self) -> WaitingClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._runner.close()


_CLIENTS = {"grpc": Client, "async": WaitingClient, "rest": RestClient}


@pytest.fixture(params=_CLIENTS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the clients `connect` connects."""
    return request.param


@pytest.fixture
def connect(kind: str) -> Iterator[Callable[..., Any]]:
    """Connects a client of this kind to a server, or to an address."""
    with ExitStack() as stack:

        def connect(server: ModelServer | str, *arguments: Any, **options: Any) -> Any:
            if isinstance(server, ModelServer):
                server = server.rest_address if kind == "rest" else server.grpc_address
            return stack.enter_context(_CLIENTS[kind](server, *arguments, **options))

        yield connect


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
