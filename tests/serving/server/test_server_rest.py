"""The REST interface."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from langzoo.serving.server import ModelServer

Rest = Callable[..., tuple[int, Any]]
PREDICT = "/v1/models/scale:predict"
ECHO = {
    "float64": 0.5,
    "int32": -7,
    "uint8": 255,
    "int64": 2**62,
    "bool": True,
    "string": "é",
}


def test_predict_in_rows_equals_the_direct_call(
    language_server: ModelServer, language_model: Path, rest: Rest
) -> None:
    texts = ["To be, or not to be", "that is", "?"]
    score = tf.saved_model.load(str(language_model)).signatures["score"]
    direct = {k: v.numpy() for k, v in score(text=tf.constant(texts)).items()}
    body = {"signature_name": "score", "instances": texts}
    status, answer = rest(language_server, "/v1/models/langzoo:predict", body)
    assert status == 200
    assert [set(row) for row in answer["predictions"]] == [set(direct)] * len(texts)
    for name, column in direct.items():
        served = [row[name] for row in answer["predictions"]]
        np.testing.assert_array_equal(np.array(served, column.dtype), column)


def test_predict_in_columns_equals_the_direct_call(
    language_server: ModelServer, language_model: Path, rest: Rest
) -> None:
    texts = ["To be", "that"]
    score = tf.saved_model.load(str(language_model)).signatures["token_scores"]
    direct = {k: v.numpy() for k, v in score(text=tf.constant(texts)).items()}
    body = {"signature_name": "token_scores", "inputs": {"text": texts}}
    _, answer = rest(language_server, "/v1/models/langzoo:predict", body)
    scores = np.array(answer["outputs"]["log_probability"], np.float32)
    np.testing.assert_array_equal(scores, direct["log_probability"])
    tokens = np.vectorize(bytes.decode)(direct["token"])
    assert answer["outputs"]["token"] == tokens.tolist()


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [2.0, 4.0]}, {"predictions": [1.0, 2.0]}),
        ({"instances": [{"x": 2}, {"x": 4}]}, {"predictions": [1.0, 2.0]}),
        ({"inputs": [2.0, 4.0]}, {"outputs": [1.0, 2.0]}),
        ({"inputs": {"x": [2.0]}}, {"outputs": [1.0]}),
        ({"inputs": 2.0}, {"outputs": 1.0}),
        ({"instances": [[2.0], [4.0]]}, {"predictions": [[1.0], [2.0]]}),
    ],
)
def test_predict_takes_and_gives_a_lone_tensor_without_its_name(
    scale_server: ModelServer, rest: Rest, body: Any, answer: Any
) -> None:
    body = {"signature_name": "half", **body}
    assert rest(scale_server, PREDICT, body) == (200, answer)


def test_predict_writes_float32_shortly(scale_server: ModelServer, rest: Rest) -> None:
    body = {"signature_name": "half", "instances": [0.2]}
    assert rest(scale_server, PREDICT, body)[1] == {"predictions": [0.1]}


def test_predict_keeps_every_dtype(scale_server: ModelServer, rest: Rest) -> None:
    body = {"signature_name": "echo", "instances": [ECHO]}
    status, answer = rest(scale_server, PREDICT, body)
    assert status == 200
    [row] = answer["predictions"]
    # An output whose name ends in _bytes is not text.
    assert row.pop("string_bytes") == {"b64": "w6k="}
    assert row == {f"{name}_out": value for name, value in ECHO.items()}


def test_predict_reads_base64(language_server: ModelServer, rest: Rest) -> None:
    body = {"signature_name": "score", "instances": [{"b64": "/wA="}, "é"]}
    _, answer = rest(language_server, "/v1/models/langzoo:predict", body)
    assert [row["bytes"] for row in answer["predictions"]] == [2, 2]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("YWJj\nZGVm", 6),
        ("\r\n YW\tJj \n", 3),
        ("YQ", 1),
        ("YQ==", 1),
        ("YQ..", 1),
        ("YQ=", None),
        ("YQ===", None),
        ("YWJj=", None),
        ("Y", None),
        ("Y-_=", None),
    ],
)
def test_predict_reads_base64_as_abseil_does(
    language_server: ModelServer, rest: Rest, text: str, size: int | None
) -> None:
    body = {"signature_name": "score", "instances": [{"b64": text}]}
    _, answer = rest(language_server, "/v1/models/langzoo:predict", body)
    if size is None:
        assert "Unable to base64 decode" in answer["error"]
    else:
        assert answer["predictions"][0]["bytes"] == size


def test_predict_reads_past_a_byte_order_mark(
    scale_server: ModelServer, rest: Rest
) -> None:
    body = b'\xef\xbb\xbf {"signature_name": "half", "instances": [2.0]}'
    assert rest(scale_server, PREDICT, body) == (200, {"predictions": [1.0]})


def test_predict_takes_what_is_not_a_number(
    scale_server: ModelServer, rest: Rest
) -> None:
    body = b'{"signature_name": "half", "instances": [NaN, -Infinity]}'
    _, answer = rest(scale_server, PREDICT, body)
    np.testing.assert_array_equal(answer["predictions"], [np.nan, -np.inf])


def test_predict_of_a_version(scale_server: ModelServer, rest: Rest) -> None:
    body = {"signature_name": "half", "instances": [2.0]}
    path = "/v1/models/scale/versions/5:predict"
    assert rest(scale_server, path, body) == (200, {"predictions": [1.0]})


def echo(**changed: Any) -> dict[str, Any]:
    return {"signature_name": "echo", "instances": [{**ECHO, **changed}]}


def half(value: Any) -> dict[str, Any]:
    return {"signature_name": "half", "instances": value}


# Texts: json_tensor.cc and http_rest_api_handler.cc of TensorFlow Serving.
REFUSED = {
    "empty body": (b"", 400, "JSON Parse error: The document is empty"),
    "no JSON": (b"hello", 400, "JSON Parse error: Expecting value at offset: 0"),
    "broken JSON": (b'{"instances": [1', 400, "JSON Parse error: "),
    "nested without end": (b"[" * 100_000, 400, "JSON Parse error: "),
    "no object": (b"[1]", 400, "JSON Value: [1] Is not object"),
    "half a surrogate pair": (
        {"signature_name": "echo", "instances": [{**ECHO, "string": "\ud800"}]},
        400,
        "Failed to process element: 0 key: string of 'instances' list. Error: "
        "INVALID_ARGUMENT: JSON Parse error: The surrogate pair in string is invalid.",
    ),
    "signature name no string": (
        {"signature_name": 3, "instances": [1]},
        400,
        'JSON Value: {"signature_name": 3, "instances": [1]} not formatted correctly. '
        "'signature_name' key must be a string value.",
    ),
    "unknown signature": (
        {"signature_name": "nothing", "instances": [1]},
        400,
        'Serving signature name: "nothing" not found in signature def',
    ),
    "no tensors": ({}, 400, "Missing 'inputs' or 'instances' key"),
    "rows and columns": (
        {"instances": [1], "inputs": [1]},
        400,
        'JSON Value: {"instances": [1], "inputs": [1]} Not formatted correctly '
        "expecting only one of 'inputs' or 'instances' keys to exist ",
    ),
    "rows no list": (
        {"instances": 1},
        400,
        "JSON Value: {\"instances\": 1} Expecting 'instances' to be an list/array",
    ),
    "no rows": (
        {"instances": []},
        400,
        "JSON Value: {\"instances\": []} No values in 'instances' array",
    ),
    "lone rows for two inputs": (
        {"instances": [1]},
        400,
        "instances is a plain list, but expecting list of objects as multiple input "
        "tensors required as per tensorinfo_map",
    ),
    "a lone column for two inputs": (
        {"inputs": [1]},
        400,
        "inputs is a plain value/list, but expecting an object as multiple input "
        "tensors required as per tensorinfo_map",
    ),
    # Defaults hold for gRPC only.
    "missing column": (
        {"inputs": {"x": [1]}},
        400,
        "Missing named input: offset in 'inputs' object.",
    ),
    "missing input in a row": (
        {"instances": [{"x": 1}]},
        400,
        "Failed to process element: 0 of 'instances' list. JSON object: "
        '{"x": 1} keys must be equal to: offset,x',
    ),
    "misnamed input": (
        half([{"z": 1}]),
        400,
        "Failed to process element: 0 key: z of 'instances' list. Error: "
        "INVALID_ARGUMENT: JSON object: does not have named input: z",
    ),
    "an object among values": (
        half([1, {"x": 1}]),
        400,
        "Expecting value/list but got object at item 1 of input list",
    ),
    "a value among objects": (
        half([{"x": 1}, 1]),
        400,
        "Expecting object but got list at item 1 of input list",
    ),
    "text for a number": (
        half(["a"]),
        400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "a" Type: String is not of expected type: float',
    ),
    "a fraction for an integer": (
        echo(int32=1.5),
        400,
        "Failed to process element: 0 key: int32 of 'instances' list. Error: "
        "INVALID_ARGUMENT: JSON Value: 1.5 Type: Number is not of expected type: int32",
    ),
    "an integer out of range": (
        echo(int64=2**63),
        400,
        "Failed to process element: 0 key: int64 of 'instances' list. Error: "
        "INVALID_ARGUMENT: JSON Value: 9223372036854775808 Type: Number is not of "
        "expected type: int64",
    ),
    "a number beyond double": (
        half([10**400]),
        400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON Parse error: Number too big to be stored in double.",
    ),
    "a number for a truth": (
        echo(bool=1),
        400,
        "Failed to process element: 0 key: bool of 'instances' list. Error: "
        "INVALID_ARGUMENT: JSON Value: 1 Type: Number is not of expected type: bool",
    ),
    "broken base64": (
        echo(string={"b64": "?"}),
        400,
        "Failed to process element: 0 key: string of 'instances' list. Error: "
        "INVALID_ARGUMENT: Unable to base64 decode",
    ),
    "an object for a string": (
        echo(string={"text": "a"}),
        400,
        "Failed to process element: 0 key: string of 'instances' list. Error: "
        'INVALID_ARGUMENT: JSON Value: {"text": "a"} not formatted correctly for '
        "base64 data",
    ),
    "rows of unequal length": (
        half([[1], [1, 2]]),
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting tensor size: 1 but got: 2",
    ),
    "rows of unequal shape": (
        half([[[1, 2]], [[1], [2]]]),
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting shape [1,2] but got: [2,1]",
    ),
    "a ragged column": (
        {"signature_name": "half", "inputs": [[1, 2], [3]]},
        400,
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "a column of unequal depth": (
        {"signature_name": "half", "inputs": [[1], 2]},
        400,
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at "
        "level: 2",
    ),
    "a list below a value": (
        {"signature_name": "half", "inputs": [1, [2]]},
        400,
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    "shapes that do not go together": (
        {"inputs": {"x": [1, 2], "offset": [1, 2, 3]}},
        400,
        "Incompatible shapes: ",
    ),
    "an output that is no rows": (
        {"signature_name": "total", "instances": [1, 2]},
        400,
        "Tensor name: y has no shape information ",
    ),
    "outputs of unequal length": (
        {"signature_name": "mean", "instances": [1, 2]},
        400,
        "Tensor name: x has inconsistent batch size: 2 expecting: 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_predict_refuses(
    scale_server: ModelServer, rest: Rest, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    body, status, message = REFUSED[case]
    got_status, answer = rest(scale_server, PREDICT, body)
    assert got_status == status
    assert list(answer) == ["error"]
    if message.endswith(": "):
        assert answer["error"].startswith(message)
    else:
        assert answer["error"] == message
    assert not caplog.records


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (
            "/v1/models/nobody:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Latest(nobody)",
        ),
        (
            "/v1/models/scale/versions/4:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Specific(scale, 4)",
        ),
        (
            "/v1/models/scale/labels/stable:predict",
            {"instances": [1]},
            400,
            "Unrecognized servable version label: stable",
        ),
        (
            f"/v1/models/scale/versions/{2**63}:predict",
            {"instances": [1]},
            400,
            f"Failed to convert version: {2**63} to numeric.",
        ),
        (
            "/v1/models/scale:fly",
            {"instances": [1]},
            400,
            "Malformed request: POST /v1/models/scale:fly",
        ),
        (
            "/v1/nothing",
            None,
            400,
            "Malformed request: GET /v1/nothing",
        ),
        (
            PREDICT,
            None,
            400,
            f"Malformed request: GET {PREDICT}",
        ),
        ("/v1/models", None, 400, "Missing model name in request."),
        (
            "/v1/models/nobody",
            None,
            404,
            "Could not find any versions of model nobody",
        ),
        (
            "/v1/models/scale/versions/4",
            None,
            404,
            "Could not find version 4 of model scale",
        ),
        (
            "/v1/models/nobody/metadata",
            None,
            404,
            "Servable not found for request: Latest(nobody)",
        ),
    ],
)
def test_a_path_is_refused(
    scale_server: ModelServer,
    rest: Rest,
    path: str,
    body: Any,
    status: int,
    message: str,
) -> None:
    assert rest(scale_server, path, body) == (status, {"error": message})


@pytest.mark.parametrize("path", ["/v1/models/scale", "/v1/models/scale/versions/5"])
def test_status(scale_server: ModelServer, rest: Rest, path: str) -> None:
    state = {
        "version": "5",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert rest(scale_server, path) == (200, {"model_version_status": [state]})


def test_metadata(scale_server: ModelServer, rest: Rest) -> None:
    status, answer = rest(scale_server, "/v1/models/scale/metadata")
    assert status == 200
    assert answer["model_spec"]["name"] == "scale"
    assert answer["model_spec"]["version"] == "5"
    x = answer["metadata"]["signature_def"]["signature_def"]["half"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in x["tensor_shape"]["dim"]] == ["-1"]


def test_bytes_that_are_no_text_come_back_as_they_are(
    scale_server: ModelServer,
) -> None:
    # rapidjson, which TensorFlow Serving uses, does not look at the encoding.
    [row] = echo()["instances"]
    row["string"] = "?"
    body = json.dumps({"signature_name": "echo", "instances": [row]}).encode()
    connection = http.client.HTTPConnection(scale_server.rest_address or "")
    connection.request("POST", PREDICT, body.replace(b"?", b"\xff"))
    assert b'"string_out": "\xff"' in connection.getresponse().read()
    connection.close()


def test_an_answer_is_not_held_back(scale_server: ModelServer) -> None:
    # Nagle's algorithm and a client's late acknowledgement make 40 ms together.
    connection = http.client.HTTPConnection(scale_server.rest_address or "", timeout=30)
    waits = []
    for _ in range(30):
        start = time.perf_counter()
        connection.request("GET", "/v1/models/scale")
        connection.getresponse().read()
        waits.append(time.perf_counter() - start)
    connection.close()
    assert min(waits[5:]) < 0.03
