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


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def status_code(number: int) -> grpc.StatusCode:
    """The status code with a number of google.rpc.Code; UNKNOWN if there is none."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)
