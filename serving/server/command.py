"""The command line of the model server, with TensorFlow Serving's names of flags."""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves a model until SIGTERM or SIGINT; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Before the imports below, which take seconds in which a signal may come. A
    # SimpleQueue may be filled from a signal handler, an Event may not.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.put(number))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

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
    try:
        server.start()
    except ServerStartError as error:
        print(f"langzoo: {error}", file=sys.stderr)
        return 1
    signals.get()
    server.stop()
    return 0


def _print(line: str) -> None:
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
        "--grpc_max_threads", type=int, help="requests worked on at a time"
    )
    return parser


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value
