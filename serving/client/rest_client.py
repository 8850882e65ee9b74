"""The client that waits, over REST.

See https://www.tensorflow.org/tfx/serving/api_rest for the interface.
"""

from __future__ import annotations

import array
import base64
import json
import random
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
import httpx
from google.protobuf import json_format

from .. import protocol
from ..errors import ServingError, code_of_http_status
from ..protocol import DType, State
from .base import (
    BACKOFF_JITTER,
    FIRST_BACKOFF_SECONDS,
    Deadline,
    SyncClient,
    signatures,
)
from .http_deadlines import keep_deadlines, until
from .questions import Answer, Question, unfit
from .results import Metadata, VersionStatus
from .tls import Tls

_WORTH_A_RETRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_DTYPES = {"DT_FLOAT": DType.FLOAT32, "DT_DOUBLE": DType.FLOAT64} | {
    f"DT_{dtype.name}": dtype for dtype in DType
}


@dataclass(eq=False, repr=False, kw_only=True)
class RestClient(SyncClient):
    """A client of one model over REST. It may be shared between threads.

    A server is not told of a deadline over REST, and may work beyond it.

    Args:
        target: `HOST:PORT` of the server's REST port, or the URL, with `https` and a
            path where a proxy stands before it.
        credentials: a `Tls` or an `ssl.SSLContext`; `https` alone believes in the
            certificate authorities that come with httpx.
        model_name, version, timeout, retries, batch_size, headers: as of `Client`.
    """

    credentials: Tls | ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.credentials
        context = given.ssl_context() if isinstance(given, Tls) else given
        scheme = "http" if context is None else "https"
        url = self.target if "://" in self.target else f"{scheme}://{self.target}"
        self._path = f"/v1/models/{quote(self.model_name, safe='')}"
        if self.version is not None:
            self._path += f"/versions/{self.version}"
        try:
            self._http = httpx.Client(
                base_url=url,
                headers=self.headers,
                verify=True if context is None else context,
            )
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.target} is no address: {error}") from None
        keep_deadlines(self._http)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _predict(self, question: Question[Any], deadline: Deadline) -> Answer:
        request = {
            "signature_name": question.signature,
            "inputs": {
                name: _to_json(values) for name, (_, values) in question.columns.items()
            },
        }
        body = self._call("POST", f"{self._path}:predict", deadline, request)
        outputs = body.get("outputs")
        if not isinstance(outputs, dict):
            raise self._foreign()
        return Answer(outputs, _from_json, question.rows, self.target)

    def _status(self, deadline: Deadline) -> list[VersionStatus]:
        body = self._call("GET", self._path, deadline)
        try:
            return [
                VersionStatus(
                    int(status["version"]),
                    State[status["state"]],
                    status.get("status", {}).get("error_message") or None,
                )
                for status in body["model_version_status"]
            ]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._foreign() from None

    def _metadata(self, deadline: Deadline) -> Metadata:
        body = self._call("GET", f"{self._path}/metadata", deadline)
        try:
            spec, found = body["model_spec"], body["metadata"]["signature_def"]
            message = json_format.ParseDict(
                found, protocol.SignatureDefMap(), ignore_unknown_fields=True
            )
            return Metadata(spec["name"], int(spec["version"]), signatures(message))
        except (KeyError, TypeError, ValueError, json_format.ParseError):
            raise self._foreign() from None

    def _foreign(self) -> ServingError:
        return unfit(self.target, "is not behind TensorFlow Serving's REST interface")

    def _call(
        self, method: str, path: str, deadline: Deadline, body: Any = None
    ) -> dict[str, Any]:
        for retry in range(self.retries + 1):
            try:
                return self._call_once(method, path, deadline, body)
            except ServingError as error:
                pause = FIRST_BACKOFF_SECONDS * 2**retry
                pause *= random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)
                if error.code not in _WORTH_A_RETRY or retry == self.retries:
                    raise
                time.sleep(min(pause, deadline.left()))
        raise AssertionError("the last try returns or raises")

    def _call_once(
        self, method: str, path: str, deadline: Deadline, body: Any
    ) -> dict[str, Any]:
        try:
            response = self._http.request(
                method, path, json=body, timeout=until(deadline.left())
            )
        except httpx.TimeoutException:
            raise deadline.exceeded() from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServingError(
                grpc.StatusCode.UNAVAILABLE, _no_connection(self.target, error)
            ) from None
        # A model's text need not be UTF-8.
        text = response.content.decode("utf-8", "surrogateescape")
        try:
            answer = json.loads(text, object_hook=_with_dtype_number)
        except ValueError:
            answer = None
        if response.status_code != 200:
            raise ServingError(
                code_of_http_status(response.status_code),
                _error_message(response, answer),
            )
        if not isinstance(answer, dict):
            raise self._foreign()
        return answer


def _no_connection(target: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"no secure connection to {target}: {reason}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return f"no server answers at {target}"
    return f"no answer from {target}: {reason or type(error).__name__}"


def _error_message(response: httpx.Response, answer: Any) -> str:
    message = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(message, str):
        message = f"HTTP status {response.status_code} {response.reason_phrase}"
    # Bytes of a request that came back are no text to print.
    return " ".join(message.encode("utf-8", "backslashreplace").decode().split())


def _with_dtype_number(value: dict[str, Any]) -> dict[str, Any]:
    """JSON names the dtypes of signatures; our messages hold their numbers."""
    if isinstance(value.get("dtype"), str):
        value["dtype"] = int(_DTYPES.get(value["dtype"], 0))
    return value


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(part) for part in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _from_json(value: Any) -> Any:
    """Strings as bytes, and numbers as the float32 that they were written from."""
    if isinstance(value, list):
        return [_from_json(part) for part in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, float):
        return array.array("f", [value])[0]
    return value
