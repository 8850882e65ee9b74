"""The messages of TensorFlow Serving's protocol that the client needs.

`tensorflow-serving-api` has them all, but importing it imports TensorFlow: six seconds
before a question of a millisecond. What goes over the wire is fixed by the numbers and
types of the fields, so the few that the client needs are declared here, in a pool of
their own; a test holds them against those of `tensorflow-serving-api`. Enumerations
are declared as the integers that they are on the wire.
"""

from __future__ import annotations

import array
import enum
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto

# Fields by message: name, number, type, "*" where it is repeated. A type with a
# capital letter is a message; "map" stands for a map from strings to messages.
_MESSAGES = {
    "TensorShape.Dim": "size 1 int64",
    "TensorShape": "dim 2 TensorShape.Dim*, unknown_rank 3 bool",
    "Tensor": """dtype 1 int32, tensor_shape 2 TensorShape, tensor_content 4 bytes,
        float_val 5 float*, double_val 6 double*, int_val 7 int32*, string_val 8 bytes*,
        int64_val 10 int64*, bool_val 11 bool*""",
    "TensorInfo": "name 1 string, dtype 2 int32, tensor_shape 3 TensorShape",
    "SignatureDef": """inputs 1 map TensorInfo, outputs 2 map TensorInfo,
        defaults 4 map Tensor""",
    "SignatureDefMap": "signature_def 1 map SignatureDef",
    "Int64Value": "value 1 int64",
    "Any": "type_url 1 string, value 2 bytes",
    "ModelSpec": "name 1 string, version 2 Int64Value, signature_name 3 string",
    "PredictRequest": "model_spec 1 ModelSpec, inputs 2 map Tensor",
    "PredictResponse": "outputs 1 map Tensor, model_spec 2 ModelSpec",
    "GetModelMetadataRequest": "model_spec 1 ModelSpec, metadata_field 2 string*",
    "GetModelMetadataResponse": "model_spec 1 ModelSpec, metadata 2 map Any",
    "Status": "error_code 1 int32, error_message 2 string",
    "ModelVersionStatus": "version 1 int64, state 2 int32, status 3 Status",
    "GetModelStatusRequest": "model_spec 1 ModelSpec",
    "GetModelStatusResponse": "model_version_status 1 ModelVersionStatus*",
}


def build_messages(name: str, messages: Mapping[str, str]) -> dict[str, Any]:
    """Message classes by name, from a description of their fields.

    Args:
        name: of the file that they would stand in.
        messages: the fields of each: name, number, type, separated by commas, as in
            this module's own description.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"langzoo/{name}.proto", package="langzoo", syntax="proto3"
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name.replace(".", ""))
        for field in fields.split(","):
            _add_field(message, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"langzoo.{name.replace('.', '')}")
        )
        for name in messages
    }


def _add_field(
    message: descriptor_pb2.DescriptorProto, name: str, number: str, *kind: str
) -> None:
    field = message.field.add(name=name, number=int(number))
    repeated = kind[0] == "map" or kind[0].endswith("*")
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind[0] == "map":
        # A map is, on the wire and to a descriptor, a list of pairs.
        pair = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=pair)
        entry.options.map_entry = True
        _add_field(entry, "key", "1", "string")
        _add_field(entry, "value", "2", kind[1])
        _set_type(field, f"{message.name}.{pair}")
    else:
        _set_type(field, kind[0].rstrip("*"))


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind[0].isupper():
        field.type = _Field.TYPE_MESSAGE
        inner = kind if kind.endswith("Entry") else kind.replace(".", "")
        field.type_name = f".langzoo.{inner}"
    else:
        field.type = _Field.Type.Value(f"TYPE_{kind.upper()}")


MESSAGES = build_messages("serving", _MESSAGES)
# With numbers in the bytes in which they are packed: millions of them, read at once,
# would keep every other thread of Python's waiting.
_PACKED = build_messages(
    "packed",
    {
        name: re.sub(r"\b(float|double|int32|int64|bool)\*", "bytes*", fields)
        for name, fields in _MESSAGES.items()
    },
)
PackedPredictResponse = _PACKED["PredictResponse"]
Tensor = MESSAGES["Tensor"]
SignatureDefMap = MESSAGES["SignatureDefMap"]
ModelSpec = MESSAGES["ModelSpec"]
PredictRequest = MESSAGES["PredictRequest"]
GetModelMetadataRequest = MESSAGES["GetModelMetadataRequest"]
GetModelMetadataResponse = MESSAGES["GetModelMetadataResponse"]
GetModelStatusRequest = MESSAGES["GetModelStatusRequest"]
GetModelStatusResponse = MESSAGES["GetModelStatusResponse"]


class DType(enum.IntEnum):
    """The dtypes of tensors that the client sends, reads or names."""

    FLOAT32 = 1
    FLOAT64 = 2
    INT32 = 3
    UINT8 = 4
    INT16 = 5
    INT8 = 6
    STRING = 7
    INT64 = 9
    BOOL = 10


class State(enum.IntEnum):
    """Where a version of a model is in its life."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


