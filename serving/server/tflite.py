"""A version of a model that is run by TensorFlow Lite, from its `model.tflite`.

TensorFlow Serving prefers that file to `saved_model.pb` with `--prefer_tflite_model`.
"""

from __future__ import annotations

import queue
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers
from grpc import StatusCode
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated as schema

from ..errors import ServingError, invalid
from .caller import Caller
from .inference import PREDICT
from .servable import DEFAULT_SIGNATURE, Runner, Servable, Signature

TFLITE_FILE = "model.tflite"

_Arrays = Mapping[str, np.ndarray]
_Way = Callable[[Any, _Arrays], _Arrays]


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
        ServingError: it cannot be loaded.
    """
    pool: queue.SimpleQueue[Any] = queue.SimpleQueue()
    file = path / TFLITE_FILE
    try:
        for _ in range(interpreters):
            pool.put(_interpreter(file))
        interpreter = pool.get()
        pool.put(interpreter)
        ways = _ways(interpreter, file)
    except (ValueError, RuntimeError) as error:
        raise invalid(f"cannot load {file}: {error}") from error
    signatures = {
        name: Signature(definition, _Compute(pool, way), runner)
        for name, (definition, way) in ways.items()
    }
    definitions = {name: definition for name, (definition, _) in ways.items()}
    return Servable(version, definitions, signatures)


def _ways(
    interpreter: Any, file: Path
) -> dict[str, tuple[meta_graph_pb2.SignatureDef, _Way]]:
    """The signatures, and how each is run.

    As in TensorFlow Serving, files of before there were signatures have those of their
    metadata, or one of all that goes in and comes out.
    """
    ways = {}
    for name in interpreter.get_signature_list():
        definition = _definition(interpreter.get_signature_runner(name))
        ways[name] = definition, _by_signature(name)
    if ways:
        return ways
    inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
    outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
    known = _signatures_of_metadata(file.read_bytes())
    for definition in known.values():
        for infos, details in (
            (definition.inputs, inputs),
            (definition.outputs, outputs),
        ):
            for info in infos.values():
                info.name = _existing_name(info.name, details)
    if not known:
        whole = meta_graph_pb2.SignatureDef(method_name=PREDICT)
        _fill_infos(whole.inputs, inputs)
        _fill_infos(whole.outputs, outputs)
        known = {DEFAULT_SIGNATURE: whole}
    return {name: (one, _by_tensors(one)) for name, one in known.items()}


def _signatures_of_metadata(content: bytes) -> dict[str, meta_graph_pb2.SignatureDef]:
    model = schema.Model.GetRootAsModel(content, 0)
    signatures = {}
    for number in range(model.MetadataLength()):
        metadata = model.Metadata(number)
        if metadata.Name() == b"signature_defs_metadata":
            packed = model.Buffers(metadata.Buffer()).DataAsNumpy().tobytes()
            signature_map = flexbuffers.GetRoot(packed).AsMap
            for name, value in zip(
                signature_map.Keys, signature_map.Values, strict=True
            ):
                signatures[name.AsKey] = meta_graph_pb2.SignatureDef.FromString(
                    value.AsStringBytes
                )
    return signatures


def _existing_name(name: str, details: Mapping[str, Any]) -> str:
    """The name of a tensor, which once went without the number of the output."""
    for candidate in (name, name.partition(":")[0]):
        if candidate in details:
            return candidate
    raise ValueError(f"a signature has an unknown tensor: {name}")


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
        _fill_infos(infos, details)
    return definition


def _fill_infos(infos: Any, details: Mapping[str, Any]) -> None:
    for key, detail in details.items():
        info = infos[key.partition(":")[0]]
        info.name = detail["name"]
        info.dtype = tf.dtypes.as_dtype(detail["dtype"]).as_datatype_enum
        sizes = [int(size) for size in detail["shape_signature"]]
        shape = tf.TensorShape([None if size < 0 else size for size in sizes])
        info.tensor_shape.CopyFrom(shape.as_proto())


def _by_signature(name: str) -> _Way:
    return lambda interpreter, feeds: interpreter.get_signature_runner(name)(**feeds)


def _by_tensors(definition: meta_graph_pb2.SignatureDef) -> _Way:
    def run(interpreter: Any, feeds: _Arrays) -> _Arrays:
        inputs = {d["name"]: d for d in interpreter.get_input_details()}
        outputs = {d["name"]: d for d in interpreter.get_output_details()}
        places = {
            key: inputs[info.name]["index"] for key, info in definition.inputs.items()
        }
        for key, array in feeds.items():
            interpreter.resize_tensor_input(places[key], array.shape)
        interpreter.allocate_tensors()
        for key, array in feeds.items():
            interpreter.set_tensor(places[key], array)
        interpreter.invoke()
        return {
            key: interpreter.get_tensor(outputs[info.name]["index"])
            for key, info in definition.outputs.items()
        }

    return run


class _Compute:
    """Runs a signature in the next interpreter that is free."""

    def __init__(self, pool: queue.SimpleQueue[Any], way: _Way) -> None:
        self._pool = pool
        self._way = way

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
            outputs = self._way(interpreter, feeds)
        except (ValueError, RuntimeError) as error:
            raise invalid(str(error)) from error
        finally:
            self._pool.put(interpreter)
        return [outputs[name] for name in wanted]
