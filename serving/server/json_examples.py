"""Requests and answers of the REST interface to classify and regress.

Error messages are those of TensorFlow Serving's `util/json_tensor.cc`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from ..errors import invalid
from .json_tensors import (
    JsonRequest,
    decode_base64,
    encode_text,
    is_base64,
    quote,
    type_name,
)


def input_from_json(request: JsonRequest) -> input_pb2.Input:
    """The examples of a request, and the context that they share.

    Raises:
        ServingError: INVALID_ARGUMENT, if the JSON does not fit.
    """
    document = request.document
    given = input_pb2.Input()
    target: Any = given.example_list
    if "context" in document:
        target = given.example_list_with_context
        target.context.CopyFrom(_example(document["context"]))
    problem = None
    if "examples" not in document:
        problem = (
            "When method is classify, key 'examples' is expected and was not found"
        )
    elif not isinstance(document["examples"], list):
        problem = "Expecting 'examples' value to be an list/array"
    elif not document["examples"]:
        problem = "'examples' value is an empty array"
    if problem:
        raise invalid(f"JSON Value: {quote(document)} {problem}")
    target.examples.extend(_example(value) for value in document["examples"])
    return given


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        feature = example.features.feature[encode_text(name).decode(errors="replace")]
        for element in content if isinstance(content, list) else [content]:
            _add_element(feature, name, element)
    return example


def _add_element(feature: Any, name: str, element: Any) -> None:
    kind: str
    value: Any
    if isinstance(element, bool | int):
        kind, value = "int64", element
    elif isinstance(element, float):
        kind, value = "float", element
    elif isinstance(element, str):
        kind, value = "bytes", encode_text(element)
    elif is_base64(element):
        kind, value = "bytes", decode_base64(element)
    else:
        raise invalid(
            f"Feature: {name} has element with unexpected JSON type: "
            f"{type_name(element)}"
        )
    before = feature.WhichOneof("kind")
    if before not in (None, f"{kind}_list"):
        raise invalid(
            f"Unexpected element type in feature: {name} expecting type: "
            f"{before.removesuffix('_list')}"
        )
    if kind == "int64" and not -(2**63) <= value < 2**63:
        raise invalid(
            f"Feature: {name} has uint64_t element. Only int64_t is supported."
        )
    getattr(feature, f"{kind}_list").value.append(value)


def classification_body(result: classification_pb2.ClassificationResult) -> bytes:
    """The answer to classify: for each example its pairs of label and score."""
    rows = [
        [[entry.label, _short(entry.score)] for entry in classifications.classes]
        for classifications in result.classifications
    ]
    return _body(rows)


def regression_body(result: regression_pb2.RegressionResult) -> bytes:
    """The answer to regress: for each example its value."""
    return _body([_short(regression.value) for regression in result.regressions])


def _body(results: list[Any]) -> bytes:
    return json.dumps({"results": results}, ensure_ascii=False).encode()


def _short(value: float) -> float:
    """A float32 without the digits that it only has as a double."""
    return float(str(np.float32(value)))
