"""Classify, Regress and MultiInference, over gRPC and REST."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
from grpc import StatusCode
from langzoo.serving.server import ModelServer, ServerOptions
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

Rest = Callable[..., tuple[int, Any]]
Stub = prediction_service_pb2_grpc.PredictionServiceStub
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def stub(example_server: ModelServer) -> Iterator[Stub]:
    with grpc.insecure_channel(example_server.grpc_address) as channel:
        yield Stub(channel)


def example(x: float) -> Any:
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[x]))
    return tf.train.Example(features=tf.train.Features(feature={"x": feature}))


def examples(*xs: float, context: float | None = None) -> input_pb2.Input:
    given = input_pb2.Input()
    if context is None:
        given.example_list.examples.extend(map(example, xs))
    else:
        given.example_list_with_context.context.CopyFrom(example(context))
        given.example_list_with_context.examples.extend(map(example, xs))
        given.example_list_with_context.examples.add()
    return given


def request(kind: Any, signature: str, given: input_pb2.Input) -> Any:
    message = kind(input=given)
    message.model_spec.name = "example"
    message.model_spec.signature_name = signature
    return message


def classification(signature: str, given: input_pb2.Input | None = None) -> Any:
    given = examples(0.25, 1.0) if given is None else given
    return request(classification_pb2.ClassificationRequest, signature, given)


def regression(signature: str, given: input_pb2.Input | None = None) -> Any:
    given = examples(0.25, 1.0) if given is None else given
    return request(regression_pb2.RegressionRequest, signature, given)


def multi(*tasks: tuple[str, str], name: str = "example") -> Any:
    message = inference_pb2.MultiInferenceRequest(input=examples(0.25, 1.0))
    for signature, method in tasks:
        task = message.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    return message


def pairs(result: classification_pb2.ClassificationResult) -> list[Any]:
    return [[(c.label, c.score) for c in row.classes] for row in result.classifications]


def refused(call: Any, message: Any) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=30)
    return caught.value.code(), caught.value.details()


def test_classify_gives_labels_and_scores(stub: Stub) -> None:
    response = stub.Classify(classification("classify"))
    assert pairs(response.result) == [
        [("yes", 0.25), ("no", 0.75)],
        [("yes", 1.0), ("no", 0.0)],
    ]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (
        "example",
        1,
        "classify",
    )


def test_classify_takes_a_model_that_gives_labels_or_scores_alone(stub: Stub) -> None:
    labels = stub.Classify(classification("classes", examples(0.25))).result
    assert pairs(labels) == [[("yes", 0.0), ("no", 0.0)]]
    scores = stub.Classify(classification("scores", examples(0.25))).result
    assert pairs(scores) == [[("", 0.25), ("", 0.75)]]


@pytest.mark.parametrize("signature", ["regress", "column"])
def test_regress_gives_a_value_for_each_example(stub: Stub, signature: str) -> None:
    response = stub.Regress(regression(signature))
    assert [r.value for r in response.result.regressions] == [0.5, 2.0]


def test_a_context_is_not_copied_beyond_measure(stub: Stub) -> None:
    request = regression("regress", input_pb2.Input())
    given = request.input.example_list_with_context
    given.context.features.feature["y"].bytes_list.value.append(b"a" * 20_000)
    for _ in range(1000):
        given.examples.add()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Regress(request)
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert "is too much for 1000 examples" in caught.value.details()


def test_a_context_holds_for_every_example_that_says_nothing_else(stub: Stub) -> None:
    response = stub.Regress(regression("regress", examples(3.0, context=4.0)))
    assert [r.value for r in response.result.regressions] == [6.0, 8.0]


def test_multi_inference_answers_each_task(stub: Stub) -> None:
    response = stub.MultiInference(multi(("classify", CLASSIFY), ("regress", REGRESS)))
    first, second = response.results
    assert pairs(first.classification_result)[0] == [("yes", 0.25), ("no", 0.75)]
    assert [r.value for r in second.regression_result.regressions] == [0.5, 2.0]
    assert second.model_spec.signature_name == "regress"
    assert second.model_spec.version.value == 1


# Texts: classifier.cc, regressor.cc, multi_inference.cc and util.cc of TensorFlow
# Serving. None stands for a text that ends in a whole signature.
INVALID = {
    "classify, no model spec": (
        "Classify",
        classification_pb2.ClassificationRequest(),
        "Missing ModelSpec",
    ),
    "classify, unknown signature": (
        "Classify",
        classification("nothing"),
        "No signature was found with the name: nothing",
    ),
    "classify, default signature": (
        "Classify",
        classification(""),
        "No signature was found with the name: serving_default",
    ),
    "classify, no examples": (
        "Classify",
        classification("classify", input_pb2.Input()),
        "Input is empty.",
    ),
    "classify, an empty list": (
        "Classify",
        classification("classify", input_pb2.Input(example_list={})),
        "Input is empty.",
    ),
    "classify, too many outputs": (
        "Classify",
        classification("three"),
        "Expected one or two output Tensors, found 3",
    ),
    "classify, another input": (
        "Classify",
        classification("misnamed"),
        "No classification inputs found in SignatureDef: ",
    ),
    "classify, other outputs": (
        "Classify",
        classification("neither"),
        "Expected classification signature outputs to contain at least one of "
        '"classes" or "scores". Signature was: ',
    ),
    "classify, scores of rank 1": (
        "Classify",
        classification("flat_scores"),
        "Expected Tensor shape: [batch_size num_classes] but got [2]",
    ),
    "classify, scores no floats": (
        "Classify",
        classification("whole_scores"),
        "Expected scores Tensor of DT_FLOAT. Got: DT_INT32",
    ),
    "classify, too few rows": (
        "Classify",
        classification("one_score"),
        "Expected scores output batch size of 2. Got: 1",
    ),
    "classify, classes and scores uneven": (
        "Classify",
        classification("uneven"),
        "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
    ),
    "regress, no model spec": (
        "Regress",
        regression_pb2.RegressionRequest(),
        "Missing ModelSpec",
    ),
    "regress, unknown signature": (
        "Regress",
        regression("nothing"),
        "No signature was found with the name: nothing",
    ),
    "regress, two outputs": (
        "Regress",
        regression("classify"),
        "Expected one output Tensor.",
    ),
    "regress, another input": (
        "Regress",
        regression("misnamed"),
        "No regression inputs found in SignatureDef: ",
    ),
    "regress, another output": (
        "Regress",
        regression("scores"),
        "No regression outputs found in SignatureDef: ",
    ),
    "regress, a table": (
        "Regress",
        regression("table"),
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
        "but got [2,2]",
    ),
    "regress, no floats": (
        "Regress",
        regression("whole"),
        "Expected output Tensor of DT_FLOAT.  Got: DT_INT32",
    ),
    "regress, too few rows": (
        "Regress",
        regression("one"),
        "Input batch size did not match output batch size: 2 vs. 1",
    ),
    "multi-inference, no tasks": (
        "MultiInference",
        multi(),
        "ModelSpec has no name specified.",
    ),
    "multi-inference, a signature twice": (
        "MultiInference",
        multi(("regress", REGRESS), ("regress", REGRESS)),
        "Duplicate evaluation of signature: regress",
    ),
    "multi-inference, unknown signature": (
        "MultiInference",
        multi(("nothing", REGRESS)),
        "Requested signature not found in model graph: nothing",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_request_is_refused(stub: Stub, case: str) -> None:
    method, message, text = INVALID[case]
    code, got = refused(getattr(stub, method), message)
    assert code is StatusCode.INVALID_ARGUMENT
    assert got.startswith(text) if text.endswith(": ") else got == text


def test_bytes_that_tensorflow_quotes_are_refused_as_it_refuses_them(
    stub: Stub,
) -> None:
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "example", "regress"
    message.inputs["inputs"].CopyFrom(tf.make_tensor_proto([b"\x80"]))
    code, details = refused(stub.Predict, message)
    assert code is StatusCode.INVALID_ARGUMENT
    assert "Could not parse example input" in details


def test_multi_inference_refuses_several_models(stub: Stub) -> None:
    message = multi(("classify", CLASSIFY), ("regress", REGRESS))
    message.tasks[1].model_spec.name = "other"
    assert refused(stub.MultiInference, message) == (
        StatusCode.INVALID_ARGUMENT,
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    )
    message.tasks[1].model_spec.name = ""
    assert refused(stub.MultiInference, message) == (
        StatusCode.INVALID_ARGUMENT,
        "Found ModelSpec with an empty model name.",
    )


def test_multi_inference_knows_no_other_method(stub: Stub) -> None:
    method = "tensorflow/serving/predict"
    assert refused(stub.MultiInference, multi(("regress", method))) == (
        StatusCode.UNIMPLEMENTED,
        f"Unsupported signature method_name: {method}",
    )


def test_methods_are_checked_where_that_is_said(
    tmp_path: Path, example_model: Path, push: Callable[[Path, Path, int], None]
) -> None:
    push(example_model, tmp_path, 1)
    server = ModelServer(
        "example",
        tmp_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=None,
        options=ServerOptions(check_methods=True),
    )
    with server, grpc.insecure_channel(server.grpc_address) as channel:
        assert server.wait_ready(60)
        stub = Stub(channel)
        was = "Was: tensorflow/serving/predict"
        for kind, call, message in (
            ("classification", stub.Classify, classification("classify")),
            ("regression", stub.Regress, regression("regress")),
        ):
            code, text = refused(call, message)
            assert code is StatusCode.INVALID_ARGUMENT
            assert text.startswith(f"Expected {kind} signature method_name to be")
            assert text.endswith(was)


@pytest.mark.parametrize("method", ["Classify", "Regress"])
def test_an_unknown_model_is_not_found(stub: Stub, method: str) -> None:
    message = {"Classify": classification, "Regress": regression}[method]("regress")
    message.model_spec.name = "nobody"
    assert refused(getattr(stub, method), message) == (
        StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(nobody)",
    )


def test_rest_classifies(example_server: ModelServer, rest: Rest) -> None:
    body = {"signature_name": "classify", "examples": [{"x": 0.1}, {"x": [1.0]}]}
    assert rest(example_server, "/v1/models/example:classify", body) == (
        200,
        {"results": [[["yes", 0.1], ["no", 0.9]], [["yes", 1.0], ["no", 0.0]]]},
    )


def test_rest_regresses_with_a_context(example_server: ModelServer, rest: Rest) -> None:
    body = {
        "signature_name": "regress",
        "context": {"x": 4.0},
        "examples": [{"x": 3.0}, {"name": "ä"}, {"name": {"b64": "/wA="}}],
    }
    path = "/v1/models/example/versions/1:regress"
    assert rest(example_server, path, body) == (200, {"results": [6.0, 8.0, 8.0]})


# Texts: json_tensor.cc of TensorFlow Serving.
REST_INVALID = {
    "no examples": (
        {"signature_name": "regress"},
        'JSON Value: {"signature_name": "regress"} When method is classify, key '
        "'examples' is expected and was not found",
    ),
    "examples no list": (
        {"examples": 1},
        "JSON Value: {\"examples\": 1} Expecting 'examples' value to be an list/array",
    ),
    "an empty list": (
        {"examples": []},
        "JSON Value: {\"examples\": []} 'examples' value is an empty array",
    ),
    "an example no object": (
        {"examples": [1]},
        "Example must be JSON object but got JSON Number",
    ),
    "a context no object": (
        {"context": [], "examples": [{}]},
        "Example must be JSON object but got JSON Array",
    ),
    "null": (
        {"examples": [{"x": None}]},
        "Feature: x has element with unexpected JSON type: Null",
    ),
    "a list in a list": (
        {"examples": [{"x": [[1.0]]}]},
        "Feature: x has element with unexpected JSON type: Array",
    ),
    "an object": (
        {"examples": [{"x": {"y": 1}}]},
        "Feature: x has element with unexpected JSON type: Object",
    ),
    "numbers and text": (
        {"examples": [{"x": [1.0, "a"]}]},
        "Unexpected element type in feature: x expecting type: float",
    ),
    "beyond 64 bits": (
        {"examples": [{"x": 2**63}]},
        "Feature: x has uint64_t element. Only int64_t is supported.",
    ),
    "broken base64": (
        {"examples": [{"x": {"b64": "?"}}]},
        "Unable to base64 decode",
    ),
    "unknown signature": (
        {"examples": [{"x": 1.0}]},
        "No signature was found with the name: serving_default",
    ),
}


@pytest.mark.parametrize("method", ["classify", "regress"])
@pytest.mark.parametrize("case", REST_INVALID)
def test_rest_refuses(
    example_server: ModelServer, rest: Rest, method: str, case: str
) -> None:
    body, text = REST_INVALID[case]
    answer = rest(example_server, f"/v1/models/example:{method}", body)
    assert answer == (400, {"error": text})
