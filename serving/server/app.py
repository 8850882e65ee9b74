"""The model server: a model's base path, served over gRPC and REST until stopped."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import grpc

from .core import ServerCore
from .grpc_service import ModelServices
from .repository import ModelRepository, State, VersionStatus
from .rest import RestServer

# As in TensorFlow Serving; a request that waits for the graph holds a thread.
_THREADS_PER_CPU = 4


class ServerStartError(Exception):
    """The server cannot start; the message is one line that says why."""


class PortInUseError(ServerStartError):
    """Another process listens on the port that was asked for."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is in use")
        self.host = host
        self.port = port


class ModelServer:
    """Serves the newest version of one model, as TensorFlow Serving would.

    Example:

    ```python
    with ModelServer("langzoo", "push", grpc_port=0, rest_port=0) as server:
        server.wait_ready(timeout=60)
        client = langzoo.serving.client.Client(server.grpc_address)
    ```

    Args:
        model_name: the name that requests call the model by.
        base_path: the folder of its version folders. It need not exist yet.
        grpc_port: port for gRPC; 0 takes a free one.
        rest_port: port for REST; 0 takes a free one, None turns REST off.
        host: address to listen on.
        poll_seconds: how long to wait between two looks for a new version; 0 looks
            once.
        threads: requests worked on at a time, for each of gRPC and REST; four for
            each processor by default.
        announce: is given one line of text for all that a person would want to know,
            often from another thread.
    """

    def __init__(
        self,
        model_name: str,
        base_path: str | os.PathLike[str],
        *,
        grpc_port: int = 8500,
        rest_port: int | None = 8501,
        host: str = "0.0.0.0",
        poll_seconds: float = 1.0,
        threads: int | None = None,
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model_name = model_name
        self.base_path = Path(base_path)
        self.host = host
        self.grpc_port = grpc_port
        self.rest_port = rest_port
        self._threads = threads or _THREADS_PER_CPU * (os.cpu_count() or 1)
        self._announce = announce
        self._serving_announced = False
        self._repository = ModelRepository(
            model_name, self.base_path, self, poll_seconds=poll_seconds
        )
        self._core = ServerCore({model_name: self._repository})
        self._grpc: grpc.Server | None = None
        self._rest: RestServer | None = None

    @property
    def grpc_address(self) -> str:
        """`HOST:PORT` of gRPC; the port is known once the server has started."""
        return _address(self.host, self.grpc_port)

    @property
    def rest_address(self) -> str | None:
        """`HOST:PORT` of REST, None where it is off."""
        return None if self.rest_port is None else _address(self.host, self.rest_port)

    def start(self) -> None:
        """Takes the ports and begins to load; returns before a version is ready.

        Raises:
            PortInUseError: a port is taken.
            ServerStartError: it cannot listen there for another reason.
        """
        for port in (self.grpc_port, self.rest_port or 0):
            # gRPC would take 65536 for 0.
            if not 0 <= port < 1 << 16:
                raise ServerStartError(f"there is no port {port}")
        rest_socket = None
        if self.rest_port is not None:
            rest_socket = _listen(self.host, self.rest_port)
            self.rest_port = rest_socket.getsockname()[1]
        try:
            self._start_grpc()
        except BaseException:
            if rest_socket is not None:
                rest_socket.close()
            raise
        if rest_socket is not None:
            self._rest = RestServer(self._core, rest_socket, self._threads)
            self._rest.start()
        self._repository.start()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until a version answers; False if there is none after `timeout` s."""
        return self._repository.wait_available(timeout)

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Stops to listen, lets requests finish for `grace_seconds`, frees all."""
        stopped = self._grpc.stop(grace_seconds) if self._grpc else None
        if self._rest is not None:
            self._rest.stop(grace_seconds)
        if stopped is not None:
            stopped.wait()
        self._repository.close(grace_seconds)

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def waiting(self) -> None:
        """The repository's word that there is no version yet."""
        self._announce(
            f"langzoo: no version of model {self.model_name} in {self.base_path} yet, "
            "waiting for one"
        )

    def unreadable(self, error: OSError) -> None:
        """The repository's word that it cannot read the base path."""
        reason = error.strerror or error
        self._announce(f"langzoo: cannot read {self.base_path}: {reason}")

    def changed(self, status: VersionStatus) -> None:
        """The repository's word that a version has come into another state."""
        if status.error is not None:
            reason = " ".join(status.error.message.split())
            self._announce(
                f"langzoo: version {status.version} failed to load: {reason}"
            )
        elif status.state is State.AVAILABLE:
            self._announce(f"langzoo: version {status.version} is available")
            self._announce_serving()
        elif status.state is State.END:
            self._announce(f"langzoo: version {status.version} is unloaded")

    def _announce_serving(self) -> None:
        if self._serving_announced:
            return
        self._serving_announced = True
        self._announce(
            f"langzoo: serving model {self.model_name} from {self.base_path}: "
            f"{self._addresses()}"
        )

    def _addresses(self) -> str:
        rest = f"REST on {self.rest_address}" if self.rest_address else "REST off"
        return f"gRPC on {self.grpc_address}, {rest}"

    def _start_grpc(self) -> None:
        executor = ThreadPoolExecutor(self._threads, thread_name_prefix="langzoo-grpc")
        server = grpc.server(
            executor,
            handlers=ModelServices(self._core).handlers(),
            options=[
                # Otherwise two servers could share a port without noticing.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
            ],
        )
        try:
            self.grpc_port = server.add_insecure_port(self.grpc_address)
        except RuntimeError as error:
            # gRPC does not say why; the system does.
            _listen(self.host, self.grpc_port).close()
            reason = f"cannot listen on {self.grpc_address}: {error}"
            raise ServerStartError(reason) from error
        server.start()
        self._grpc = server


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises `ServerStartError` where that is impossible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # It sets SO_REUSEADDR, without which a port stays taken for a while after a
        # server has stopped, and not SO_REUSEPORT, with which two could share it.
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from error
        reason = f"cannot listen on {_address(host, port)}: {error.strerror}"
        raise ServerStartError(reason) from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
