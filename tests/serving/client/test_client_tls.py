"""Clients over secure connections, and with headers."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from grpc import StatusCode
from langzoo.serving.client import ServingError, Tls
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.config_files import TlsConfig

Push = Callable[[Path, Path, int], None]
Connect = Callable[..., Any]


@contextmanager
def secure_server(
    kind: str, base_path: Path, authority: Any, verify: bool
) -> Iterator[str]:
    """`localhost:PORT` of a model over TLS; by `verify` for known clients alone."""
    key, certificate = authority.issue("server")
    tls = TlsConfig(
        key.encode(),
        certificate.encode(),
        authority.certificate.encode(),
        verify,
    )
    server = ModelServer(
        "langzoo",
        base_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=0,
        options=ServerOptions(tls=tls),
    )
    with server:
        assert server.wait_ready(60)
        port = server.rest_port if kind == "rest" else server.grpc_port
        yield f"localhost:{port}"


@pytest.fixture
def base_path(tmp_path: Path, language_model: Path, push: Push) -> Path:
    push(language_model, tmp_path, 1)
    return tmp_path


def test_tls(
    connect: Connect, kind: str, base_path: Path, new_authority: Callable[[], Any]
) -> None:
    authority = new_authority()
    roots = authority.certificate.encode()
    (base_path / "roots.pem").write_bytes(roots)
    with secure_server(kind, base_path, authority, verify=False) as address:
        for pem in (roots, base_path / "roots.pem", str(base_path / "roots.pem")):
            client = connect(address, credentials=Tls(pem))
            assert client.score(["abc"])[0].bytes == 3
        stranger = Tls(new_authority().certificate.encode())
        for credentials in (stranger, Tls()):
            with pytest.raises(ServingError, match="no secure connection") as caught:
                connect(address, credentials=credentials).score(["abc"])
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert "certificate" in caught.value.message.lower()
        with pytest.raises(ServingError):
            connect(address).score(["abc"])


def test_mutual_tls(
    connect: Connect, kind: str, base_path: Path, new_authority: Callable[[], Any]
) -> None:
    authority = new_authority()
    roots = authority.certificate.encode()
    with secure_server(kind, base_path, authority, verify=True) as address:
        known = Tls(roots, *(text.encode() for text in authority.issue("client")))
        assert connect(address, credentials=known).score(["abc"])[0].bytes == 3
        stranger = new_authority().issue("client")
        unknown = Tls(roots, *(text.encode() for text in stranger))
        for credentials in (unknown, Tls(roots)):
            with pytest.raises(ServingError) as caught:
                connect(address, credentials=credentials).score(["abc"])
            assert caught.value.code is StatusCode.UNAVAILABLE


def test_the_libraries_own_credentials_are_taken(
    connect: Connect, kind: str, base_path: Path, new_authority: Callable[[], Any]
) -> None:
    authority = new_authority()
    credentials: Any = grpc.ssl_channel_credentials(authority.certificate.encode())
    if kind == "rest":
        credentials = ssl.create_default_context(cadata=authority.certificate)
    with secure_server(kind, base_path, authority, verify=False) as address:
        client = connect(address, credentials=credentials)
        assert client.score(["abc"])[0].bytes == 3


def test_wrong_certificates_are_told_at_once(
    tmp_path: Path, new_authority: Callable[[], Any]
) -> None:
    authority = new_authority()
    key, _ = authority.issue("one")
    _, certificate = authority.issue("another")
    with pytest.raises(ValueError, match=r"root_certificates: cannot read .*/none"):
        Tls(tmp_path / "none")
    with pytest.raises(ValueError, match="private_key must be PEM"):
        Tls(None, b"key", certificate.encode())
    with pytest.raises(ValueError, match="give private_key and certificate_chain, or"):
        Tls(private_key=key.encode())
    with pytest.raises(ValueError, match="cannot be used"):
        Tls(None, key.encode(), certificate.encode()).ssl_context()


def test_headers_go_along(connect: Connect, kind: str) -> None:
    seen: list[str | None] = []
    headers = {"Authorization": "Bearer secret"}
    if kind == "rest":
        with listening_http(seen) as address, pytest.raises(ServingError) as caught:
            connect(address, headers=headers).score(["a"])
    else:
        with listening_grpc(seen) as address, pytest.raises(ServingError) as caught:
            connect(address, headers=headers).score(["a"])
    assert caught.value.code is StatusCode.UNAUTHENTICATED
    assert seen == ["Bearer secret"]


@contextmanager
def listening_grpc(seen: list[str | None]) -> Iterator[str]:
    """A gRPC server that notes the authorization and refuses it."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            seen.append(dict(details.invocation_metadata).get("authorization"))
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(
                    StatusCode.UNAUTHENTICATED, "not you"
                )
            )

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@contextmanager
def listening_http(seen: list[str | None]) -> Iterator[str]:
    """The same over HTTP."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["authorization"])
            self.send_error(401)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        thread.join()
