"""NumPy arrays from and to the JSON of TensorFlow Serving's predict API.

Rows (`instances`, answered by `predictions`) and columns (`inputs`, answered by
`outputs`); see https://www.tensorflow.org/tfx/serving/api_rest. Error messages are
those of TensorFlow Serving's `util/json_tensor.cc`.
"""

from __future__ import annotations

import base64
import binascii
import enum
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from ..errors import ServingError, invalid
from .tensors import dtype_name, shape_of

_LONGEST_QUOTE = 256
_BYTE_ORDER_MARK = "\ufeff"
# Of lines, and between them, in base64.
_WHITESPACE = str.maketrans("", "", " \t\n\v\f\r")
_HIGHEST_RANK = 64  # of a NumPy array


_ENCODER = json.JSONEncoder(ensure_ascii=False)


class Layout(enum.Enum):
    """The two ways in which tensors are written; the values are the keys to them."""

    ROWS = "instances"
    COLUMNS = "inputs"


@dataclass(frozen=True)
class JsonRequest:
    """A predict request whose tensors are still JSON.

    They wait until the model is found, whose signature says how to read them.
    """

    signature_name: str
    document: dict[str, Any]


def parse_request(body: bytes) -> JsonRequest:
    """Reads the body of a predict request.

    Raises:
        ServingError: INVALID_ARGUMENT, if it is not one.
    """
    document = _parse_object(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quote(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return JsonRequest(name, document)


def _parse_object(body: bytes) -> dict[str, Any]:
    # Bytes that are not UTF-8 reach the model as they are.
    text = body.decode("utf-8", "surrogateescape").removeprefix(_BYTE_ORDER_MARK)
    text = text.lstrip(" \t\r\n")
    if not text:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        raise invalid(
            f"JSON Parse error: {error.msg} at offset: {error.pos}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {quote(document)} Is not object")
    return document


def arrays_from_json(
    request: JsonRequest, dtypes: Mapping[str, tf.DType]
) -> tuple[Layout, dict[str, np.ndarray]]:
    """The layout and the arrays of a request.

    Every input must be there: TensorFlow Serving applies a signature's defaults to
    gRPC requests only.

    Args:
        request: the request.
        dtypes: of the inputs of the signature that is called.

    Raises:
        ServingError: INVALID_ARGUMENT, if the JSON does not fit.
    """
    if not dtypes:
        name = request.signature_name or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    layout = _layout(request.document)
    parse = _parse_rows if layout is Layout.ROWS else _parse_columns
    return layout, parse(request.document[layout.value], dtypes)


def _layout(document: dict[str, Any]) -> Layout:
    given = [layout for layout in Layout if layout.value in document]
    if not given:
        raise invalid("Missing 'inputs' or 'instances' key")
    problem = None
    if len(given) > 1:
        problem = (
            "Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    elif given == [Layout.ROWS] and not isinstance(document["instances"], list):
        problem = "Expecting 'instances' to be an list/array"
    elif given == [Layout.ROWS] and not document["instances"]:
        problem = "No values in 'instances' array"
    if problem:
        raise invalid(f"JSON Value: {quote(document)} {problem}")
    return given[0]


def _parse_columns(tensors: Any, dtypes: Mapping[str, tf.DType]) -> dict[str, Any]:
    if not _is_named(tensors):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        name, dtype = next(iter(dtypes.items()))
        return {name: _parse_tensor(tensors, dtype)}
    for name in dtypes:
        if name not in tensors:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _parse_tensor(tensors[name], dtypes[name]) for name in dtypes}


def _parse_rows(rows: list[Any], dtypes: Mapping[str, tf.DType]) -> dict[str, Any]:
    if not isinstance(rows[0], dict) and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    named = _is_named(rows[0])
    columns: dict[str, list[np.ndarray]] = {name: [] for name in dtypes}
    for index, row in enumerate(rows):
        if _is_named(row) != named:
            wanted, got = ("object", "list") if named else ("value/list", "object")
            raise invalid(
                f"Expecting {wanted} but got {got} at item {index} of input list"
            )
        values = row if named else {next(iter(dtypes)): row}
        for name, value in values.items():
            _add_cell(columns, name, value, dtypes, index, named)
        if set(values) != set(dtypes):
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{quote(row)} keys must be equal to: {','.join(sorted(dtypes))}"
            )
    return {name: np.stack(cells) for name, cells in columns.items()}


def _add_cell(
    columns: dict[str, list[np.ndarray]],
    name: str,
    value: Any,
    dtypes: Mapping[str, tf.DType],
    index: int,
    named: bool,
) -> None:
    try:
        if name not in dtypes:
            raise invalid(f"JSON object: does not have named input: {name}")
        cell = _parse_tensor(value, dtypes[name])
        first = columns[name][0] if columns[name] else cell
        if cell.size != first.size:
            raise invalid(f"Expecting tensor size: {first.size} but got: {cell.size}")
        if cell.shape != first.shape:
            raise invalid(
                f"Expecting shape {shape_of(first)} but got: {shape_of(cell)}"
            )
    except ServingError as error:
        key = f" key: {name}" if named else ""
        raise invalid(
            f"Failed to process element: {index}{key} of 'instances' list. "
            f"Error: {error.code.name}: {error.message}"
        ) from error
    columns[name].append(cell)


def _parse_tensor(value: Any, dtype: tf.DType) -> np.ndarray:
    """A nested list, or a scalar, as an array; the first elements give its shape."""
    sizes = []
    element = value
    while isinstance(element, list):
        sizes.append(len(element))
        if not element:
            break
        element = element[0]
    if len(sizes) > _HIGHEST_RANK:
        raise invalid(f"JSON list nested deeper than {_HIGHEST_RANK} levels")
    leaves: list[Any] = []
    _collect_leaves(value, sizes, 0, _leaf_parser(dtype), leaves)
    array = np.empty(len(leaves), dtype=_wide_dtype(dtype))
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, as in C++
            array[:] = leaves
    except OverflowError as error:
        raise invalid(
            "JSON Parse error: Number too big to be stored in double."
        ) from error
    return array.astype(dtype.as_numpy_dtype, copy=False).reshape(sizes)


def _collect_leaves(
    value: Any,
    sizes: list[int],
    level: int,
    parse: Callable[[Any], Any],
    leaves: list[Any],
) -> None:
    if not isinstance(value, list):
        if level != len(sizes):
            raise invalid(
                f"JSON Value: {quote(value)} found at incorrect level: {level + 1} "
                f"in the JSON DOM. Expected at level: {len(sizes)}"
            )
        leaves.append(parse(value))
        return
    if level >= len(sizes):
        raise invalid(
            f"Encountered list at unexpected level: {level} expected < {len(sizes)}"
        )
    if len(value) != sizes[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {sizes[level]}"
        )
    for element in value:
        _collect_leaves(element, sizes, level + 1, parse, leaves)


# The smaller integers are read as int32 and cut down, as TensorFlow Serving does.
_INTEGER_RANGES = {
    tf.int64: (-(2**63), 2**63),
    tf.uint32: (0, 2**32),
    tf.uint64: (0, 2**64),
    tf.int32: (-(2**31), 2**31),
    tf.int16: (-(2**31), 2**31),
    tf.int8: (-(2**31), 2**31),
    tf.uint8: (-(2**31), 2**31),
}


def _wide_dtype(dtype: tf.DType) -> Any:
    if dtype in (tf.int16, tf.int8, tf.uint8):
        return np.int32
    return dtype.as_numpy_dtype


def _leaf_parser(dtype: tf.DType) -> Callable[[Any], Any]:
    """What turns a JSON value into an element of this dtype, or refuses it."""
    integers = _INTEGER_RANGES.get(dtype)

    def parse(value: Any) -> Any:
        if dtype in (tf.float32, tf.float64):
            fits = type(value) in (int, float)
        elif integers is not None:
            fits = type(value) is int and integers[0] <= value < integers[1]
        elif dtype == tf.bool:
            fits = type(value) is bool
        elif dtype == tf.string:
            if isinstance(value, dict):
                return decode_base64(value)
            fits = isinstance(value, str)
        else:
            raise ServingError(
                StatusCode.UNIMPLEMENTED,
                f"Conversion of JSON Value: {quote(value)} to type: "
                f"{dtype_name(dtype)}",
            )
        if not fits:
            raise invalid(
                f"JSON Value: {quote(value)} Type: {type_name(value)} is not of "
                f"expected type: {dtype_name(dtype)}"
            )
        return encode_text(value) if dtype == tf.string else value

    return parse


def encode_text(text: str) -> bytes:
    """The bytes of a string in a request, as they were sent."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise invalid(
            "JSON Parse error: The surrogate pair in string is invalid."
        ) from error


def decode_base64(value: dict[str, Any]) -> bytes:
    """The bytes of `{"b64": "..."}`."""
    if not is_base64(value):
        raise invalid(
            f"JSON Value: {quote(value)} not formatted correctly for base64 data"
        )
    given = value["b64"].translate(_WHITESPACE)
    text = given.rstrip("=.")  # Abseil takes either to fill up
    missing = -len(text) % 4
    try:
        if len(given) - len(text) not in (0, missing):
            raise ValueError("filled up to no multiple of four")
        return base64.b64decode(text + "=" * missing, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def is_base64(value: Any) -> bool:
    """Whether a JSON value is `{"b64": "..."}`."""
    return (
        isinstance(value, dict)
        and len(value) == 1
        and isinstance(value.get("b64"), str)
    )


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def response_body(outputs: Mapping[str, np.ndarray], layout: Layout) -> bytes:
    """The answer to a predict request, in the layout in which it was asked.

    Raises:
        ServingError: INVALID_ARGUMENT, if the outputs do not form rows.
    """
    if layout is Layout.ROWS:
        _check_rows(outputs)
    columns = {name: _values(name, array) for name, array in outputs.items()}
    answer: Any = columns
    if len(columns) == 1:
        answer = next(iter(columns.values()))
    elif layout is Layout.ROWS:
        rows = zip(*columns.values(), strict=True)
        answer = [dict(zip(columns, row, strict=True)) for row in rows]
    key = "predictions" if layout is Layout.ROWS else "outputs"
    text = json.dumps({key: answer}, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def _check_rows(outputs: Mapping[str, np.ndarray]) -> None:
    batch_size = None
    for name, array in outputs.items():
        if not array.shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch_size not in (None, array.shape[0]):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} "
                f"expecting: {batch_size}"
            )
        batch_size = array.shape[0]


def _values(name: str, array: np.ndarray) -> Any:
    """Nested lists of what JSON can say."""
    if array.dtype == object:
        # A name that ends so is how a model says that its strings are not text.
        as_bytes = name.endswith("_bytes")
        cells = np.empty(array.size, dtype=object)
        for index, value in enumerate(array.ravel()):
            cells[index] = (
                {"b64": base64.b64encode(value).decode()}
                if as_bytes
                else value.decode("utf-8", "surrogateescape")
            )
        return cells.reshape(array.shape).tolist()
    if array.dtype == np.float32:
        # Through text, so that 0.1 is not written as 0.10000000149011612.
        return array.astype("U32").astype(np.float64).tolist()
    if array.dtype.kind not in "biuf" or array.dtype == np.float16:
        raise invalid(
            f"Failed to write JSON value for tensor type: "
            f"{dtype_name(tf.dtypes.as_dtype(array.dtype))}"
        )
    return array.tolist()


def type_name(value: Any) -> str:
    """The type of a JSON value in an error message."""
    if isinstance(value, bool):
        return str(value)
    names = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def quote(value: Any) -> str:
    """A JSON value in an error message, cut off if it is long."""
    # Piece by piece: of a body of megabytes only the beginning is wanted.
    pieces = itertools.islice(_ENCODER.iterencode(value), _LONGEST_QUOTE)
    text = "".join(pieces)[:_LONGEST_QUOTE]
    return text.encode("utf-8", "replace").decode()
