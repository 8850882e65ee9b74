"""The REST interface of TensorFlow Serving: predict, status and metadata.

See https://www.tensorflow.org/tfx/serving/api_rest; error messages are those of
TensorFlow Serving's `http_rest_api_handler.cc`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import tensorflow as tf
import uvicorn
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import StatusCode
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2

from ..errors import ServingError
from .core import METADATA_FIELD, ModelSpec, ServerCore
from .json_tensors import arrays_from_json, parse_request, response_body
from .servable import DEFAULT_SIGNATURE

_MODEL = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST_PATH = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_MODEL}:(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_GET_PATH = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_MODEL}(?P<metadata>/metadata)?",
    re.IGNORECASE | re.ASCII,
)

_HTTP_STATUS = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.UNAUTHENTICATED: 401,
}

_logger = logging.getLogger(__name__)


class RestServer:
    """The REST interface on a socket, in a thread of its own.

    Args:
        core: answers the requests.
        listener: a socket that listens already.
        threads: requests worked on at a time.
    """

    def __init__(self, core: ServerCore, listener: socket.socket, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="langzoo-rest")
        config = uvicorn.Config(
            rest_app(core, self._executor),
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


def rest_app(core: ServerCore, executor: Executor) -> Starlette:
    """The REST interface as an ASGI application.

    Args:
        core: answers the requests.
        executor: runs them, off the event loop.
    """

    async def endpoint(request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)
        # As it was sent: a model's name may hold an escaped slash.
        raw_path = request.scope.get("raw_path") or request.url.path.encode()
        path = raw_path.partition(b"?")[0].decode("latin-1")
        loop = asyncio.get_running_loop()
        status, content = await loop.run_in_executor(
            executor, _answer, core, request.method, path, body
        )
        return Response(content, status_code=status, media_type="application/json")

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(routes=[Route("/v1/{path:path}", endpoint, methods=methods)])


def _answer(core: ServerCore, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """The HTTP status and the body for a request."""
    try:
        if method == "POST" and (match := _POST_PATH.fullmatch(path)):
            return 200, _post(core, match, body)
        if method in ("GET", "HEAD") and (match := _GET_PATH.fullmatch(path)):
            return 200, _get(core, match)
        error = _invalid(f"Malformed request: {method} {path}")
    except ServingError as refused:
        error = refused
    except RecursionError:
        error = _invalid("JSON Parse error: nested too deeply")
    except Exception as unexpected:
        _logger.exception("a request failed")
        message = f"{type(unexpected).__name__}: {unexpected}"
        error = ServingError(StatusCode.INTERNAL, message)
    content = json.dumps({"error": error.message}, indent=4, ensure_ascii=False)
    return _HTTP_STATUS.get(error.code, 500), content.encode("utf-8", "replace")


def _model_spec(match: re.Match[str]) -> ModelSpec:
    version, label = match["version"], match["label"]
    if version is not None and int(version) >= 2**63:
        raise _invalid(f"Failed to convert version: {version} to numeric.")
    return ModelSpec(
        unquote(match["name"] or ""),
        version=None if version is None else int(version),
        label=None if label is None else unquote(label),
    )


def _post(core: ServerCore, match: re.Match[str], body: bytes) -> bytes:
    spec = _model_spec(match)
    if match["method"] != "predict":
        raise ServingError(
            StatusCode.UNIMPLEMENTED, f"Method {match['method']} is not implemented"
        )
    request = parse_request(body)
    with core.use(spec) as servable:
        name = request.signature_name or DEFAULT_SIGNATURE
        signature = servable.signature(name)
        if signature is None:
            raise _invalid(
                f'Serving signature name: "{name}" not found in signature def'
            )
        dtypes = {
            alias: tf.dtypes.as_dtype(signature.definition.inputs[alias].dtype)
            for alias in signature.inputs
        }
        layout, inputs = arrays_from_json(request, dtypes)
        outputs = signature.run(inputs)
    return response_body(outputs, layout)


def _get(core: ServerCore, match: re.Match[str]) -> bytes:
    spec = _model_spec(match)
    if not spec.name:
        raise _invalid("Missing model name in request.")
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


def _invalid(message: str) -> ServingError:
    return ServingError(StatusCode.INVALID_ARGUMENT, message)
