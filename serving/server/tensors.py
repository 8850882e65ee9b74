"""NumPy arrays from and to `TensorProto`, as TensorFlow Serving reads and fills it."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

# A TensorProto may give its last value once for all that follow. So many bytes may the
# tensors of a request become by that; one of a few bytes must not fill the memory.
LARGEST_EXPANSION = 16 << 20
# What a string takes in a tensor, beside its bytes.
_STRING_OVERHEAD = 24

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


def _kinds() -> dict[int, tuple[str | None, int, int]]:
    """Of each dtype, by number: its values' field, values an element, and its bytes."""
    fields: dict[tf.DType, tuple[str, int]] = {
        dtype: (field, 1) for dtype, field in _VALUE_FIELDS.items()
    }
    fields[tf.complex64] = ("scomplex_val", 2)
    fields[tf.complex128] = ("dcomplex_val", 2)
    kinds = {}
    for number in types_pb2.DataType.values():
        if number != types_pb2.DT_INVALID:
            dtype = tf.dtypes.as_dtype(number)
            kinds[number] = (*fields.get(dtype, (None, 1)), max(dtype.size, 1))
    return kinds


_KINDS = _kinds()
_STRING = types_pb2.DT_STRING


def dtype_name(dtype: tf.DType) -> str:
    """The name of a dtype in TensorFlow's own messages: `float`, not `float32`."""
    names = {tf.float32: "float", tf.float64: "double", tf.float16: "half"}
    return names.get(dtype, dtype.name)


def shape_of(array: np.ndarray) -> str:
    """An array's shape as those messages write it: `[2,3]`."""
    return f"[{','.join(map(str, array.shape))}]"


def check_expansion(proto: tensor_pb2.TensorProto, before: int = 0) -> int:
    """Holds what a tensor claims to be against what it brings, before it is made.

    Args:
        proto: the tensor.
        before: what this gave for the other tensors of the request.

    Returns:
        How many bytes it takes beyond those that it brings, and `before`.

    Raises:
        ValueError: they are more than `LARGEST_EXPANSION`, or its shape is none.
    """
    shape = proto.tensor_shape
    sizes = [dim.size for dim in shape.dim]
    if shape.unknown_rank or (sizes and min(sizes) < 0):
        raise ValueError("a tensor's shape must be known")
    # Of a tensor without elements a graph may still make one for each row.
    elements = math.prod(size or 1 for size in sizes)
    given, size = _brought(proto)
    expansion = before + max(0, elements - given) * size
    if expansion > LARGEST_EXPANSION:
        raise ValueError(f"{given} values given for {elements} elements")
    return expansion


def _brought(proto: tensor_pb2.TensorProto) -> tuple[int, int]:
    """The elements that a message has, and the bytes of one that it leaves out."""
    if proto.dtype not in _KINDS:
        raise ValueError(f"there is no dtype {proto.dtype}")
    field, width, size = _KINDS[proto.dtype]
    content = len(proto.tensor_content)
    if proto.dtype == _STRING:
        if content:
            # Each has a byte there at least, for its length.
            return content, _STRING_OVERHEAD
        values = proto.string_val
        given = len(values)
        return given, _STRING_OVERHEAD + (len(values[-1]) if given else 0)
    if content:
        return content // size, size
    return len(getattr(proto, field)) // width if field else 0, size


def array_from_proto(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array in a tensor message, whose shape has been checked.

    Raises:
        ValueError: the message contradicts itself.
    """
    try:
        if proto.tensor_content and proto.dtype == _STRING:
            return _parse_in_graph(proto)
        return tf.make_ndarray(proto)
    except (KeyError, TypeError, OverflowError) as error:  # no such dtype
        raise ValueError(str(error)) from error


def _parse_in_graph(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """For strings packed as content, which only TensorFlow itself can read."""
    try:
        return np.asarray(tf.io.parse_tensor(proto.SerializeToString(), tf.string))
    except tf.errors.OpError as error:
        raise ValueError(error.message) from error


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
