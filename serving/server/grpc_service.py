"""The gRPC services: PredictionService and ModelService of TensorFlow Serving."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from ..errors import ServingError
from .core import METADATA_FIELD, ModelSpec, ServerCore
from .servable import DEFAULT_SIGNATURE
from .tensors import array_to_proto

_LONGEST_MESSAGE = 1024
_logger = logging.getLogger(__name__)
_Request = TypeVar("_Request", bound=Message)


class ModelServices:
    """The remote procedures, each from a request message to a response message.

    Args:
        core: answers them.
    """

    def __init__(self, core: ServerCore) -> None:
        self._core = core

    def predict(
        self, request: predict_pb2.PredictRequest
    ) -> predict_pb2.PredictResponse:
        """PredictionService.Predict."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self._core.use(_model_spec(request)) as servable:
            signature = servable.signature(name)
            if signature is None:
                raise ServingError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f'Serving signature key "{name}" not found.',
                )
            arrays = signature.run(
                signature.parse_inputs(request.inputs), request.output_filter
            )
            outputs = {
                alias: array_to_proto(array, signature.output_dtype(alias))
                for alias, array in arrays.items()
            }
            response = predict_pb2.PredictResponse(outputs=outputs)
            response.model_spec.name = request.model_spec.name
            response.model_spec.signature_name = name
            response.model_spec.version.value = servable.version
            return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """PredictionService.GetModelMetadata."""
        spec = _model_spec(request)
        if not request.metadata_field:
            raise _invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != METADATA_FIELD:
                raise _invalid(f"Metadata field {field} is not supported")
        return self._core.metadata(spec)

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """ModelService.GetModelStatus."""
        return self._core.status(_model_spec(request))

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server needs in order to serve these procedures."""
        return [
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService",
                {
                    "Predict": _unary(predict_pb2.PredictRequest, self.predict),
                    "GetModelMetadata": _unary(
                        get_model_metadata_pb2.GetModelMetadataRequest, self.metadata
                    ),
                },
            ),
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.ModelService",
                {
                    "GetModelStatus": _unary(
                        get_model_status_pb2.GetModelStatusRequest, self.status
                    ),
                },
            ),
        ]


def _model_spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise _invalid("Missing ModelSpec")
    spec: model_pb2.ModelSpec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def _unary(
    request_type: type[_Request], answer: Callable[[_Request], Message]
) -> grpc.RpcMethodHandler:
    """Parses here rather than in gRPC, which would log a traceback for bad bytes."""

    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(request_type.FromString(data)).SerializeToString()
        except ServingError as error:
            _abort(context, error)
        except DecodeError as error:
            _abort(context, ServingError(grpc.StatusCode.INTERNAL, str(error)))
        except Exception as error:
            _logger.exception("a request failed")
            message = f"{type(error).__name__}: {error}"
            _abort(context, ServingError(grpc.StatusCode.INTERNAL, message))

    return grpc.unary_unary_rpc_method_handler(handle)


def _abort(context: grpc.ServicerContext, error: ServingError) -> NoReturn:
    message = error.message
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "...TRUNCATED"
    context.abort(error.code, message)
    raise AssertionError("abort does not return")


def _invalid(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
