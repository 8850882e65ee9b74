"""The command line of the model server, with TensorFlow Serving's flags."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import queue
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ... import __version__
from .base_path import refusal
from .flags import build_parser, notices

if TYPE_CHECKING:
    from tensorflow.core.protobuf import config_pb2

    from .app import ModelServer
    from .rest import RestOptions


def main(arguments: Sequence[str] | None = None, *, stock: bool = False) -> int:
    """Serves models until SIGTERM or SIGINT; returns the exit status.

    Args:
        arguments: the flags; those of the process by default.
        stock: do as TensorFlow Serving where we differ: a port of 0 is none, not any,
            and metrics are shown only where a file says so.
    """
    name = "tensorflow_model_server" if stock else "python -m langzoo.serving.server"
    parser = build_parser(name)
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
    # TensorFlow calls a machine without a GPU an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # gRPC's own words on a port in use stand beside ours otherwise.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with _silent_stderr():
        from .app import ServerStartError
        from .config_files import ConfigFileError

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for notice in notices(options):
        _print(f"langzoo: {notice}")
    try:
        server = _server(options, stock)
        # What has been imported stays: without it, collecting what an old version
        # leaves takes milliseconds instead of a good part of a second, in which
        # nothing runs.
        gc.freeze()
        server.start()
    except (ServerStartError, ConfigFileError) as error:
        print(f"langzoo: {error}", file=sys.stderr)
        return 1
    signals.get()
    server.stop()
    return 0


def _server(options: argparse.Namespace, stock: bool) -> ModelServer:
    from .app import ModelServer, ServerOptions
    from .batching import BatchingParameters
    from .config_files import read_batching_parameters, read_tls_config
    from .repository import Retries

    batching = BatchingParameters() if options.enable_batching else None
    if options.batching_parameters_file:
        batching = read_batching_parameters(options.batching_parameters_file)
    warmups = max(1, options.num_request_iterations_for_warmup)
    interpreters = options.num_tflite_pools * options.num_tflite_interpreters_per_pool
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
        options=ServerOptions(
            queue_size=options.queue_size,
            grpc_socket_path=options.grpc_socket_path,
            grpc_arguments=options.grpc_channel_arguments,
            tls=options.ssl_config_file and read_tls_config(options.ssl_config_file),
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
            profiler=stock
            if options.enable_profiler is None
            else options.enable_profiler,
        ),
        announce=_print,
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


def _print(line: str) -> None:
    # Whoever read along may have gone; that is no reason to stop.
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)
