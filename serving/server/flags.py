"""The flags of TensorFlow Serving's `main.cc`, and a few of our own.

Nothing here imports TensorFlow, so that the command line answers at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .base_path import Reload
from .limits import LARGEST_REQUEST, QUEUE_SIZE

STOCK_FAILURE = 255
"""As TensorFlow Serving ends where it cannot serve."""

# Accepted, because scripts give them, and of no effect here.
WITHOUT_EFFECT = (
    "num_load_threads",
    "num_unload_threads",
    "flush_filesystem_caches",
    "platform_config_file",
    "remove_unused_fields_from_bundle_metagraph",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
    "thread_pool_factory_config_file",
    "mixed_precision",
    "skip_initialize_tpu",
)


class _StockParser(argparse.ArgumentParser):
    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status and STOCK_FAILURE, message)


def build_parser(prog: str, *, stock: bool = False) -> argparse.ArgumentParser:
    """The parser of the model server's command line; what it does not know, it refuses.

    Args:
        prog: how the command is called.
        stock: let the server be as open by default as TensorFlow Serving's is.
    """
    kind_of_parser = _StockParser if stock else argparse.ArgumentParser
    parser = kind_of_parser(
        prog=prog,
        description="Serves models over gRPC and REST, as TensorFlow Serving does.",
        allow_abbrev=False,
    )
    for name, kind, default, text in _FLAGS:
        options: dict[str, Any] = {"type": kind, "default": default, "help": text}
        if kind is boolean:
            options.update(nargs="?", const=True)
        parser.add_argument(f"--{name}", **options)
    for name in WITHOUT_EFFECT:
        parser.add_argument(f"--{name}", nargs="?", const="", help="has no effect here")
    for name, kind, default, text in _OWN_FLAGS:
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    parser.add_argument(
        "--host",
        default="0.0.0.0" if stock else "127.0.0.1",
        help="address to listen on; 0.0.0.0 is for other machines, too",
    )
    parser.add_argument(
        "--config_reload",
        choices=[choice.value for choice in Reload],
        default=(Reload.ANY if stock else Reload.CONFINED).value,
        help="what HandleReloadConfigRequest may do: nothing; take no model away, and "
        "add those of the base paths given at the start; or all",
    )
    return parser


def notices(options: argparse.Namespace) -> Iterator[str]:
    """A line for each flag that was given and has no effect."""
    for name in WITHOUT_EFFECT:
        if getattr(options, name) is not None:
            yield f"--{name} has no effect here"


def boolean(text: str) -> bool:
    """true or false, as TensorFlow reads its flags."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return values[text.lower()]


def seconds(text: str) -> float:
    """A number of seconds that is not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def positive(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def not_negative_integer(text: str) -> int:
    """A whole number, zero or above."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def channel_arguments(text: str) -> tuple[tuple[str, str | int], ...]:
    """gRPC's channel arguments, from `key=value,key=value`; numbers as numbers."""
    arguments: list[tuple[str, str | int]] = []
    for pair in filter(None, text.split(",")):
        key, separator, value = pair.partition("=")
        if not (key and separator):
            raise argparse.ArgumentTypeError(f"{pair} is not of the form key=value")
        number = value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()
        arguments.append((key, int(value) if number else value))
    return tuple(arguments)


def _tags(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


_Flag = tuple[str, Callable[[str], Any], Any, str]
_FLAGS: tuple[_Flag, ...] = (
    ("port", int, 8500, "gRPC"),
    ("grpc_socket_path", str, None, "Unix socket for gRPC"),
    ("rest_api_port", int, None, "REST; without it REST is off"),
    ("rest_api_num_threads", positive, None, "REST requests worked on at a time"),
    ("rest_api_timeout_in_ms", int, 30000, "for a REST request; 0 is for ever"),
    ("rest_api_enable_cors_support", boolean, False, "let other origins read answers"),
    ("enable_batching", boolean, False, "join requests into batches"),
    ("allow_version_labels_for_unavailable_models", boolean, False, "for new labels"),
    ("batching_parameters_file", str, None, "BatchingParameters as text"),
    (
        "enable_per_model_batching_parameters",
        boolean,
        False,
        "batches as the batching_params.pbtxt of each version says",
    ),
    ("model_config_file", str, None, "ModelServerConfig as text, for several models"),
    ("model_config_file_poll_wait_seconds", seconds, 0.0, "0 reads it once"),
    ("model_name", str, "default", "name that requests call the model by"),
    ("model_base_path", str, None, "the folder of the version folders"),
    ("max_num_load_retries", not_negative_integer, 5, "after a failed load"),
    ("load_retry_interval_micros", int, 60_000_000, "between two tries"),
    (
        "file_system_poll_wait_seconds",
        seconds,
        1.0,
        "between two looks for a new version; 0 looks once",
    ),
    ("tensorflow_session_parallelism", not_negative_integer, 0, "threads; 0: auto"),
    ("tensorflow_intra_op_parallelism", not_negative_integer, 0, "within an operation"),
    ("tensorflow_inter_op_parallelism", not_negative_integer, 0, "operations at once"),
    ("tensorflow_session_config_file", str, None, "ConfigProto as text"),
    ("use_alts_credentials", boolean, False, "refused: only TLS is available"),
    ("ssl_config_file", str, None, "SSLConfig as text, for TLS"),
    ("per_process_gpu_memory_fraction", float, 0.0, "0 is as much as is needed"),
    ("saved_model_tags", _tags, ("serve",), "of the graph to load"),
    ("grpc_channel_arguments", channel_arguments, (), "key=value,key=value"),
    (
        "grpc_max_threads",
        positive,
        4 * (os.cpu_count() or 1),
        "gRPC requests worked on at a time",
    ),
    ("enable_model_warmup", boolean, True, "replay the warm-up requests of a version"),
    ("num_request_iterations_for_warmup", int, 0, "how often, if above 0"),
    ("prefer_tflite_model", boolean, False, "take model.tflite where there is one"),
    ("num_tflite_pools", positive, os.cpu_count() or 1, "pools of interpreters"),
    ("num_tflite_interpreters_per_pool", positive, 1, "interpreters in each"),
    ("enable_signature_method_name_check", boolean, False, "as in TensorFlow 1"),
    ("version", boolean, False, "print the version and end"),
    ("monitoring_config_file", str, None, "MonitoringConfig as text"),
    (
        "enable_profiler",
        boolean,
        None,
        "let clients profile; the stock command's default",
    ),
    ("enable_grpc_healthcheck_service", boolean, True, "always on here"),
    (
        "enable_serialization_as_tensor_content",
        boolean,
        False,
        "pack outputs of Predict as bytes",
    ),
)
_OWN_FLAGS: tuple[_Flag, ...] = (
    (
        "queue_size",
        not_negative_integer,
        QUEUE_SIZE,
        "requests that may wait; more are refused with RESOURCE_EXHAUSTED",
    ),
    ("max_request_bytes", positive, LARGEST_REQUEST, "larger requests are refused"),
    ("shutdown_grace_seconds", seconds, 5.0, "for requests, after SIGTERM"),
    ("parent_pid", positive, None, "end when this process does, whose child this is"),
)