_FIXED = ("f", "d")  # of as many bytes each
# For each dtype the field of its values, and the type code of `array` for its bytes.
_STORAGE = {
    DType.FLOAT32: ("float_val", "f"),
    DType.FLOAT64: ("double_val", "d"),
    DType.INT32: ("int_val", "i"),
    DType.INT64: ("int64_val", "q"),
    DType.BOOL: ("bool_val", ""),
    DType.STRING: ("string_val", ""),
}
_SLICE = 1 << 16


def tensor(dtype: DType, rows: Sequence[Any]) -> Any:
    """A tensor message of rank 1, or of rank 2 where the rows are lists."""
    message = Tensor(dtype=dtype)
    message.tensor_shape.dim.add(size=len(rows))
    values = rows
    if rows and isinstance(rows[0], list):
        message.tensor_shape.dim.add(size=len(rows[0]))
        values = [value for row in rows for value in row]
    getattr(message, _STORAGE[dtype][0]).extend(values)
    return message


def nested_list(tensor: Any) -> Any:
    """The values of a tensor message as nested lists; strings are bytes.

    Those of a packed message are the same, with arrays in place of innermost lists of
    numbers.

    Raises:
        ValueError: the message contradicts itself, or its dtype is not one of these.
    """
    if tensor.dtype not in _STORAGE:
        raise ValueError(f"no tensor of dtype {tensor.dtype} was expected")
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    values = _flat(tensor, math.prod(sizes))
    if len(sizes) < 2:
        values = list(values)
    if math.prod(sizes) != len(values):
        raise ValueError(f"{len(values)} values do not make a tensor of shape {sizes}")
    return _nest(values, sizes)


def _nest(values: Any, sizes: list[int]) -> Any:
    if not sizes:
        return values[0]
    if len(sizes) == 1:
        return values
    step = math.prod(sizes[1:])
    return [
        _nest(values[i * step : (i + 1) * step], sizes[1:]) for i in range(sizes[0])
    ]


def _flat(tensor: Any, count: int) -> Any:
    field, code = _STORAGE[DType(tensor.dtype)]
    content, values = tensor.tensor_content, getattr(tensor, field)
    if content and tensor.dtype == DType.STRING:
        return _decode_strings(content, count)
    if content and tensor.dtype == DType.BOOL:
        return [byte != 0 for byte in content]
    if content:
        numbers = array.array(code, content)
        return numbers.tolist() if isinstance(tensor, Tensor) else numbers
    if isinstance(tensor, Tensor) or tensor.dtype == DType.STRING:
        return list(itertools.chain.from_iterable(slices(values)))
    return _unpacked(field, code, values)


def _unpacked(field: str, code: str, packed: Sequence[bytes]) -> Any:
    """The numbers of a packed field, some at a time where each must be looked at."""
    values: Any = array.array(code) if code else []
    for data in packed:
        if code in _FIXED:
            values.frombytes(data)
            continue
        start = 0
        while start < len(data):
            end = min(start + _SLICE, len(data))
            while end < len(data) and data[end - 1] & 128:
                end += 1
            some = _PACKED["Tensor"](**{field: [data[start:end]]})
            typed = Tensor.FromString(some.SerializeToString())
            values.extend(getattr(typed, field))
            start = end
    return values


def slices(values: Sequence[Any]) -> Iterator[Any]:
    """Long values some at a time: what copies them holds Python's lock meanwhile."""
    return (values[at : at + _SLICE] for at in range(0, len(values), _SLICE))


def _decode_strings(content: bytes, count: int) -> list[bytes]:
    """Strings as a server with `--enable_serialization_as_tensor_content` packs them.

    All their lengths come first, in groups of seven bits from the lowest, then they.
    """
    lengths, start = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if start >= len(content):
                raise ValueError("a tensor of strings ends too early")
            byte, start = content[start], start + 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(length)
    strings = []
    for length in lengths:
        strings.append(content[start : start + length])
        start += length
    if start != len(content):
        raise ValueError("a tensor of strings has not the length that it says")
    return strings
