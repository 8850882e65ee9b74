"""Predict, Classify, Regress and MultiInference on one loaded version.

Codes and messages of errors are those of TensorFlow Serving's `predict_util.cc`,
`classifier.cc`, `regressor.cc` and `multi_inference.cc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from ..errors import ServingError, invalid
from .caller import FOREVER, Caller
from .servable import DEFAULT_SIGNATURE, Servable, Signature
from .tensors import (
    LARGEST_EXPANSION,
    array_to_content_proto,
    array_to_proto,
    shape_of,
)

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def predict(
    servable: Servable,
    request: predict_pb2.PredictRequest,
    caller: Caller = FOREVER,
    *,
    as_content: bool = False,
) -> predict_pb2.PredictResponse:
    """The answer to a Predict request.

    Args:
        servable: the version that answers.
        request: the request.
        caller: who waits for the answer.
        as_content: pack the outputs as bytes rather than as typed values.

    Raises:
        ServingError: the request does not fit the model.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise ServingError(
            StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{name}" not found.',
        )
    method = signature.definition.method_name
    if servable.check_methods and method not in (PREDICT, CLASSIFY, REGRESS):
        raise ServingError(
            StatusCode.INTERNAL,
            "Expected prediction signature method_name to be one of "
            f"{{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {method}",
        )
    arrays = signature.run(
        signature.parse_inputs(request.inputs), request.output_filter, caller
    )
    convert = array_to_content_proto if as_content else array_to_proto
    response = predict_pb2.PredictResponse(
        outputs={
            alias: convert(array, signature.output_dtype(alias))
            for alias, array in arrays.items()
        }
    )
    _fill_spec(response.model_spec, request.model_spec, servable)
    return response


def classify(
    servable: Servable,
    request: classification_pb2.ClassificationRequest,
    caller: Caller = FOREVER,
) -> classification_pb2.ClassificationResponse:
    """The answer to a Classify request.

    Raises:
        ServingError: the request does not fit the model.
    """
    signature = _named(servable, request.model_spec)
    _check_classification(servable, signature.definition)
    response = classification_pb2.ClassificationResponse(
        result=_classifications(signature, _examples(request.input), caller)
    )
    _fill_spec(response.model_spec, request.model_spec, servable)
    return response


def regress(
    servable: Servable,
    request: regression_pb2.RegressionRequest,
    caller: Caller = FOREVER,
) -> regression_pb2.RegressionResponse:
    """The answer to a Regress request.

    Raises:
        ServingError: the request does not fit the model.
    """
    signature = _named(servable, request.model_spec)
    _check_regression(servable, signature.definition)
    response = regression_pb2.RegressionResponse(
        result=_regressions(signature, _examples(request.input), caller)
    )
    _fill_spec(response.model_spec, request.model_spec, servable)
    return response


def multi_inference(
    servable: Servable,
    request: inference_pb2.MultiInferenceRequest,
    caller: Caller = FOREVER,
) -> inference_pb2.MultiInferenceResponse:
    """The answer to a MultiInference request: its tasks, on one list of examples.

    Raises:
        ServingError: the request does not fit the model.
    """
    signatures = _task_signatures(servable, request)
    examples = _examples(request.input)
    response = inference_pb2.MultiInferenceResponse()
    for task, signature in zip(request.tasks, signatures, strict=True):
        result = response.results.add()
        if task.method_name == CLASSIFY:
            result.classification_result.CopyFrom(
                _classifications(signature, examples, caller)
            )
        else:
            result.regression_result.CopyFrom(_regressions(signature, examples, caller))
        _fill_spec(result.model_spec, task.model_spec, servable)
    return response


def _task_signatures(
    servable: Servable, request: inference_pb2.MultiInferenceRequest
) -> list[Signature]:
    """The signature of each task, all checked before any is run."""
    signatures: dict[str, Signature] = {}
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same "
                "model name."
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in signatures:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = servable.signature(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name == CLASSIFY:
            _check_classification(servable, signature.definition)
        elif task.method_name == REGRESS:
            _check_regression(servable, signature.definition)
        else:
            raise ServingError(
                StatusCode.UNIMPLEMENTED,
                f"Unsupported signature method_name: {task.method_name}",
            )
        signatures[name] = signature
    return list(signatures.values())


def _named(servable: Servable, spec: model_pb2.ModelSpec) -> Signature:
    name = spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    return signature


def _check_classification(
    servable: Servable, definition: meta_graph_pb2.SignatureDef
) -> None:
    _check_method(servable, definition, "classification", CLASSIFY)
    _check_one_input(definition, "classification")
    if len(definition.outputs) not in (1, 2):
        raise invalid(
            f"Expected one or two output Tensors, found {len(definition.outputs)}"
        )
    if not {"classes", "scores"} & set(definition.outputs):
        raise invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {definition}'
        )


