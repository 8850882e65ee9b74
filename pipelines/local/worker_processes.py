"""Beam's worker processes on this machine: where one dies, the run ends.

Where a worker process of its local runner is killed, by the system for want of memory,
say, Beam may wait for ever for the answer to what it last asked.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
from collections.abc import Iterator

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from ...components.errors import InputError

_DIED = "a worker process of Beam's has died"
_BEAM_SAYS = "Channel closed prematurely"  # where it notices
_POLL_SECONDS = 0.5
_COMMAND = f"{shlex.quote(sys.executable)} -m {__package__}.beam_worker"


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Ends what runs in a `with` statement when a worker process has died.

    Raises:
        InputError: Where that was so.
    """
    worker_handlers.WorkerHandler.register_environment(
        python_urns.SUBPROCESS_SDK, bytes
    )(_WatchedHandler)
    try:
        yield
    except RuntimeError as error:
        if _DIED not in str(error) and _BEAM_SAYS not in str(error):
            raise
        raise InputError(
            f"{_DIED}, perhaps for want of memory: nothing that it wrote is used; run "
            "again, or with fewer --direct_num_workers"
        ) from error


class _WatchedHandler(worker_handlers.SubprocessSdkWorkerHandler):
    """Answers in the place of a dead process, and lets none outlive the pipeline."""

    def start_worker(self) -> None:
        self._closed = threading.Event()
        self._worker_command_line = _COMMAND.encode()
        super().start_worker()
        threading.Thread(target=self._answer_when_dead, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        # Beam tells the processes to end that have asked for work; one that is still
        # starting would ask after that, and Beam wait for it for ever.
        self.control_conn.push(worker_handlers.BeamFnControlServicer._DONE_MARKER)
        super().close()

    def _answer_when_dead(self) -> None:
        self.worker_thread.join()
        futures = self.control_conn._futures_by_id
        while not self._closed.wait(_POLL_SECONDS):
            for request in list(futures):
                futures.pop(request).set(
                    beam_fn_api_pb2.InstructionResponse(
                        instruction_id=request, error=_DIED
                    )
                )
