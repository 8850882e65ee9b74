"""Exports for tests that ask what they export; what a check calls is not called twice.

That of every kind of family and tokenizer keeps its checks, the tests of
serving/export and of the pipelines show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langzoo.serving.export import checks, saved_model
from langzoo.serving.export.signatures import Signatures
from langzoo.serving.server.app import ModelServer, ServerOptions
from tensorflow.core.protobuf import config_pb2

# Before a graph's first run TensorFlow rewrites it, which takes a second a signature.
AS_IT_IS = config_pb2.ConfigProto()
AS_IT_IS.graph_options.rewrite_options.disable_meta_optimizer = True


# What a pipeline asks of a model.
_ASKED = ("evaluate", "serving_default", "score", "generate")


@contextlib.contextmanager
def exports(only: Sequence[str] = ()) -> Iterator[pytest.MonkeyPatch]:
    """Within it exports are made without a call of each signature, or of some only.

    Of a task that has others it is all of its own.
    """
    with pytest.MonkeyPatch.context() as patch, some(only):
        patch.setattr(saved_model, "check_export", checks.check_ops)
        yield patch


@contextlib.contextmanager
def some(only: Sequence[str]) -> Iterator[None]:
    """Within it exports have these signatures alone, where their task has them all."""
    save = saved_model._save

    def save_some(model: Any, served: Signatures, directory: str) -> None:
        if only and {*only} <= {*served.functions}:
            functions = {name: served.functions[name] for name in only}
            served = served._replace(functions=functions)
        save(model, served, directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "_save", save_some)
        yield


@contextlib.contextmanager
def server(base_path: Any, **options: Any) -> Iterator[ModelServer]:
    """A server of the model `langzoo` in this process, which has loaded it."""
    options = {"grpc_port": 0, "rest_port": 0, "host": "127.0.0.1", **options}
    as_it_is = ServerOptions(session=AS_IT_IS)
    with ModelServer("langzoo", base_path, options=as_it_is, **options) as running:
        assert running.wait_ready(180)
        yield running


@contextlib.contextmanager
def served_here(base_path: str) -> Iterator[str]:
    """What `running_server` is, without a process that imports TensorFlow again."""
    with server(base_path, rest_port=None) as running:
        yield running.grpc_address


@contextlib.contextmanager
def pipelines() -> Iterator[None]:
    """Within it pipelines export what they ask for themselves, and miss no more.

    They serve it in their own process.
    """
    from langzoo.components.evaluator import judging
    from langzoo.components.serving_validator import executor as serving_validator

    with exports(_ASKED) as patch:
        patch.setattr(judging, "missing_signatures", lambda path, task: [])
        patch.setattr(serving_validator, "running_server", served_here)
        yield


def export(
    model: Any, directory: Any, only: Sequence[str] = (), **options: Any
) -> None:
    """Exports as `export_causal_lm`, without a call of each signature, or some only."""
    with exports(only):
        saved_model.export_causal_lm(model, directory, **options)
