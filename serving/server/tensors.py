"""NumPy arrays from and to `TensorProto`, as TensorFlow Serving reads and fills it."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

# A TensorProto may give its last value once for all that follow. Beyond this many
# elements nobody means that; a request of a few bytes must not fill the memory.
_LARGEST_REPEATED = 1 << 24

_VALUE_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int16: "int_val",
    tf.int8: "int_val",
    tf.uint16: "int_val",
    tf.uint8: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
}


def dtype_name(dtype: tf.DType) -> str:
    """The name of a dtype in TensorFlow's own messages: `float`, not `float32`."""
    names = {tf.float32: "float", tf.float64: "double", tf.float16: "half"}
    return names.get(dtype, dtype.name)


def shape_of(array: np.ndarray) -> str:
    """An array's shape as those messages write it: `[2,3]`."""
    return f"[{','.join(map(str, array.shape))}]"


def array_from_proto(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array in a tensor message.

    Raises:
        ValueError: the message contradicts itself.
    """
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise ValueError("a tensor's shape must be known")
    try:
        if not proto.tensor_content:
            _check_repetition(proto, math.prod(sizes))
        elif proto.dtype == tf.string.as_datatype_enum:
            return _parse_in_graph(proto)
        return tf.make_ndarray(proto)
    except (TypeError, OverflowError) as error:  # no such dtype
        raise ValueError(str(error)) from error


def _parse_in_graph(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """For strings packed as content, which only TensorFlow itself can read."""
    try:
        return np.asarray(tf.io.parse_tensor(proto.SerializeToString(), tf.string))
    except tf.errors.OpError as error:
        raise ValueError(error.message) from error


def _check_repetition(proto: tensor_pb2.TensorProto, elements: int) -> None:
    field = _VALUE_FIELDS.get(tf.dtypes.as_dtype(proto.dtype))
    given = len(getattr(proto, field)) if field else 0
    if given < elements and elements > _LARGEST_REPEATED:
        raise ValueError(f"{given} values given for {elements} elements")


def array_to_proto(array: np.ndarray, dtype: tf.DType) -> tensor_pb2.TensorProto:
    """A message with one typed value for each element.

    TensorFlow Serving answers so by default, and clients read `float_val` directly.
    """
    field = _VALUE_FIELDS.get(dtype)
    if field is None:
        return tf.make_tensor_proto(array, dtype=dtype)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if field == "half_val":
        array = np.ascontiguousarray(array).view(np.uint16)
    getattr(proto, field).extend(array.ravel().tolist())
    return proto


def array_to_content_proto(
    array: np.ndarray, dtype: tf.DType
) -> tensor_pb2.TensorProto:
    """A message with the array's bytes, for `--enable_serialization_as_tensor_content`.

    Strings are packed as all their lengths, in groups of seven bits, and then they.
    """
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype == tf.string:
        strings = array.ravel().tolist()
        lengths = b"".join(_varint(len(text)) for text in strings)
        proto.tensor_content = lengths + b"".join(strings)
    else:
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
    return proto


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
