"""The gRPC services: those of TensorFlow Serving, health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
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

from ..errors import ServingError, invalid
from .caller import Caller
from .core import METADATA_FIELD, ModelSpec, ServerCore, require_spec
from .intake import Intake
from .profiler import PROFILER_SERVICE, Profiler

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
_Methods = dict[str, tuple[type[Message], Callable[..., Message]]]
_Result = TypeVar("_Result")


class ModelServices:
    """The remote procedures, each from a request message to a response message.

    Args:
        core: answers them.
        profiler: answers those of TensorFlow's profiler; None leaves them out.
    """

    def __init__(self, core: ServerCore, profiler: Profiler | None = None) -> None:
        self._core = core
        self._profiler = profiler

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, caller: Caller
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """PredictionService.GetModelMetadata."""
        require_spec(request)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != METADATA_FIELD:
                raise invalid(f"Metadata field {field} is not supported")
        return self._core.metadata(ModelSpec.of(request.model_spec))

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest, caller: Caller
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """ModelService.GetModelStatus."""
        require_spec(request)
        return self._core.status(ModelSpec.of(request.model_spec))

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, caller: Caller
    ) -> model_management_pb2.ReloadConfigResponse:
        """ModelService.HandleReloadConfigRequest."""
        return self._core.reload(request, caller.time_left())

    def methods(self) -> dict[str, _Methods]:
        """The procedures of each service: what they take, and what answers."""
        core = self._core
        prediction: _Methods = {
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
        model: _Methods = {
            "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, self.status),
            "HandleReloadConfigRequest": (
                model_management_pb2.ReloadConfigRequest,
                self.reload,
            ),
        }
        services = {PREDICTION_SERVICE: prediction, MODEL_SERVICE: model}
        if self._profiler is not None:
            services[PROFILER_SERVICE] = self._profiler.methods()
        return services


class GrpcServer:
    """The gRPC interface, in a thread of its own.

    An event loop takes the requests, so that a client that sends slowly, or not at all,
    keeps nobody out; threads work on those that have come.

    Args:
        services: answers the requests.
        threads: requests worked on at a time.
        queue_size: requests that may wait beside those; more are refused with
            RESOURCE_EXHAUSTED.
        max_bytes: of all of these together; beyond them the same.
        arguments: gRPC's channel arguments.
    """

    def __init__(
        self,
        services: ModelServices,
        *,
        threads: int,
        queue_size: int,
        max_bytes: int,
        arguments: Sequence[tuple[str, str | int]],
    ) -> None:
        self._intake = Intake(threads + queue_size, max_bytes)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="langzoo-grpc")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="langzoo-grpc-loop", daemon=True
        )
        self._thread.start()
        self._health = health.aio.HealthServicer()
        self._server = self._await(self._create(services, arguments))

    def bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listens on an address as well, and gives its port.

        Raises:
            RuntimeError: it cannot.
        """

        async def bind() -> int:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)

        return self._await(bind())

    def start(self) -> None:
        """Begins to answer."""
        self._await(self._server.start())

    def set_serving(self) -> None:
        """Says from now on that the server is in health."""
        self._await(self._set_health(health_pb2.HealthCheckResponse.SERVING))

    def stop(self, grace_seconds: float) -> None:
        """Stops to listen and lets requests finish for `grace_seconds`."""
        self._await(self._health.enter_graceful_shutdown())
        self._await(self._server.stop(grace_seconds))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._executor.shutdown(wait=False)

    async def _create(
        self, services: ModelServices, arguments: Sequence[tuple[str, str | int]]
    ) -> grpc.aio.Server:
        server = grpc.aio.server(options=list(arguments))
        for service, methods in services.methods().items():
            handlers = {name: self._unary(*method) for name, method in methods.items()}
            handler = grpc.method_handlers_generic_handler(service, handlers)
            server.add_generic_rpc_handlers([handler])
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        _add_reflection(server)
        return server

    async def _set_health(self, status: Any) -> None:
        for name in _HEALTH_NAMES:
            await self._health.set(name, status)

    def _unary(
        self, request_type: type[Message], answer: Callable[..., Message]
    ) -> grpc.RpcMethodHandler:
        async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            size = len(data)
            left = context.time_remaining()
            caller = Caller(None if left is None else time.monotonic() + left)
            try:
                self._intake.enter(size)
                work = self._executor.submit(
                    _answer, request_type, answer, data, caller
                )
                # Whoever gives up is not worked for, but the place is free only then.
                work.add_done_callback(lambda _: self._intake.leave(size))
                return await asyncio.wrap_future(work)
            except ServingError as error:
                await _abort(context, error.code, error.message)
            finally:
                caller.leave()

        return grpc.unary_unary_rpc_method_handler(handle)

    def _await(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _answer(
    request_type: type[Message],
    answer: Callable[..., Message],
    data: bytes,
    caller: Caller,
) -> bytes:
    """Parses here rather than in gRPC, which would log a traceback for bad bytes."""
    try:
        caller.time_left()
        return answer(request_type.FromString(data), caller).SerializeToString()
    except ServingError:
        raise
    except DecodeError as error:
        raise ServingError(grpc.StatusCode.INTERNAL, str(error)) from error
    except Exception as error:
        _logger.exception("a request failed")
        message = f"{type(error).__name__}: {error}"
        raise ServingError(grpc.StatusCode.INTERNAL, message) from error


async def _abort(
    context: grpc.aio.ServicerContext, code: grpc.StatusCode, message: str
) -> NoReturn:
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "...TRUNCATED"
    await context.abort(code, message)
    raise AssertionError("abort does not return")


def _add_reflection(server: grpc.aio.Server) -> None:
    """Lets tools ask a server what it can be asked."""
    # Their descriptors are registered by being imported; that of the model service is
    # by the time that its old code fails with protobuf 6.
    for name in ("prediction_service_pb2", "model_service_pb2"):
        with contextlib.suppress(AttributeError):
            importlib.import_module(f"tensorflow_serving.apis.{name}")
    services = (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME)
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server)