def _check_regression(
    servable: Servable, definition: meta_graph_pb2.SignatureDef
) -> None:
    _check_method(servable, definition, "regression", REGRESS)
    if len(definition.inputs) == 1 and len(definition.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    _check_one_input(definition, "regression")
    if "outputs" not in definition.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {definition}")


def _check_method(
    servable: Servable, definition: meta_graph_pb2.SignatureDef, kind: str, method: str
) -> None:
    if servable.check_methods and definition.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. "
            f"Was: {definition.method_name}"
        )


def _check_one_input(definition: meta_graph_pb2.SignatureDef, kind: str) -> None:
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if "inputs" not in definition.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {definition}")


def _examples(given: input_pb2.Input) -> np.ndarray:
    """The examples as the strings that a graph parses, with their context merged in."""
    kind = given.WhichOneof("kind")
    examples = getattr(given, kind).examples if kind else ()
    if not examples:
        raise invalid("Input is empty.")
    # Two messages one after the other are, on the wire, one that is merged of both.
    context = b""
    if kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
    size, count = len(context), len(examples)
    if size * (count - 1) > LARGEST_EXPANSION:
        raise invalid(f"a context of {size} bytes is too much for {count} examples")
    return np.array([context + e.SerializeToString() for e in examples], object)


def _classifications(
    signature: Signature, examples: np.ndarray, caller: Caller
) -> classification_pb2.ClassificationResult:
    wanted = [name for name in ("classes", "scores") if name in signature.outputs]
    outputs = signature.run({"inputs": examples}, wanted, caller)
    expected = {"classes": types_pb2.DT_STRING, "scores": types_pb2.DT_FLOAT}
    for name, array in outputs.items():
        _check_matrix(signature, name, array, expected[name], len(examples))
    if len({array.shape[1] for array in outputs.values()}) > 1:
        classes, scores = (array.shape[1] for array in outputs.values())
        raise invalid(
            "Tensors class and score should match in dim_size(1). "
            f"Got {classes} vs. {scores}"
        )
    return _classification_result(outputs)


def _check_matrix(
    signature: Signature, name: str, array: np.ndarray, dtype: int, rows: int
) -> None:
    if array.ndim != 2:
        raise invalid(
            f"Expected Tensor shape: [batch_size num_classes] but got {shape_of(array)}"
        )
    given = signature.output_dtype(name).as_datatype_enum
    if given != dtype:
        raise invalid(
            f"Expected {name} Tensor of {types_pb2.DataType.Name(dtype)}. "
            f"Got: {types_pb2.DataType.Name(given)}"
        )
    if array.shape[0] != rows:
        raise invalid(
            f"Expected {name} output batch size of {rows}. Got: {array.shape[0]}"
        )


def _classification_result(
    outputs: Mapping[str, np.ndarray],
) -> classification_pb2.ClassificationResult:
    result = classification_pb2.ClassificationResult()
    rows, columns = next(iter(outputs.values())).shape
    for row in range(rows):
        classifications = result.classifications.add()
        for column in range(columns):
            entry = classifications.classes.add()
            if "classes" in outputs:
                # The field is text, whatever bytes the model gives.
                entry.label = outputs["classes"][row, column].decode(errors="replace")
            if "scores" in outputs:
                entry.score = outputs["scores"][row, column]
    return result


def _regressions(
    signature: Signature, examples: np.ndarray, caller: Caller
) -> regression_pb2.RegressionResult:
    output = signature.run({"inputs": examples}, ["outputs"], caller)["outputs"]
    if not (output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or "
            f"[batch_size, 1] but got {shape_of(output)}"
        )
    if output.shape[0] != len(examples):
        raise invalid(
            "Input batch size did not match output batch size: "
            f"{len(examples)} vs. {output.shape[0]}"
        )
    dtype = signature.output_dtype("outputs")
    if dtype != tf.float32:
        name = types_pb2.DataType.Name(dtype.as_datatype_enum)
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {name}")
    result = regression_pb2.RegressionResult()
    for value in output.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _fill_spec(target: Any, asked: model_pb2.ModelSpec, servable: Servable) -> None:
    target.name = asked.name
    target.signature_name = asked.signature_name or DEFAULT_SIGNATURE
    target.version.value = servable.version
