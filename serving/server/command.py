"""The command line of the model server, with TensorFlow Serving's flags."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ... import __version__, importing
from ..wording import in_one_line, log_in_lines
from .base_path import Reload, refusal
from .flags import STOCK_FAILURE, build_parser, notices

if TYPE_CHECKING:
    from tensorflow.core.protobuf import config_pb2

    from .app import ModelServer, ServerOptions
    from .config_files import TlsConfig
    from .rest import RestOptions

# Beyond the grace for requests, for models to be unloaded.
_UNLOAD_SECONDS = 1.5
_PARENT_POLL_SECONDS = 0.5
# For the last lines to be printed.
_PRINT_SECONDS = 1.0


def run(*, stock: bool = False) -> NoReturn:
    """Is the process: does as `main`, and ends with its status.

    At once: a thread that computes what nobody waits for any more keeps nothing open.
    """
    status = main(stock=stock)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(status)


def main(arguments: Sequence[str] | None = None, *, stock: bool = False) -> int:
    """Serves models until SIGTERM or SIGINT; returns the exit status.

    Args:
        arguments: the flags; those of the process by default.
        stock: do as TensorFlow Serving where we differ: it listens on all addresses
            and lets itself be reconfigured, a port of 0 is none, not any, metrics are
            shown only where a file says so, and a model that does not load is an end.
    """
    name = "tensorflow_model_server" if stock else "python -m langzoo.serving.server"
    parser = build_parser(name, stock=stock)
    options = parser.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"TensorFlow ModelServer: langzoo {__version__}")
        print(f"TensorFlow Library: {version('tensorflow')}")
        return 0
    _check(parser, options, stock)
    # Before TensorFlow is imported, for seconds in which a signal may come.
    with _stop_signals() as signals:
        return _serve(options, stock, signals)


def _check(
    parser: argparse.ArgumentParser, options: argparse.Namespace, stock: bool
) -> None:
    """Refuses flags that contradict each other."""
    if not (options.model_base_path or options.model_config_file):
        parser.error("--model_base_path or --model_config_file is required")
    if trouble := refusal(options.model_base_path or ""):
        parser.error(f"--model_base_path: {trouble}")
    if stock and not (options.port or options.grpc_socket_path):
        parser.error("--port or --grpc_socket_path must be set")
    if options.use_alts_credentials:
        # Nobody who asks for it must be answered in the clear.
        parser.error("--use_alts_credentials: ALTS is not available, only TLS is")
    if options.batching_parameters_file and not options.enable_batching:
        parser.error("--batching_parameters_file needs --enable_batching")
    if (
        options.tensorflow_session_parallelism
        and options.tensorflow_intra_op_parallelism
        and options.tensorflow_inter_op_parallelism
    ):
        parser.error(
            "give --tensorflow_session_parallelism, or "
            "--tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism"
        )


def _serve(
    options: argparse.Namespace, stock: bool, signals: queue.SimpleQueue[int]
) -> int:
    # Before TensorFlow is imported, which has a way of its own otherwise.
    log_in_lines()
    # TensorFlow calls a machine without a GPU an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # gRPC's own words on a port in use stand beside ours otherwise.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # What has been imported stays: without it, collecting what an old version leaves
    # takes milliseconds instead of a good part of a second, in which nothing runs.
    with _silent_stderr(), importing():
        from . import app  # noqa: F401

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _Printer() as tell:
        for notice in notices(options):
            tell(f"langzoo: {notice}")
        return _run_server(options, stock, signals, tell)


def _run_server(
    options: argparse.Namespace,
    stock: bool,
    events: queue.SimpleQueue[Any],
    tell: Callable[[str], None],
) -> int:
    from .app import ServerStartError
    from .config_files import ConfigFileError

    failure = STOCK_FAILURE if stock else 1
    try:
        server_options = _server_options(options, stock)
        server = _server(options, stock, server_options, tell)
    except (ServerStartError, ConfigFileError) as error:
        return _fail(error, failure)
    if warning := _openness(options, stock, server_options.tls):
        tell(f"langzoo: {warning}")
    if options.parent_pid is not None:
        _start_thread(lambda: _await_end_of_parent(options.parent_pid, events))
    # Beside, so that a signal is heard while models load.
    _start_thread(lambda: _start(server, events))
    event = events.get()
    if isinstance(event, ServerStartError | ConfigFileError):
        return _fail(event, failure)
    if isinstance(event, BaseException):
        raise event
    return _stop(server, options.shutdown_grace_seconds, events)


def _fail(error: Exception, status: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(in_one_line(f"langzoo: {error}"), file=sys.stderr, flush=True)
    return status


def _start_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def _start(server: ModelServer, events: queue.SimpleQueue[Any]) -> None:
    try:
        server.start()
    except BaseException as error:
        events.put(error)


def _await_end_of_parent(parent: int, events: queue.SimpleQueue[Any]) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    events.put(signal.SIGTERM)


def _stop(server: ModelServer, grace: float, events: queue.SimpleQueue[Any]) -> int:
    """Ends within the grace, or at once when it is asked to for a second time."""

    def stop() -> None:
        server.stop(grace)
        events.put(None)

    _start_thread(stop)
    end = time.monotonic() + grace + _UNLOAD_SECONDS
    with contextlib.suppress(queue.Empty):
        while (left := end - time.monotonic()) > 0:
            event = events.get(timeout=left)
            if event is None:
                return 0
            if isinstance(event, int):
                signal.signal(event, signal.SIG_DFL)
                os.kill(os.getpid(), event)
    return 0


def _openness(
    options: argparse.Namespace, stock: bool, tls: TlsConfig | None
) -> str | None:
    """What to know of a server that others reach and nothing guards; None of others."""
    no_port = stock and not (options.port or options.rest_api_port)
    if no_port or _is_loopback(options.host):
        return None
    if tls is None or not tls.client_verify:
        reload = ""
        if options.config_reload == Reload.ANY.value:
            reload = ", and may have it load any model (--config_reload)"
        return (
            f"warning: whoever reaches {options.host} may ask this server{reload}: "
            "nothing says who may; --host and --ssl_config_file do"
        )
    if tls.client_ca is None:
        return (
            "warning: whoever has a certificate of one of this system's authorities "
            f"may ask this server; custom_ca in {options.ssl_config_file} names others"
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _server(
    options: argparse.Namespace,
    stock: bool,
    server_options: ServerOptions,
    announce: Callable[[str], None],
) -> ModelServer:
    from .app import ModelServer

    off = (0, None) if stock else (None,)
    return ModelServer(
        options.model_name,
        options.model_base_path or "",
        config_file=options.model_config_file,
        grpc_port=None if options.port in off else options.port,
        rest_port=None if options.rest_api_port in off else options.rest_api_port,
        host=options.host,
        poll_seconds=options.file_system_poll_wait_seconds,
        threads=options.grpc_max_threads,
        options=server_options,
        announce=announce,
    )


def _server_options(options: argparse.Namespace, stock: bool) -> ServerOptions:
    from .app import Opening, ServerOptions
    from .batching import BatchingParameters
    from .config_files import read_batching_parameters, read_tls_config
    from .repository import Retries

    batching = BatchingParameters() if options.enable_batching else None
    if options.batching_parameters_file:
        batching = read_batching_parameters(options.batching_parameters_file)
    tls_file = options.ssl_config_file
    warmups = max(1, options.num_request_iterations_for_warmup)
    interpreters = options.num_tflite_pools * options.num_tflite_interpreters_per_pool
    return ServerOptions(
        queue_size=options.queue_size,
        max_request_bytes=options.max_request_bytes,
        grpc_socket_path=options.grpc_socket_path,
        grpc_arguments=options.grpc_channel_arguments,
        tls=read_tls_config(tls_file) if tls_file else None,
        rest=_rest_options(options, stock),
        retries=Retries(
            options.max_num_load_retries, options.load_retry_interval_micros / 1e6
        ),
        labels_in_advance=options.allow_version_labels_for_unavailable_models,
        batching=batching,
        model_batching=options.enable_per_model_batching_parameters,
        warmup_iterations=warmups if options.enable_model_warmup else 0,
        tags=options.saved_model_tags,
        session=_session_config(options),
        outputs_as_content=options.enable_serialization_as_tensor_content,
        check_methods=options.enable_signature_method_name_check,
        tflite_interpreters=interpreters if options.prefer_tflite_model else 0,
        config_poll_seconds=options.model_config_file_poll_wait_seconds,
        reload=Reload(options.config_reload),
        opening=Opening.LOADED if stock else Opening.TRIED,
        profiler=_given(options.enable_profiler, stock),
    )


def _given(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def _rest_options(options: argparse.Namespace, stock: bool) -> RestOptions:
    from .config_files import read_metrics_path
    from .rest import METRICS_PATH, RestOptions

    metrics_path = None if stock else METRICS_PATH
    if options.monitoring_config_file:
        metrics_path = read_metrics_path(options.monitoring_config_file, METRICS_PATH)
    milliseconds = options.rest_api_timeout_in_ms
    return RestOptions(
        threads=options.rest_api_num_threads,
        timeout=milliseconds / 1000 if milliseconds > 0 else None,
        cors=options.rest_api_enable_cors_support,
        metrics_path=metrics_path,
    )


def _session_config(options: argparse.Namespace) -> config_pb2.ConfigProto:
    from tensorflow.core.protobuf import config_pb2

    from .config_files import read_session_config

    config = config_pb2.ConfigProto()
    if options.tensorflow_session_config_file:
        config = read_session_config(options.tensorflow_session_config_file)
    config.gpu_options.per_process_gpu_memory_fraction = (
        options.per_process_gpu_memory_fraction
    )
    both = options.tensorflow_session_parallelism
    intra = options.tensorflow_intra_op_parallelism or both
    inter = options.tensorflow_inter_op_parallelism or both
    if intra:
        config.intra_op_parallelism_threads = intra
    if inter:
        config.inter_op_parallelism_threads = inter
    return config


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drops what is written to standard error, from C++ too.

    While it is imported, TensorFlow logs before it reads its log level.
    """
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _stop_signals() -> Iterator[queue.SimpleQueue[int]]:
    """The signals that ask a process to stop, as they come."""
    # A SimpleQueue may be filled from a signal handler; an Event may not.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {
        number: signal.signal(number, lambda number, _: signals.put(number))
        for number in numbers
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Printer:
    """Prints lines from a thread of its own.

    Whoever reads them slowly, or no more, holds nobody up who has one to give.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._print, daemon=True)

    def __enter__(self) -> Callable[[str], None]:
        self._thread.start()
        return self._lines.put

    def __exit__(self, *error: object) -> None:
        self._lines.put(None)
        self._thread.join(_PRINT_SECONDS)

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError, ValueError):
                print(in_one_line(line), flush=True)
