"""The gRPC services, asked with TensorFlow Serving's own client stubs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from grpc import StatusCode
from langzoo.serving.server import ModelServer
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

Stub = prediction_service_pb2_grpc.PredictionServiceStub
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def scale_channel(scale_server: ModelServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(scale_server.grpc_address) as channel:
        yield channel


@pytest.fixture(scope="module")
def scale(scale_channel: grpc.Channel) -> Stub:
    return Stub(scale_channel)


@pytest.fixture(scope="module")
def language(language_server: ModelServer) -> Iterator[Stub]:
    with grpc.insecure_channel(language_server.grpc_address) as channel:
        yield Stub(channel)


def predict_request(
    name: str = "scale",
    signature: str = "",
    filter: tuple[str, ...] = (),
    **inputs: Any,
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=filter)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        proto = value
        if not isinstance(value, tensor_pb2.TensorProto):
            proto = tf.make_tensor_proto(value)
        request.inputs[alias].CopyFrom(proto)
    return request


def tensor(dtype: int = 1, sizes: tuple[int, ...] = (), **fields: Any) -> Any:
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


def refused(call: Any, request: Any) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("signature", ["serving_default", "score", "token_scores"])
def test_predict_equals_the_direct_call(
    language: Stub, language_model: Path, signature: str
) -> None:
    texts = tf.constant(["To be, or not to be", "that is", "?"])
    direct = tf.saved_model.load(str(language_model)).signatures[signature](text=texts)
    response = language.Predict(predict_request("langzoo", signature, text=texts))
    assert set(response.outputs) == set(direct)
    for name, tensor in direct.items():
        served = tf.make_ndarray(response.outputs[name])
        np.testing.assert_array_equal(served, tensor.numpy())


def test_predict_names_the_model_version_and_signature_that_answered(
    scale: Stub,
) -> None:
    spec = scale.Predict(predict_request(x=[1.0])).model_spec
    assert (spec.name, spec.version.value) == ("scale", 5)
    assert spec.signature_name == "serving_default"


def test_predict_fills_typed_value_fields_as_stock_serving_does(scale: Stub) -> None:
    outputs = scale.Predict(predict_request(x=[1.0, 2.0])).outputs
    assert list(outputs["y"].float_val) == [5.0, 8.0]


def test_predict_applies_the_defaults_of_the_signature(scale: Stub) -> None:
    given = scale.Predict(predict_request(x=[1.0], offset=[10.0])).outputs
    left = scale.Predict(predict_request(x=[1.0])).outputs
    assert (given["y"].float_val[0], left["y"].float_val[0]) == (13.0, 5.0)


def test_predict_gives_only_the_outputs_of_the_filter(scale: Stub) -> None:
    response = scale.Predict(predict_request(x=[1.0], filter=("offset",)))
    assert list(response.outputs) == ["offset"]


def test_predict_takes_a_shape_beyond_the_signature_if_the_graph_does(
    scale: Stub,
) -> None:
    # Stock TensorFlow Serving leaves shapes to the graph.
    y = tf.make_ndarray(scale.Predict(predict_request(x=[[1.0], [2.0]])).outputs["y"])
    np.testing.assert_array_equal(y, [[5.0], [8.0]])


def test_predict_keeps_every_dtype_and_any_bytes(scale: Stub) -> None:
    inputs = {
        "float64": np.array([[1 / 3]]),
        "int32": np.array(-(2**31), np.int32),
        "uint8": np.array([255], np.uint8),
        "int64": np.array([2**62, -1]),
        "bool": np.array([[True], [False]]),
        "string": np.array([b"\xff\x00", b""], object),
    }
    outputs = scale.Predict(predict_request(signature="echo", **inputs)).outputs
    for name, value in inputs.items():
        served = tf.make_ndarray(outputs[f"{name}_out"])
        np.testing.assert_array_equal(served, value)
        assert served.dtype == value.dtype


def test_predict_reads_strings_packed_as_content(language: Stub) -> None:
    # All lengths, then all bytes: TensorFlow's Tensor::AsProtoTensorContent.
    packed = tensor(dtype=7, sizes=(2,), tensor_content=b"\x03\x00abc")
    response = language.Predict(predict_request("langzoo", "score", text=packed))
    assert list(response.outputs["bytes"].int64_val) == [3, 0]


# Codes and texts: predict_util.cc and server_core.cc of TensorFlow Serving,
# saved_model/util.cc of TensorFlow.
REFUSED = {
    "unknown model": (
        predict_request("nobody", x=[1.0]),
        StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(nobody)",
    ),
    "no model name": (
        predict_request("", x=[1.0]),
        StatusCode.INVALID_ARGUMENT,
        "ModelSpec has no name specified.",
    ),
    "no model spec": (
        predict_pb2.PredictRequest(),
        StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    ),
    "unknown signature": (
        predict_request(signature="nothing", x=[1.0]),
        StatusCode.FAILED_PRECONDITION,
        'Serving signature key "nothing" not found.',
    ),
    "missing input": (
        predict_request(signature="half"),
        StatusCode.INVALID_ARGUMENT,
        "input size does not match signature: 0!=1 len({}) != len({x}). "
        "Sent extra: {}. Missing but required: {x}.",
    ),
    "missing input beside a default": (
        predict_request(offset=[1.0]),
        StatusCode.INVALID_ARGUMENT,
        "Signature input alias: x(feed name: serving_default_x:0) not found in "
        "request and no default value provided. Inputs expected to be in the request "
        "{offset}, or default input alias set: offset",
    ),
    "too many inputs": (
        predict_request(signature="half", x=[1.0], z=[1.0]),
        StatusCode.INVALID_ARGUMENT,
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
        "Sent extra: {z}. Missing but required: {}.",
    ),
    "misnamed input": (
        predict_request(x=[1.0], z=[1.0]),
        StatusCode.INVALID_ARGUMENT,
        "Inputs contains invalid name. Used request inputs: x, request input: x,z",
    ),
    "wrong dtype": (
        predict_request(signature="half", x=["text"]),
        StatusCode.INVALID_ARGUMENT,
        "Expects arg[0] to be float but string is provided",
    ),
    "shapes that do not go together": (
        predict_request(x=[1.0, 2.0], offset=[1.0, 2.0, 3.0]),
        StatusCode.INVALID_ARGUMENT,
        None,
    ),
    "unknown output": (
        predict_request(x=[1.0], filter=("z",)),
        StatusCode.INVALID_ARGUMENT,
        "output tensor alias not found in signature: z Outputs expected to be in the "
        "set {offset,y}.",
    ),
    "output named twice": (
        predict_request(x=[1.0], filter=("y", "y")),
        StatusCode.INVALID_ARGUMENT,
        "duplicate output tensor alias: y",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_predict_refuses(scale: Stub, case: str) -> None:
    request, code, message = REFUSED[case]
    got_code, got_message = refused(scale.Predict, request)
    assert got_code is code
    assert message in (None, got_message)


def test_predict_refuses_a_version_that_is_not_loaded(scale: Stub) -> None:
    request = predict_request(x=[1.0])
    request.model_spec.version.value = 4
    assert refused(scale.Predict, request) == (
        StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(scale, 4)",
    )


def test_predict_refuses_a_label(scale: Stub) -> None:
    request = predict_request(x=[1.0])
    request.model_spec.version_label = "stable"
    assert refused(scale.Predict, request) == (
        StatusCode.INVALID_ARGUMENT,
        "Unrecognized servable version label: stable",
    )


@pytest.mark.parametrize(
    "broken",
    [
        tensor(sizes=(-1,), float_val=[1.0]),
        tensor(sizes=(3,), tensor_content=b"1234"),
        tensor(sizes=(1,), float_val=[1.0, 2.0]),
        tensor(sizes=(1 << 40,), float_val=[1.0]),
        tensor(sizes=(1 << 62, 1 << 62), float_val=[1.0]),
        tensor(dtype=0, sizes=(1,), float_val=[1.0]),
        tensor(dtype=999, sizes=(1,), float_val=[1.0]),
        tensor(dtype=7, sizes=(2,), tensor_content=b"\xff"),
        tensor(dtype=7, sizes=(1 << 40,), string_val=[b"a"]),
        tensor(sizes=(1,) * 300, float_val=[1.0]),
        # A few bytes that would become hundreds of megabytes.
        tensor(dtype=7, sizes=(1 << 25,), tensor_content=b"a"),
        tensor(sizes=(1 << 23,), float_val=[1.0]),
        tensor(sizes=(1 << 23,)),
        tensor(dtype=7, sizes=(1 << 20,)),
        tensor(dtype=7, sizes=(1 << 10,), string_val=[b"a" * (1 << 15)]),
        tensor(dtype=18, sizes=(1 << 21,), dcomplex_val=[1.0, 2.0]),
        tensor(dtype=19, sizes=(1 << 24,), half_val=[1]),
        tensor(sizes=(1 << 23, 0)),
        tensor(dtype=20, sizes=(1 << 25,)),
        tensor(dtype=21, sizes=(1,)),
    ],
)
def test_predict_refuses_a_tensor_that_contradicts_itself(
    scale: Stub, broken: tensor_pb2.TensorProto
) -> None:
    assert refused(scale.Predict, predict_request(signature="half", x=broken)) == (
        StatusCode.INVALID_ARGUMENT,
        "tensor parsing error: x",
    )


def test_bytes_that_are_no_message_are_refused(
    scale_channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    code, _ = refused(scale_channel.unary_unary(PREDICT), b"\xff\xff\xff")
    assert code is StatusCode.INTERNAL
    assert not caplog.records


def test_a_request_of_many_megabytes_is_answered(language: Stub) -> None:
    text = b"a" * (8 << 20)  # gRPC's own limit is 4 MiB
    request = predict_request("langzoo", "score", ("bytes",), text=[text])
    assert language.Predict(request).outputs["bytes"].int64_val[0] == len(text)


def test_a_long_error_is_cut_off(scale: Stub) -> None:
    _, message = refused(scale.Predict, predict_request("n" * 5000, x=[1.0]))
    assert message.endswith("...TRUNCATED")
    assert len(message) == 1024 + len("...TRUNCATED")


def metadata_request(*fields: str) -> get_model_metadata_pb2.GetModelMetadataRequest:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "scale"
    return request


def test_metadata_is_the_signatures_of_the_saved_model(scale: Stub) -> None:
    response = scale.GetModelMetadata(metadata_request("signature_def"))
    assert response.model_spec.version.value == 5
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.inputs["x"].dtype == tf.float32.as_datatype_enum
    assert list(default.defaults) == ["offset"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((), "GetModelMetadataRequest must specify at least one metadata_field"),
        (("weather",), "Metadata field weather is not supported"),
    ],
)
def test_metadata_refuses(scale: Stub, fields: tuple[str, ...], message: str) -> None:
    answer = refused(scale.GetModelMetadata, metadata_request(*fields))
    assert answer == (StatusCode.INVALID_ARGUMENT, message)


def test_status_tells_the_state_of_each_version(scale_channel: grpc.Channel) -> None:
    stub = model_service_pb2_grpc.ModelServiceStub(scale_channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "scale"
    [status] = stub.GetModelStatus(request).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert (status.version, status.state) == (5, available)
    assert status.status.error_code == 0


def test_metadata_and_status_need_a_model_spec(
    scale: Stub, scale_channel: grpc.Channel
) -> None:
    missing = (StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    assert refused(scale.GetModelMetadata, request) == missing
    stub = model_service_pb2_grpc.ModelServiceStub(scale_channel)
    empty = get_model_status_pb2.GetModelStatusRequest()
    assert refused(stub.GetModelStatus, empty) == missing


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nobody", None, "Could not find any versions of model nobody"),
        ("scale", 4, "Could not find version 4 of model scale"),
    ],
)
def test_status_does_not_find(
    scale_channel: grpc.Channel, name: str, version: int | None, message: str
) -> None:
    stub = model_service_pb2_grpc.ModelServiceStub(scale_channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    assert refused(stub.GetModelStatus, request) == (StatusCode.NOT_FOUND, message)
