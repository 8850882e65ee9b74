"""Errors as OpenAI's API tells them.

See https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

from typing import Any

from grpc import StatusCode
from pydantic import ValidationError

from ..errors import ServingError

_INVALID = "invalid_request_error"
_SERVER = "server_error"
# Completions take about so long, and so does a server that is replaced.
_RETRY_SECONDS = 1

# What the model server says, as HTTP status, type and code of the API. Its refusal of
# the gateway itself is no fault of whoever asks.
_UPSTREAM: dict[StatusCode, tuple[int, str, str | None]] = {
    StatusCode.INVALID_ARGUMENT: (400, _INVALID, None),
    StatusCode.OUT_OF_RANGE: (400, _INVALID, None),
    StatusCode.FAILED_PRECONDITION: (400, _INVALID, None),
    # Names that the gateway does not know do not come to the model server.
    StatusCode.NOT_FOUND: (503, _SERVER, "service_unavailable"),
    StatusCode.RESOURCE_EXHAUSTED: (429, "rate_limit_error", "rate_limit_exceeded"),
    StatusCode.UNIMPLEMENTED: (501, _SERVER, None),
    StatusCode.UNAUTHENTICATED: (502, _SERVER, None),
    StatusCode.PERMISSION_DENIED: (502, _SERVER, None),
    StatusCode.UNAVAILABLE: (503, _SERVER, "service_unavailable"),
    StatusCode.DEADLINE_EXCEEDED: (504, _SERVER, "timeout"),
}


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: what is wrong, for a person.
        kind: OpenAI's `type` of the error.
        param: the field of the request that is wrong, if one is.
        code: what a program may look at.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = _INVALID,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code

    @property
    def headers(self) -> dict[str, str]:
        """What goes along with the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        if self.status in (429, 503):
            return {"Retry-After": str(_RETRY_SECONDS)}
        return {}

    def body(self) -> dict[str, Any]:
        """The JSON that is answered."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


def invalid(message: str, param: str | None = None) -> ApiError:
    """The error for a request that cannot be answered as it is."""
    return ApiError(400, message, param=param)


def api_error(error: ServingError) -> ApiError:
    """What the model server has said, as this API says it."""
    status, kind, code = _UPSTREAM.get(error.code, (500, _SERVER, None))
    return ApiError(status, error.message, kind=kind, code=code)


def unexpected(error: Exception) -> ApiError:
    """The error for what nobody has thought of."""
    return ApiError(500, f"{type(error).__name__}: {error}", kind=_SERVER)


def refusal(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a body."""
    first = error.errors(include_url=False)[0]
    kind, path = first["type"], [str(part) for part in first["loc"]]
    if kind in ("json_invalid", "model_type", "model_attributes_type"):
        return not_json(first["msg"])
    name = ".".join(path)
    if kind == "extra_forbidden":
        return unknown(name)
    if kind == "missing":
        return invalid(f"You must provide a {name} parameter", name)
    return invalid(f"'{name}': {first['msg']}", path[0] if path else None)


def unknown(field: str) -> ApiError:
    """The error for a field that no request has."""
    return invalid(f"Unrecognized request argument supplied: {field}", field)


def not_json(why: str) -> ApiError:
    """The error for a body that cannot be read."""
    return invalid(f"The body of the request is not a JSON object: {why}")
