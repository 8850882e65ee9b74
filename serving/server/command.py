"""The command line of the model server, with TensorFlow Serving's names of flags."""

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves a model until SIGTERM or SIGINT; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Before TensorFlow is imported, for seconds in which a signal may come.
    with _stop_signals() as signals:
        return _serve(options, signals)


def _serve(options: argparse.Namespace, signals: queue.SimpleQueue[int]) -> int:
    # TensorFlow calls a machine without a GPU an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # gRPC's own words on a port in use stand beside ours otherwise.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with _silent_stderr():
        from .app import ModelServer, ServerStartError

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    server = ModelServer(
        options.model_name,
        options.model_base_path,
        grpc_port=options.port,
        rest_port=options.rest_api_port,
        host=options.host,
        poll_seconds=options.file_system_poll_wait_seconds,
        threads=options.grpc_max_threads,
        announce=_print,
    )
    # What has been imported stays: without it, collecting what an old version leaves
    # takes milliseconds instead of a good part of a second, in which nothing runs.
    gc.freeze()
    try:
        server.start()
    except ServerStartError as error:
        print(f"langzoo: {error}", file=sys.stderr)
        return 1
    signals.get()
    server.stop()
    return 0


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m langzoo.serving.server",
        description="Serves the newest version of a model over gRPC and REST.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=8500, help="gRPC; 0 takes any")
    parser.add_argument(
        "--rest_api_port", type=int, help="REST; 0 takes any; without it REST is off"
    )
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--model_name", default="default")
    parser.add_argument(
        "--model_base_path", required=True, help="the folder of the version folders"
    )
    parser.add_argument(
        "--file_system_poll_wait_seconds",
        type=_not_negative,
        default=1.0,
        help="between two looks for a new version; 0 looks once",
    )
    parser.add_argument(
        "--grpc_max_threads", type=_positive, help="requests worked on at a time"
    )
    return parser


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
