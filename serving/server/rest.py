"""The REST interface of TensorFlow Serving, and its metrics.

See https://www.tensorflow.org/tfx/serving/api_rest; error messages are those of
TensorFlow Serving's `http_rest_api_handler.cc`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import logging
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import tensorflow as tf
import uvicorn
import uvicorn.protocols.http.h11_impl
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import StatusCode
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    model_pb2,
    regression_pb2,
)

from ..errors import HTTP_STATUS, ServingError, invalid
from . import inference
from .caller import Caller
from .core import METADATA_FIELD, ModelSpec, ServerCore
from .intake import Intake
from .json_examples import classification_body, input_from_json, regression_body
from .json_tensors import JsonRequest, arrays_from_json, parse_request, response_body
from .limits import LARGEST_REQUEST, LARGEST_REQUESTS, QUEUE_SIZE
from .servable import DEFAULT_SIGNATURE, Servable

_MODEL = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST_PATH = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_MODEL}:(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_GET_PATH = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_MODEL}(?P<metadata>/metadata)?",
    re.IGNORECASE | re.ASCII,
)

METRICS_PATH = "/monitoring/prometheus/metrics"
# A connection that sends no request, or half a head, is kept for so long.
_IDLE_SECONDS = 10.0
_MOST_CONNECTIONS = 1000
_HTTP_TOO_LARGE = 413
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestOptions:
    """How the REST interface answers.

    Attributes:
        threads: requests worked on at a time; None is as many as over gRPC.
        queue_size: requests that may wait beside those; more are refused with 429.
        timeout: seconds for the body to arrive, and again for the answer.
        cors: let pages of other origins read the answers.
        metrics_path: where Prometheus reads the metrics; None is nowhere.
        max_body_bytes: of a request's body, decompressed; larger ones are refused
            with 413.
        idle_seconds: how long a connection may be silent, or send the head of a
            request.
    """

    threads: int | None = None
    queue_size: int = QUEUE_SIZE
    timeout: float | None = 30.0
    cors: bool = False
    metrics_path: str | None = METRICS_PATH
    max_body_bytes: int = LARGEST_REQUEST
    idle_seconds: float = _IDLE_SECONDS


class RestServer:
    """The REST interface on a socket, in a thread of its own.

    Args:
        core: answers the requests.
        listener: a socket that listens already.
        options: how it answers.
        tls: secures the connections; None answers in the clear.
    """

    def __init__(
        self,
        core: ServerCore,
        listener: socket.socket,
        options: RestOptions,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._executor = ThreadPoolExecutor(
            options.threads, thread_name_prefix="langzoo-rest"
        )
        config = uvicorn.Config(
            rest_app(core, self._executor, options),
            http=type("Protocol", (_Protocol,), {"idle_seconds": options.idle_seconds}),
            ssl_context_factory=None if tls is None else lambda config, default: tls,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="langzoo-rest"
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Stops to listen and lets requests finish for `grace_seconds`."""
        # Zero would mean without limit.
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_seconds))
        self._server.should_exit = True
        self._thread.join()
        self._executor.shutdown(wait=False)


