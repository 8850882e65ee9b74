"""Who waits for an answer, until when, and what ends when nobody does any more."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from grpc import StatusCode

from ..errors import ServingError


class Caller:
    """Who waits for an answer.

    Args:
        deadline: until when, by `time.monotonic`; None is for ever. Nothing begins for
            it any more then; whoever made the caller lets it leave, too.

    Attributes:
        gone: whether nobody waits any more.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.gone = False
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []

    def leave(self) -> None:
        """Waits no more, and stops what is done for it; any thread may say so."""
        with self._lock:
            self.gone = True
            for stop in self._stops:
                stop()
            self._stops.clear()

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Calls `stop`, once at most, if the caller leaves within, or has left before.

        Once this has ended, `stop` neither runs nor will.
        """
        with self._lock:
            if self.gone:
                stop()
            else:
                self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._stops.remove(stop)

    def time_left(self) -> float | None:
        """Seconds until the deadline, None without one.

        Raises:
            ServingError: the deadline has passed, or nobody waits any more.
        """
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise ServingError(
                StatusCode.DEADLINE_EXCEEDED, "the deadline of the request has passed"
            )
        if self.gone:
            raise ServingError(StatusCode.CANCELLED, "the request was cancelled")
        return left


FOREVER = Caller()
