"""The gRPC services: those of TensorFlow Serving, health and reflection."""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from ..errors import ServingError
from .core import METADATA_FIELD, ModelSpec, ServerCore
from .servable import Caller

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
# The short names are those that TensorFlow Serving reports; none is the whole server.
_HEALTH_NAMES = (
    "PredictionService",
    "ModelService",
    PREDICTION_SERVICE,
    MODEL_SERVICE,
    "",
)

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

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, caller: Caller
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """PredictionService.GetModelMetadata."""
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise _invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != METADATA_FIELD:
                raise _invalid(f"Metadata field {field} is not supported")
        return self._core.metadata(ModelSpec.of(request.model_spec))

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest, caller: Caller
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """ModelService.GetModelStatus."""
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        return self._core.status(ModelSpec.of(request.model_spec))

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, caller: Caller
    ) -> model_management_pb2.ReloadConfigResponse:
        """ModelService.HandleReloadConfigRequest."""
        return self._core.reload(request, caller.time_left())

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server needs in order to serve these procedures."""
        core = self._core
        prediction: dict[str, tuple[type[Message], Callable[..., Message]]] = {
            "Predict": (predict_pb2.PredictRequest, core.predict),
            "Classify": (classification_pb2.ClassificationRequest, core.classify),
            "Regress": (regression_pb2.RegressionRequest, core.regress),
            "MultiInference": (
                inference_pb2.MultiInferenceRequest,
                core.multi_inference,
            ),
            "GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                self.metadata,
            ),
        }
        model: dict[str, tuple[type[Message], Callable[..., Message]]] = {
            "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, self.status),
            "HandleReloadConfigRequest": (
                model_management_pb2.ReloadConfigRequest,
                self.reload,
            ),
        }
        return [
            grpc.method_handlers_generic_handler(
                service, {name: _unary(*method) for name, method in methods.items()}
            )
            for service, methods in (
                (PREDICTION_SERVICE, prediction),
                (MODEL_SERVICE, model),
            )
        ]


class Health:
    """The standard health service: serving once every model is, and until the stop."""

    def __init__(self) -> None:
        self._servicer = health.HealthServicer(experimental_non_blocking=True)
        self.set(False)

    def add_to(self, server: grpc.Server) -> None:
        """Makes a server answer for its health."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def set(self, serving: bool) -> None:
        """Says from now on whether requests are answered."""
        status = health_pb2.HealthCheckResponse
        for name in _HEALTH_NAMES:
            self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)

    def stop(self) -> None:
        """Says from now on, and for good, that requests are not answered."""
        self._servicer.enter_graceful_shutdown()


def add_reflection(server: grpc.Server) -> None:
    """Lets tools ask a server what it can be asked."""
    # Their descriptors are registered by being imported; that of the model service is
    # by the time that its old code fails with protobuf 6.
    for name in ("prediction_service_pb2", "model_service_pb2"):
        with contextlib.suppress(AttributeError):
            importlib.import_module(f"tensorflow_serving.apis.{name}")
    services = (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME)
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server)


def _unary(
    request_type: type[_Request], answer: Callable[[_Request, Caller], Message]
) -> grpc.RpcMethodHandler:
    """Parses here rather than in gRPC, which would log a traceback for bad bytes."""

    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        left = context.time_remaining()
        caller = Caller(
            None if left is None else time.monotonic() + left,
            gone=lambda: not context.is_active(),
        )
        try:
            # Whoever gave up in the queue is not worked for.
            caller.time_left()
            return answer(request_type.FromString(data), caller).SerializeToString()
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
