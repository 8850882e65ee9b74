"""The one error of the serving floor: a status code and a line of text."""

from __future__ import annotations

import grpc


class ServingError(Exception):
    """A request that cannot be answered.

    The server raises it towards its clients, the client towards its caller.

    Args:
        code: the canonical status code, as gRPC names it.
        message: what is wrong, for a person.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServingError:
    """The error for a request that is not as it should be."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


# As TensorFlow Serving answers over REST.
HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
# Where several codes have one status, the first of them; 502 is what proxies say of a
# server that is away.
_HTTP_CODES = {status: code for code, status in reversed(HTTP_STATUS.items())}
_HTTP_CODES |= {413: grpc.StatusCode.INVALID_ARGUMENT}  # too large: try no more
_HTTP_CODES |= {500: grpc.StatusCode.INTERNAL, 502: grpc.StatusCode.UNAVAILABLE}

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def status_code(number: int) -> grpc.StatusCode:
    """The status code with a number of google.rpc.Code; UNKNOWN if there is none."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


def code_of_http_status(status: int) -> grpc.StatusCode:
    """The likeliest code behind an HTTP status; UNKNOWN if there is none."""
    return _HTTP_CODES.get(status, grpc.StatusCode.UNKNOWN)
