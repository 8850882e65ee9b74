"""The requests that an interface works on, and those that wait for it."""

from __future__ import annotations

import threading

from grpc import StatusCode

from ..errors import ServingError


class Intake:
    """Bounds their number and bytes; any thread may say what comes and goes.

    Args:
        most_requests: how many.
        most_bytes: of all of them together.
    """

    def __init__(self, most_requests: int, most_bytes: int) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._requests = self._bytes = 0
        self._lock = threading.Lock()

    def enter(self, size: int = 0) -> None:
        """Lets in a request, of which so many bytes are there.

        Raises:
            ServingError: RESOURCE_EXHAUSTED, they would be too many.
        """
        with self._lock:
            self._add(requests=1, size=size)

    def grow(self, size: int) -> None:
        """So many bytes more are there of a request; raises as `enter` does."""
        with self._lock:
            self._add(requests=0, size=size)

    def leave(self, size: int) -> None:
        """A request has ended, of which so many bytes were there."""
        with self._lock:
            self._requests -= 1
            self._bytes -= size

    def _add(self, requests: int, size: int) -> None:
        if self._requests + requests > self._most_requests:
            raise _too_many("requests")
        if self._bytes + size > self._most_bytes:
            raise _too_many("bytes")
        self._requests += requests
        self._bytes += size


def _too_many(what: str) -> ServingError:
    return ServingError(StatusCode.RESOURCE_EXHAUSTED, f"too many {what} are waiting")
