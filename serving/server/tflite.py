"""A version of a model that is run by TensorFlow Lite, from its `model.tflite`.

TensorFlow Serving prefers that file to `saved_model.pb` with `--prefer_tflite_model`.
"""

from __future__ import annotations

import queue
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf import meta_graph_pb2

from ..errors import ServingError, invalid
from .caller import Caller
from .inference import PREDICT
from .servable import Runner, Servable, Signature

TFLITE_FILE = "model.tflite"


def load_tflite(
    version: int, path: Path, *, interpreters: int, runner: Runner
) -> Servable:
    """Loads the `model.tflite` in a folder.

    Args:
        version: its number.
        path: the folder.
        interpreters: requests that are computed at a time.
        runner: runs its signatures.

    Raises:
        ServingError: it cannot be loaded, or has no signatures.
    """
    pool: queue.SimpleQueue[Any] = queue.SimpleQueue()
    try:
        for _ in range(interpreters):
            pool.put(_interpreter(path / TFLITE_FILE))
        interpreter = pool.get()
        pool.put(interpreter)
        definitions = {
            name: _definition(interpreter.get_signature_runner(name))
            for name in interpreter.get_signature_list()
        }
    except (ValueError, RuntimeError) as error:
        raise invalid(f"cannot load {path / TFLITE_FILE}: {error}") from error
    if not definitions:
        raise invalid(f"{path / TFLITE_FILE} has no signatures")
    signatures = {
        name: Signature(definition, _Compute(pool, name), runner)
        for name, definition in definitions.items()
    }
    return Servable(version, definitions, signatures)


def _interpreter(path: Path) -> Any:
    with warnings.catch_warnings():
        # It names another package, which is to take this one's place one day.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _definition(runner: Any) -> meta_graph_pb2.SignatureDef:
    definition = meta_graph_pb2.SignatureDef(method_name=PREDICT)
    for infos, details in (
        (definition.inputs, runner.get_input_details()),
        (definition.outputs, runner.get_output_details()),
    ):
        for key, detail in details.items():
            infos[key].name = detail["name"]
            infos[key].dtype = tf.dtypes.as_dtype(detail["dtype"]).as_datatype_enum
            sizes = [int(size) for size in detail["shape_signature"]]
            shape = tf.TensorShape([None if size < 0 else size for size in sizes])
            infos[key].tensor_shape.CopyFrom(shape.as_proto())
    return definition


class _Compute:
    """Runs a signature in the next interpreter that is free."""

    def __init__(self, pool: queue.SimpleQueue[Any], name: str) -> None:
        self._pool = pool
        self._name = name

    def __call__(
        self,
        feeds: Mapping[str, np.ndarray],
        wanted: Sequence[str],
        caller: Caller,
    ) -> Sequence[Any]:
        try:
            interpreter = self._pool.get(timeout=caller.time_left())
        except queue.Empty:
            raise ServingError(
                StatusCode.DEADLINE_EXCEEDED, "no interpreter was free in time"
            ) from None
        try:
            outputs = interpreter.get_signature_runner(self._name)(**feeds)
        except (ValueError, RuntimeError) as error:
            raise invalid(str(error)) from error
        finally:
            self._pool.put(interpreter)
        return [outputs[name] for name in wanted]
