"""The model server: models from their base paths, over gRPC and REST until stopped."""

from __future__ import annotations

import dataclasses
import enum
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import grpc
from tensorflow.core.protobuf import config_pb2

from ..errors import ServingError
from ..protocol import State
from .base_path import Reload
from .batching import BatchingParameters, BatchingRunner, BatchScheduler
from .config_files import (
    ConfigFileError,
    TlsConfig,
    read_batching_parameters,
    read_model_config,
)
from .core import ServerCore
from .grpc_service import GrpcServer, ModelServices
from .limits import LARGEST_REQUEST, LARGEST_REQUESTS, QUEUE_SIZE
from .metrics import Metrics
from .models import Models, ModelServerConfig, not_available, single_model
from .profiler import Profiler
from .repository import (
    SAVED_MODEL_FILES,
    ModelRepository,
    Policy,
    Retries,
    VersionStatus,
)
from .rest import RestOptions, RestServer
from .servable import DirectRunner, Runner, Servable, load_servable
from .tflite import TFLITE_FILE, load_tflite
from .warmup import warm_up

# As in TensorFlow Serving; a request that waits for the graph holds a thread.
_THREADS_PER_CPU = 4
_HANDSHAKE_MILLISECONDS = 20_000
# A client that is asked again after that connects again, and does not notice.
_IDLE_MILLISECONDS = 600_000
_STREAMS = 1000  # at a time, of one connection
# For batches to end whose version has been unloaded.
_UNLOAD_SECONDS = 1.0
# Between two looks at whether a server that loads is to stop.
_PATIENCE_SECONDS = 0.1

_logger = logging.getLogger(__name__)


class ServerStartError(Exception):
    """The server cannot start; the message is one line that says why."""


