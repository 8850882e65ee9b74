"""Runs the gateway until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType

import uvicorn

from ..client import AsyncClient, Tls
from ..wording import log_in_lines
from .app import Gateway
from .options import GatewayOptions

_DRAIN_SECONDS = 30


class GatewayError(Exception):
    """The gateway cannot start; the message is one line that says why."""


@dataclass(frozen=True)
class Upstream:
    """The model server behind the gateway.

    Attributes:
        target: its gRPC address, `HOST:PORT`.
        timeout: seconds that it may take for an answer.
        credentials: to speak TLS to it.
    """

    target: str
    timeout: float = 60.0
    credentials: Tls | None = None

    def client(self, model_name: str) -> AsyncClient:
        """A client of one of its models."""
        return AsyncClient(
            self.target,
            model_name,
            timeout=self.timeout,
            # A server that is replaced is away for a moment.
            retries=2,
            credentials=self.credentials,
        )


def run(
    models: Mapping[str, str],
    upstream: Upstream,
    options: GatewayOptions,
    *,
    host: str,
    port: int,
    announce: Callable[[str], None],
) -> None:
    """Answers requests until SIGTERM or SIGINT; lets those that are there finish.

    Args:
        models: the model server's names of the models, by those that requests use.
        upstream: the model server.
        options: who may ask, and how much.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        announce: is given the line that says where it listens.

    Raises:
        GatewayError: it cannot listen there, or the upstream's timeout is none.
    """
    log_in_lines()
    try:
        clients = {name: upstream.client(model) for name, model in models.items()}
    except ValueError as error:
        raise GatewayError(str(error)) from error
    with _listen(host, port) as listener:
        app = Gateway(clients, options).app()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        address = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        announce(
            f"langzoo: gateway to {', '.join(models)} of {upstream.target}: "
            f"http://{address}/v1, playground on http://{address}/"
        )
        # uvicorn sends itself the signal again once it has stopped, which would then
        # be an end by a signal and not in good order.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        uvicorn.Server(config).run([listener])


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        # Names that are not found have numbers below zero.
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else str(error)
        raise GatewayError(f"cannot listen on {host}:{port}: {reason}") from error
    # Connections inherit it. Otherwise a part of a stream may wait until the client has
    # acknowledged the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