class _Protocol(uvicorn.protocols.http.h11_impl.H11Protocol):
    """HTTP that waits neither for a head, nor for a reader, for ever."""

    idle_seconds = _IDLE_SECONDS
    _idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._between_requests():
            self._unwatch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        super().shutdown()
        if self._between_requests() and not self.transport.get_write_buffer_size():
            # Over TLS the other side's farewell would be waited for.
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        self._unwatch()
        if self._between_requests():
            self._idle = self.loop.call_later(self.idle_seconds, self._end)

    def _unwatch(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end(self, unread: int | None = None) -> None:
        """Closes; who has not read a byte more by the next time is cut off."""
        left = self.transport.get_write_buffer_size()
        if unread is not None and left >= unread:
            self.transport.abort()
            return
        self.transport.close()
        self._idle = self.loop.call_later(self.idle_seconds, self._end, left)


@contextlib.asynccontextmanager
async def _body(
    request: Request, intake: Intake, options: RestOptions
) -> AsyncIterator[bytes]:
    """The body of a request, which is one of those that were taken in meanwhile.

    Raises:
        ServingError: they are too many.
        TimeoutError: it does not come in time.
        _TooLargeError: it is.
    """
    largest, size, parts = options.max_body_bytes, 0, []
    intake.enter()
    try:
        if int(request.headers.get("content-length", 0)) > largest:
            raise _TooLargeError(largest)
        # Whoever sends slowly must not keep a place for ever.
        async with asyncio.timeout(options.timeout):
            async for part in request.stream():
                if size + len(part) > largest:
                    raise _TooLargeError(largest)
                intake.grow(len(part))
                size += len(part)
                parts.append(part)
        body = b"".join(parts)
        parts.clear()
        yield body
    finally:
        intake.leave(size)


class _TooLargeError(ServingError):
    """A body is beyond what is taken."""

    def __init__(self, limit: int) -> None:
        message = f"the body is larger than {limit} bytes, the most that is taken"
        super().__init__(StatusCode.RESOURCE_EXHAUSTED, message)


def rest_app(core: ServerCore, executor: Executor, options: RestOptions) -> Starlette:
    """The REST interface as an ASGI application.

    Args:
        core: answers the requests.
        executor: runs them, off the event loop.
        options: how it answers.
    """
    headers = _CORS_HEADERS if options.cors else {}
    most_requests = (options.threads or 1) + options.queue_size
    intake = Intake(most_requests, LARGEST_REQUESTS * options.max_body_bytes)

    async def endpoint(request: Request) -> Response:
        if request.method == "OPTIONS":
            wanted = request.headers.get("origin", "")
            status = 200 if re.match("https?://", wanted) else 400
            return Response(status_code=status, headers=headers)
        try:
            async with _body(request, intake, options) as body:
                status, content = await _ask(core, executor, options, request, body)
        except ClientDisconnect:
            status, content = 499, b""
        except TimeoutError:
            message = "the request came too slowly"
            late = ServingError(StatusCode.DEADLINE_EXCEEDED, message)
            status, content = _error(late)
        except ServingError as refused:
            status, content = _error(refused)
        return Response(content, status, headers, "application/json")

    async def metrics(request: Request) -> Response:
        return Response(core.metrics.page(), media_type="text/plain")

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    routes = [Route("/v1/{path:path}", endpoint, methods=methods)]
    if options.metrics_path is not None:
        routes.insert(0, Route(options.metrics_path, metrics))
    return Starlette(routes=routes)


async def _ask(
    core: ServerCore,
    executor: Executor,
    options: RestOptions,
    request: Request,
    body: bytes,
) -> tuple[int, bytes]:
    """The HTTP status and the body of the answer to a request."""
    # As it was sent: a model's name may hold an escaped slash.
    raw_path = request.scope.get("raw_path") or request.url.path.encode()
    path = raw_path.partition(b"?")[0].decode("latin-1")
    limit = None
    if "gzip" in request.headers.get("content-encoding", ""):
        limit = options.max_body_bytes
    timeout = options.timeout
    caller = Caller(None if timeout is None else time.monotonic() + timeout)
    work = executor.submit(_answer, core, request.method, path, body, caller, limit)
    watch = asyncio.create_task(_leave_with(request, caller, work))
    answer = asyncio.wrap_future(work)
    try:
        await asyncio.wait([answer], timeout=timeout)
        if not answer.done():
            late = ServingError(
                StatusCode.DEADLINE_EXCEEDED, "the answer took too long"
            )
            return _error(late)
        return (499, b"") if answer.cancelled() else answer.result()
    finally:
        watch.cancel()
        caller.leave()
        work.cancel()


async def _leave_with(request: Request, caller: Caller, work: Future[Any]) -> None:
    """Stops the work on a request if whoever sent it hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    caller.leave()
    work.cancel()


def _answer(
    core: ServerCore,
    method: str,
    path: str,
    body: bytes,
    caller: Caller,
    gzip_limit: int | None,
) -> tuple[int, bytes]:
    """The HTTP status and the body for a request; a limit says that it is gzip."""
    try:
        caller.time_left()
        if gzip_limit is not None:
            body = _decompressed(body, gzip_limit)
        if method == "POST" and (match := _POST_PATH.fullmatch(path)):
            return 200, _post(core, match, body, caller)
        if method in ("GET", "HEAD") and (match := _GET_PATH.fullmatch(path)):
            return 200, _get(core, match)
        error = invalid(f"Malformed request: {method} {path}")
    except ServingError as refused:
        error = refused
    except RecursionError:
        error = invalid("JSON Parse error: nested too deeply")
    except Exception as unexpected:
        _logger.exception("a request failed")
        message = f"{type(unexpected).__name__}: {unexpected}"
        error = ServingError(StatusCode.INTERNAL, message)
    return _error(error)


def _decompressed(body: bytes, limit: int) -> bytes:
    try:
        # Not all at once: a kilobyte may stand for a megabyte.
        content = gzip.GzipFile(fileobj=io.BytesIO(body)).read(limit + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise invalid(f"the body is no gzip: {error}") from error
    if len(content) > limit:
        raise _TooLargeError(limit)
    return content


def _error(error: ServingError) -> tuple[int, bytes]:
    content = json.dumps({"error": error.message}, indent=4, ensure_ascii=False)
    status = HTTP_STATUS.get(error.code, 500)
    if isinstance(error, _TooLargeError):
        status = _HTTP_TOO_LARGE
    return status, content.encode("utf-8", "replace")


def _model_spec(match: re.Match[str]) -> ModelSpec:
    version, label = match["version"], match["label"]
    if version is not None and int(version) >= 2**63:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return ModelSpec(
        unquote(match["name"] or ""),
        version=None if version is None else int(version),
        label=None if label is None else unquote(label),
    )


def _post(core: ServerCore, match: re.Match[str], body: bytes, caller: Caller) -> bytes:
    spec = _model_spec(match)
    method = match["method"].lower()
    answer = {"predict": _predict, "classify": _classify, "regress": _regress}[method]
    with core.counted(spec.name, method, "REST"):
        request = parse_request(body)
        with core.use(spec) as servable, core.running(spec.name, method):
            return answer(servable, spec, request, caller)


def _predict(
    servable: Servable, spec: ModelSpec, request: JsonRequest, caller: Caller
) -> bytes:
    name = request.signature_name or DEFAULT_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    dtypes = {
        alias: tf.dtypes.as_dtype(signature.definition.inputs[alias].dtype)
        for alias in signature.inputs
    }
    layout, inputs = arrays_from_json(request, dtypes)
    return response_body(signature.run(inputs, caller=caller), layout)


def _classify(
    servable: Servable, spec: ModelSpec, request: JsonRequest, caller: Caller
) -> bytes:
    message = classification_pb2.ClassificationRequest(input=input_from_json(request))
    _fill_spec(message.model_spec, spec, request)
    return classification_body(inference.classify(servable, message, caller).result)


def _regress(
    servable: Servable, spec: ModelSpec, request: JsonRequest, caller: Caller
) -> bytes:
    message = regression_pb2.RegressionRequest(input=input_from_json(request))
    _fill_spec(message.model_spec, spec, request)
    return regression_body(inference.regress(servable, message, caller).result)


def _fill_spec(
    target: model_pb2.ModelSpec, spec: ModelSpec, request: JsonRequest
) -> None:
    target.name = spec.name
    target.signature_name = request.signature_name


def _get(core: ServerCore, match: re.Match[str]) -> bytes:
    spec = _model_spec(match)
    if not spec.name:
        raise invalid("Missing model name in request.")
    if match["metadata"] is None:
        answer = _proto_json(core.status(spec), original_names=False)
    else:
        response = core.metadata(spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[METADATA_FIELD].Unpack(signatures)
        answer = {
            "model_spec": _proto_json(response.model_spec),
            "metadata": {METADATA_FIELD: _proto_json(signatures)},
        }
    return json.dumps(answer, indent=1).encode()


def _proto_json(message: Message, original_names: bool = True) -> dict[str, Any]:
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=original_names,
        always_print_fields_with_no_presence=True,
    )