class PortInUseError(ServerStartError):
    """Another process listens on the port that was asked for."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is in use")
        self.host = host
        self.port = port


class Opening(enum.Enum):
    """When a server opens its ports."""

    AT_ONCE = "at once"
    TRIED = "when every model that has a version has loaded or failed to"
    # As TensorFlow Serving, for which a model that fails to load is an end.
    LOADED = "when every model has loaded"


@dataclass(frozen=True)
class ServerOptions:
    """How a server answers and loads.

    The defaults are TensorFlow Serving's, but for `reload` and the limits.

    Attributes:
        queue_size: requests that may wait for a thread, for each of gRPC and REST;
            more are refused with RESOURCE_EXHAUSTED.
        max_request_bytes: of one request, decompressed; larger ones are refused, and
            all that wait, of each of gRPC and REST, have four times that.
        grpc_socket_path: a Unix socket to answer gRPC on as well.
        grpc_arguments: gRPC's channel arguments.
        tls: key and certificates; None answers in the clear.
        rest: how the REST interface answers; `queue_size` and the largest body are the
            server's.
        retries: of versions that fail to load.
        labels_in_advance: lets a new label point to a version not loaded yet.
        batching: joins requests into batches; None runs each by itself.
        model_batching: a model's `batching_params.pbtxt` holds for its batches.
        warmup_iterations: how often each warm-up request is replayed; 0 is never.
        tags: of the graph in a SavedModel to load.
        session: how TensorFlow runs graphs.
        outputs_as_content: pack outputs of Predict as bytes, not as typed values.
        check_methods: let a signature only be used for what it says that it is for.
        tflite_interpreters: of each version that has a `model.tflite`, which is then
            preferred; 0 leaves that file alone.
        config_poll_seconds: between two looks at the configuration file; 0 is once.
        reload: what `HandleReloadConfigRequest` may change.
        opening: when the ports open.
        profiler: let clients record what TensorFlow does.
    """

    queue_size: int = QUEUE_SIZE
    max_request_bytes: int = LARGEST_REQUEST
    grpc_socket_path: str | None = None
    grpc_arguments: tuple[tuple[str, str | int], ...] = ()
    tls: TlsConfig | None = None
    rest: RestOptions = RestOptions()  # noqa: RUF009
    retries: Retries = Retries()  # noqa: RUF009
    labels_in_advance: bool = False
    batching: BatchingParameters | None = None
    model_batching: bool = False
    warmup_iterations: int = 1
    tags: tuple[str, ...] = ("serve",)
    session: config_pb2.ConfigProto | None = None
    outputs_as_content: bool = False
    check_methods: bool = False
    tflite_interpreters: int = 0
    config_poll_seconds: float = 0.0
    reload: Reload = Reload.CONFINED
    opening: Opening = Opening.AT_ONCE
    profiler: bool = False


class ModelServer:
    """Serves models as TensorFlow Serving would: the newest version, or as configured.

    Example:

    ```python
    with ModelServer("langzoo", "push", grpc_port=0, rest_port=0) as server:
        server.wait_ready(timeout=60)
        client = langzoo.serving.client.Client(server.grpc_address)
    ```

    Args:
        model_name: the name that requests call the model by.
        base_path: the folder of its version folders. It need not exist yet.
        config_file: a `ModelServerConfig` as text, which names the models instead.
        grpc_port: port for gRPC; 0 takes a free one, None turns TCP off.
        rest_port: port for REST; 0 takes a free one, None turns REST off.
        host: address to listen on; others than this machine reach it only where that
            is one of the network's, or `0.0.0.0` for all.
        poll_seconds: how long to wait between two looks for a new version; 0 looks
            once.
        threads: requests worked on at a time, for each of gRPC and REST; four for
            each processor by default.
        options: all else.
        announce: is given one line of text for all that a person would want to know,
            often from another thread.
    """

    def __init__(
        self,
        model_name: str = "default",
        base_path: str | os.PathLike[str] = "",
        *,
        config_file: str | None = None,
        grpc_port: int | None = 8500,
        rest_port: int | None = 8501,
        host: str = "127.0.0.1",
        poll_seconds: float = 1.0,
        threads: int | None = None,
        options: ServerOptions = ServerOptions(),
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model_name = model_name
        self.base_path = Path(base_path)
        self.host = host
        self.grpc_port = grpc_port
        self.rest_port = rest_port
        self.metrics = Metrics()
        self._config_file = config_file
        self._poll_seconds = poll_seconds
        self._threads = threads or _THREADS_PER_CPU * (os.cpu_count() or 1)
        self._options = options
        self._announcer = announce
        self._serving_announced = False
        self._telling = threading.Lock()
        self._models = Models(
            self._repository, labels_in_advance=options.labels_in_advance
        )
        self._core = ServerCore(
            self._models,
            self.metrics,
            outputs_as_content=options.outputs_as_content,
            reload=options.reload,
        )
        self._scheduler: BatchScheduler | None = None
        self._grpc: GrpcServer | None = None
        self._rest: RestServer | None = None
        self._stopping = threading.Event()
        self._config_thread: threading.Thread | None = None

    @property
    def grpc_address(self) -> str:
        """`HOST:PORT` of gRPC; the port is known once the server has started."""
        if self.grpc_port is None:
            return f"unix:{self._options.grpc_socket_path}"
        return _address(self.host, self.grpc_port)

    @property
    def rest_address(self) -> str | None:
        """`HOST:PORT` of REST, None where it is off."""
        return None if self.rest_port is None else _address(self.host, self.rest_port)

    def start(self) -> None:
        """Begins to load, and opens the ports when the options say.

        By default that is at once, before a version is ready.

        Raises:
            PortInUseError: a port is taken.
            ServerStartError: it cannot listen there for another reason, the
                configuration is refused, or a model without which the ports do not open
                does not load.
        """
        for port in (self.grpc_port or 0, self.rest_port or 0):
            # gRPC would take 65536 for 0.
            if not 0 <= port < 1 << 16:
                raise ServerStartError(f"there is no port {port}")
            if port:
                # Before what takes long.
                _listen(self.host, port).close()
        config = self._read_config()
        try:
            if self._options.opening is Opening.AT_ONCE:
                self._open()
            if self._options.batching is not None:
                self._scheduler = BatchScheduler(self._options.batching, self.metrics)
            self._models.configure(config)
            if self._options.opening is not Opening.AT_ONCE and self._await_models():
                self._open()
        except BaseException as error:
            self.stop(0)
            if isinstance(error, ServingError | ConfigFileError):
                raise ServerStartError(str(error)) from error
            raise
        if self._config_file is not None and self._options.config_poll_seconds > 0:
            self._config_thread = threading.Thread(
                target=self._follow_config, name="langzoo-config", daemon=True
            )
            self._config_thread.start()

    def _await_models(self) -> bool:
        """Waits until the ports may open; False where the server stops meanwhile."""
        all_loaded = self._options.opening is Opening.LOADED
        wait = self._models.wait_available if all_loaded else self._models.wait_settled
        while not self._stopping.is_set():
            if all_loaded and (failed := self._models.failures()):
                raise ServerStartError(not_available(failed).message)
            if wait(_PATIENCE_SECONDS):
                return True
        return False

    def _open(self) -> None:
        """Takes the ports and begins to answer."""
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
            rest = dataclasses.replace(
                self._options.rest,
                threads=self._options.rest.threads or self._threads,
                queue_size=self._options.queue_size,
                max_body_bytes=self._options.max_request_bytes,
            )
            tls = self._options.tls
            context = None if tls is None else tls.ssl_context()
            self._rest = RestServer(self._core, rest_socket, rest, context)
            self._rest.start()
        self._tell_serving()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until every model answers; False if one does not after `timeout` s."""
        return self._models.wait_available(timeout)

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Stops to listen, lets requests finish for `grace_seconds`, frees all."""
        end = time.monotonic() + grace_seconds
        self._stopping.set()
        # Both at once, or the second would begin to refuse requests late.
        stops = [
            threading.Thread(target=interface.stop, args=(grace_seconds,))
            for interface in (self._grpc, self._rest)
            if interface is not None
        ]
        self._grpc = self._rest = None
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()
        if self._config_thread is not None:
            self._config_thread.join(max(0.0, end - time.monotonic()))
        # A version that is unloaded ends what it computes, batches too.
        self._models.close(max(0.0, end - time.monotonic()))
        if self._scheduler is not None:
            self._scheduler.close(_UNLOAD_SECONDS)

    def _read_config(self) -> ModelServerConfig:
        if self._config_file is None:
            return single_model(self.model_name, str(self.base_path.absolute()))
        try:
            return read_model_config(self._config_file)
        except ConfigFileError as error:
            raise ServerStartError(str(error)) from error

    def _follow_config(self) -> None:
        """Takes what the configuration file says whenever that is something new."""
        seen = None
        while not self._stopping.wait(self._options.config_poll_seconds):
            try:
                config = read_model_config(str(self._config_file))
                self._models.configure(config)
                seen = None
            except (ConfigFileError, ServingError) as error:
                # Told once; what serves now goes on.
                if str(error) != seen:
                    seen = str(error)
                    self._announce(f"langzoo: configuration refused: {error}")

    def _repository(
        self, name: str, base_path: Path, policy: Policy
    ) -> ModelRepository:
        reporter = _Reporter(self, name, base_path)
        tflite = [TFLITE_FILE] if self._options.tflite_interpreters else []
        return ModelRepository(
            name,
            base_path,
            reporter,
            poll_seconds=self._poll_seconds,
            policy=policy,
            retries=self._options.retries,
            load=self._load,
            files=[*SAVED_MODEL_FILES, *tflite],
        )

    def _load(self, version: int, path: Path) -> Servable:
        """Loads a version and answers its warm-up requests."""
        start, status = time.perf_counter(), "OK"
        try:
            servable = self._load_servable(version, path)
        except ServingError as error:
            status = error.code.name
            raise
        finally:
            self.metrics.load_attempts.add(
                str(path), "success" if status == "OK" else "fail"
            )
            micros = round((time.perf_counter() - start) * 1e6)
            self.metrics.load_latency.add(str(path), count=micros)
        servable.check_methods = self._options.check_methods
        try:
            self._warm_up(servable, path)
        except BaseException:
            servable.close()
            raise
        return servable

    def _load_servable(self, version: int, path: Path) -> Servable:
        options, runner = self._options, self._runner(path)
        if options.tflite_interpreters and (path / TFLITE_FILE).is_file():
            count = options.tflite_interpreters
            return load_tflite(version, path, interpreters=count, runner=runner)
        batched = options.batching if isinstance(runner, BatchingRunner) else None
        return load_servable(
            version,
            path,
            tags=options.tags,
            config=options.session,
            runner=runner,
            runs=batched.num_batch_threads if batched else None,
        )

    def _warm_up(self, servable: Servable, path: Path) -> None:
        if not self._options.warmup_iterations:
            return
        start, status, count = time.perf_counter(), "OK", 0
        try:
            count = warm_up(servable, path, self._options.warmup_iterations)
        except ServingError as error:
            status = error.code.name
            raise
        finally:
            if count or status != "OK":
                micros = (time.perf_counter() - start) * 1e6
                self.metrics.warmup_latency.add(str(path), status, value=micros)
                self.metrics.warmup_records.add(str(path), status, count=count)

    def _runner(self, path: Path) -> Runner:
        if self._scheduler is None:
            return DirectRunner()
        own = path / "batching_params.pbtxt"
        if not self._options.model_batching:
            return BatchingRunner(self._scheduler)
        if not own.is_file():
            return DirectRunner()
        try:
            return BatchingRunner(self._scheduler, read_batching_parameters(str(own)))
        except ConfigFileError as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

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

    def changed(self, name: str, status: VersionStatus) -> None:
        """A repository's word that a version has come into another state."""
        version = f"version {status.version}"
        if self._config_file is not None:
            version = f"model {name} {version}"
        if status.error is not None:
            reason = " ".join(status.error.message.split())
            self._announce(f"langzoo: {version} failed to load: {reason}")
        elif status.state is State.AVAILABLE:
            self._tell_health()
            self._announce(f"langzoo: {version} is available")
            self._tell_serving()
        elif status.state is State.END:
            self._announce(f"langzoo: {version} is unloaded")

    def _announce(self, line: str) -> None:
        """Gives a line to whoever reads along; it may fail, and we go on."""
        try:
            self._announcer(line)
        except Exception:
            _logger.exception("could not tell: %s", line)

    def _tell_health(self) -> None:
        server = self._grpc
        if server is not None and self._models.available():
            server.set_serving()

    def _tell_serving(self) -> None:
        """Says that all is up, first to probes, once to people."""
        self._tell_health()
        with self._telling:
            if self._grpc is None or not self._models.available():
                return
            told, self._serving_announced = self._serving_announced, True
        if told:
            return
        what = f"model {self.model_name} from {self.base_path}"
        if self._config_file is not None:
            what = f"the models of {self._config_file}"
        self._announce(f"langzoo: serving {what}: {self._addresses()}")

    def _addresses(self) -> str:
        rest = f"REST on {self.rest_address}" if self.rest_address else "REST off"
        return f"gRPC on {self.grpc_address}, {rest}"

    def _start_grpc(self) -> None:
        options: dict[str, str | int] = {
            # Otherwise two servers could share a port without noticing.
            "grpc.so_reuseport": 0,
            # Decompressed, or a kilobyte could stand for a megabyte.
            "grpc.max_receive_message_length": self._options.max_request_bytes,
            "grpc.max_send_message_length": -1,
            # Who connects and says nothing, or begins requests and does not end them.
            "grpc.server_handshake_timeout_ms": _HANDSHAKE_MILLISECONDS,
            "grpc.max_connection_idle_ms": _IDLE_MILLISECONDS,
            "grpc.max_concurrent_streams": max(_STREAMS, 2 * self._options.queue_size),
        }
        options.update(self._options.grpc_arguments)
        server = GrpcServer(
            ModelServices(self._core, Profiler() if self._options.profiler else None),
            threads=self._threads,
            queue_size=self._options.queue_size,
            max_bytes=LARGEST_REQUESTS * self._options.max_request_bytes,
            arguments=list(options.items()),
        )
        try:
            self._bind_all(server)
        except BaseException:
            server.stop(0)
            raise
        server.start()
        self._grpc = server

    def _bind_all(self, server: GrpcServer) -> None:
        if self.grpc_port is not None:
            try:
                self.grpc_port = self._bind(server, self.grpc_address)
            except RuntimeError as error:
                # gRPC does not say why; the system does.
                _listen(self.host, self.grpc_port).close()
                reason = f"cannot listen on {self.grpc_address}: {error}"
                raise ServerStartError(reason) from error
        if self._options.grpc_socket_path is not None:
            address = f"unix:{self._options.grpc_socket_path}"
            try:
                self._bind(server, address)
            except RuntimeError as error:
                raise ServerStartError(f"cannot listen on {address}") from error

    def _bind(self, server: GrpcServer, address: str) -> int:
        tls = self._options.tls
        if tls is None:
            return server.bind(address, None)
        credentials = grpc.ssl_server_credentials(
            [(tls.server_key, tls.server_certificate)],
            root_certificates=tls.client_authorities(),
            require_client_auth=tls.client_verify,
        )
        return server.bind(address, credentials)


class _Reporter:
    """What one repository tells the server.

    Args:
        server: is told.
        name: of the model.
        base_path: of the model.
    """

    def __init__(self, server: ModelServer, name: str, base_path: Path) -> None:
        self._server = server
        self._name = name
        self._base_path = base_path

    def waiting(self) -> None:
        """There is no version yet."""
        self._server._announce(
            f"langzoo: no version of model {self._name} in {self._base_path} yet, "
            "waiting for one"
        )

    def unreadable(self, error: OSError) -> None:
        """The base path cannot be read."""
        reason = error.strerror or error
        self._server._announce(f"langzoo: cannot read {self._base_path}: {reason}")

    def changed(self, status: VersionStatus) -> None:
        """A version has come into another state."""
        self._server.changed(self._name, status)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises `ServerStartError` where that is impossible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # It sets SO_REUSEADDR, without which a port stays taken for a while after a
        # server has stopped, and not SO_REUSEPORT, with which two could share it.
        listener = socket.create_server((host, port), family=family)
        # Connections inherit it. Otherwise the body of an answer waits until the client
        # has acknowledged the head, which takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from error
        reason = f"cannot listen on {_address(host, port)}: {error.strerror}"
        raise ServerStartError(reason) from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
