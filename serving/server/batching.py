"""Joins requests into batches, as TensorFlow Serving's `BatchingSession` does.

Requests for the same outputs of the same signature are concatenated along their first
dimension, run at once and taken apart again. Signatures take turns, as in
`shared_batch_scheduler.h`. Codes and messages of errors are those of
`batching_session.cc` and `basic_batch_scheduler.h`; but a request that does not fit to
the others of its batch, or that the graph refuses, does not fail them with it.
"""

from __future__ import annotations

import collections
import contextlib
import math
import threading
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from grpc import StatusCode

from ..errors import ServingError, invalid
from .caller import Caller
from .metrics import Metrics
from .servable import Signature

_Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class BatchingParameters:
    """The keys of `--batching_parameters_file`, with TensorFlow Serving's defaults.

    Attributes:
        max_batch_size: rows in a request, and in a batch.
        batch_timeout_micros: how long a batch waits for more requests.
        max_enqueued_batches: beyond so many, requests are refused.
        num_batch_threads: batches run at a time, those of all models together.
        thread_pool_name: what the threads are called.
        allowed_batch_sizes: a batch is filled up to one of them; empty is any.
        pad_variable_length_inputs: fill up the other dimensions of inputs, too.
        enable_large_batch_splitting: take larger requests, and run them in pieces.
        max_execution_batch_size: rows in such a piece; 0 is `max_batch_size`.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 4
    thread_pool_name: str = "model_server_batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise ValueError(
                "batch_timeout_micros must be non-negative; was "
                f"{self.batch_timeout_micros}"
            )
        if self.largest_batch > self.max_batch_size:
            raise ValueError(
                f"max_batch_size must be greater than or equal to "
                f"max_execution_batch_size; was {self.max_batch_size} and "
                f"{self.largest_batch}"
            )
        self._check_allowed_sizes()

    def _check_allowed_sizes(self) -> None:
        sizes = self.allowed_batch_sizes
        if not sizes:
            return
        if list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
            raise ValueError(
                "allowed_batch_sizes entries must be monotonically increasing"
            )
        if sizes[-1] != self.largest_batch:
            limit = "max_batch_size"
            if self.enable_large_batch_splitting:
                limit = "max_execution_batch_size"
            raise ValueError(
                f"Last entry in allowed_batch_sizes must match {limit}; last entry was "
                f"{sizes[-1]}; expected {self.largest_batch}"
            )

    @property
    def largest_batch(self) -> int:
        """The most rows that are run at once."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size:
            return self.max_execution_batch_size
        return self.max_batch_size

    def padded_size(self, size: int) -> int:
        """The size to which a batch of `size` rows is filled up."""
        return next((s for s in self.allowed_batch_sizes if s >= size), size)


@dataclass(eq=False)
class _Task:
    """A request, or a piece of one, on its way through a batch."""

    feeds: _Arrays
    size: int
    caller: Caller
    enqueued: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    outputs: dict[str, np.ndarray] | None = None
    error: BaseException | None = None

    def finish(
        self,
        outputs: dict[str, np.ndarray] | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.outputs, self.error = outputs, error
        self.done.set()


@dataclass(eq=False)
class _Batch:
    opened: float
    tasks: list[_Task] = field(default_factory=list)
    closed: bool = False

    @property
    def size(self) -> int:
        return sum(task.size for task in self.tasks)


@dataclass(eq=False)
class _Queue:
    """The batches of one signature's requests for the same outputs, oldest first."""

    signature: Signature
    wanted: Sequence[str]
    parameters: BatchingParameters
    batches: collections.deque[_Batch] = field(default_factory=collections.deque)

    def add(self, tasks: Sequence[_Task]) -> None:
        """Takes all of the tasks or, if there is no room, none."""
        batch = self.batches[-1] if self.batches else None
        room = 0 if batch is None or batch.closed else self._room(batch)
        needed = sum(task.size for task in tasks)
        free = self.parameters.max_enqueued_batches - len(self.batches)
        if needed > room + free * self.parameters.largest_batch or (
            tasks[0].size > room and not free
        ):
            raise ServingError(
                StatusCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; "
                f"currently, max_enqueued_batches is "
                f"{self.parameters.max_enqueued_batches}",
            )
        for task in tasks:
            if batch is None or batch.closed or task.size > self._room(batch):
                if batch is not None:
                    batch.closed = True
                batch = _Batch(time.monotonic())
                self.batches.append(batch)
            batch.tasks.append(task)
            batch.closed = not self._room(batch)

    def remove(self, tasks: Collection[_Task]) -> list[_Task]:
        """Takes out those of the tasks that are in it; gives them."""
        removed = []
        for batch in self.batches:
            removed += [task for task in batch.tasks if task in tasks]
            batch.tasks = [task for task in batch.tasks if task not in tasks]
        self.batches = collections.deque(b for b in self.batches if b.tasks)
        return removed

    def _room(self, batch: _Batch) -> int:
        return self.parameters.largest_batch - batch.size

    def ready_at(self) -> float:
        """When the oldest batch may run."""
        batch = self.batches[0]
        if batch.closed:
            return 0.0
        return batch.opened + self.parameters.batch_timeout_micros / 1e6


class BatchScheduler:
    """The threads that run batches, shared by all models.

    Args:
        parameters: how many threads, and what the batches of models are like that say
            nothing else.
        metrics: counts what it does.
    """

    def __init__(self, parameters: BatchingParameters, metrics: Metrics) -> None:
        self.parameters = parameters
        self._metrics = metrics
        self._condition = threading.Condition()
        self._queues: dict[Hashable, _Queue] = {}
        self._closing = False
        self._threads = [
            threading.Thread(
                target=self._work,
                name=f"{parameters.thread_pool_name}-{i}",
                daemon=True,
            )
            for i in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self, timeout: float | None = None) -> None:
        """Ends the threads, for which it waits some seconds; what waits is refused."""
        with self._condition:
            self._closing = True
            waiting = [b for queue in self._queues.values() for b in queue.batches]
            self._queues.clear()
            self._condition.notify_all()
        for task in (task for batch in waiting for task in batch.tasks):
            task.finish(
                error=ServingError(StatusCode.UNAVAILABLE, "the server is stopping")
            )
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def submit(
        self,
        signature: Signature,
        wanted: Sequence[str],
        parameters: BatchingParameters,
        tasks: Sequence[_Task],
    ) -> None:
        """Queues the pieces of a request.

        Raises:
            ServingError: the queue is full.
        """
        key = (signature, frozenset(wanted))
        with self._condition:
            if self._closing:
                raise ServingError(StatusCode.UNAVAILABLE, "the server is stopping")
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = _Queue(signature, wanted, parameters)
            queue.add(tasks)
            self._condition.notify()

    def withdraw(self, tasks: Collection[_Task]) -> None:
        """Takes out those that still wait; they are cancelled."""
        withdrawn = []
        with self._condition:
            for key, queue in list(self._queues.items()):
                withdrawn += queue.remove(tasks)
                if not queue.batches:
                    del self._queues[key]
        for task in withdrawn:
            task.finish(error=ServingError(StatusCode.CANCELLED, "cancelled"))

    def _work(self) -> None:
        while True:
            with self._condition:
                taken = self._take()
            if taken is None:
                return
            self._run(*taken)

    def _take(self) -> tuple[_Queue, _Batch] | None:
        """The oldest batch of the next queue that has one to run; None at the end."""
        while not self._closing:
            now = time.monotonic()
            for key, queue in self._queues.items():
                if queue.ready_at() > now:
                    continue
                batch = queue.batches.popleft()
                # Its turn comes again after all others. An empty one goes, or an
                # unloaded version would stay in memory.
                del self._queues[key]
                if queue.batches:
                    self._queues[key] = queue
                    self._condition.notify()
                return queue, batch
            first = min((q.ready_at() for q in self._queues.values()), default=None)
            self._condition.wait(None if first is None else first - now)
        return None

    def _run(self, queue: _Queue, batch: _Batch) -> None:
        now = time.monotonic()
        name = self.parameters.thread_pool_name
        for task in batch.tasks:
            self._metrics.queuing_latency.add(name, value=(now - task.enqueued) * 1e6)
        groups: dict[Hashable, list[_Task]] = {}
        for task in batch.tasks:
            key = _kind(task.feeds, queue.parameters)
            groups.setdefault(key, []).append(task)
        for tasks in groups.values():
            self._run_together(queue, tasks)

    def _run_together(self, queue: _Queue, tasks: list[_Task]) -> None:
        """Runs tasks at once, and in halves where the graph refuses one of them."""
        tasks = [task for task in tasks if not _is_late(task)]
        if not tasks:
            return
        try:
            outputs = self._outputs(queue, tasks)
        except BaseException as error:
            if len(tasks) > 1 and _may_be_of_one(error):
                half = len(tasks) // 2
                self._run_together(queue, tasks[:half])
                self._run_together(queue, tasks[half:])
                return
            for task in tasks:
                task.finish(error=error)
            return
        start = 0
        for task in tasks:
            rows = slice(start, start + task.size)
            task.finish({name: array[rows] for name, array in outputs.items()})
            start += task.size

    def _outputs(self, queue: _Queue, tasks: Sequence[_Task]) -> dict[str, np.ndarray]:
        """What the graph gives, unless all who wait for it leave before."""
        feeds = merge([task.feeds for task in tasks], queue.parameters)
        latest = max(map(_deadline, tasks))
        together = Caller(None if latest == math.inf else latest)

        def leave() -> None:
            if all(task.caller.gone for task in tasks):
                together.leave()

        self._metrics.batch_runs.add()
        with contextlib.ExitStack() as stack:
            for task in tasks:
                stack.enter_context(task.caller.stopping(leave))
            outputs = queue.signature.call(feeds, queue.wanted, together)
        _check_outputs(outputs, batch_size(feeds))
        return outputs


class BatchingRunner:
    """Runs the signatures of one model in batches.

    Args:
        scheduler: runs them.
        parameters: what the batches are like; the scheduler's by default.
    """

    def __init__(
        self, scheduler: BatchScheduler, parameters: BatchingParameters | None = None
    ) -> None:
        self._scheduler = scheduler
        self._parameters = parameters or scheduler.parameters

    def run(
        self,
        signature: Signature,
        feeds: _Arrays,
        wanted: Sequence[str],
        caller: Caller,
    ) -> dict[str, np.ndarray]:
        """The outputs that are wanted.

        Raises:
            ServingError: the request is too large, the queue is full, the deadline
                passes, or the graph refuses the batch.
        """
        caller.time_left()
        tasks = self._split(feeds, batch_size(feeds), caller)
        self._scheduler.submit(signature, wanted, self._parameters, tasks)
        with caller.stopping(lambda: self._scheduler.withdraw(tasks)):
            for task in tasks:
                task.done.wait()
        for task in tasks:
            if task.error is not None:
                raise task.error
        pieces = [task.outputs or {} for task in tasks]
        if len(pieces) == 1:
            return dict(pieces[0])
        return {
            name: _joined(name, [piece[name] for piece in pieces]) for name in wanted
        }

    def _split(self, feeds: _Arrays, size: int, caller: Caller) -> list[_Task]:
        parameters = self._parameters
        if size > parameters.max_batch_size and not (
            parameters.enable_large_batch_splitting
        ):
            raise invalid(
                f"Task size {size} is larger than maximum input batch size "
                f"{parameters.max_batch_size}"
            )
        step = parameters.largest_batch
        return [
            _Task(
                {name: array[start : start + step] for name, array in feeds.items()},
                min(step, size - start),
                caller,
            )
            for start in range(0, max(size, 1), step)
        ]


def _joined(name: str, pieces: list[np.ndarray]) -> np.ndarray:
    if len({piece.shape[1:] for piece in pieces}) > 1:
        shapes = ", ".join(str(list(piece.shape)) for piece in pieces)
        raise invalid(
            f"The pieces of a request that was split have outputs '{name}' of shapes "
            f"{shapes}, which cannot be joined; ask for fewer rows at a time"
        )
    return np.concatenate(pieces)


def batch_size(feeds: _Arrays) -> int:
    """The first dimension of all inputs.

    Raises:
        ServingError: they have none, or not the same.
    """
    if not feeds:
        raise invalid("Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in feeds.values()):
        raise invalid("Batching Run() input tensors must have at least one dimension")
    sizes = {array.shape[0] for array in feeds.values()}
    if len(sizes) > 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def merge(requests: Sequence[_Arrays], parameters: BatchingParameters) -> _Arrays:
    """The inputs of requests of one kind as a batch, filled up as is said."""
    return {
        name: _merge_input([feeds[name] for feeds in requests], parameters)
        for name in requests[0]
    }


def _merge_input(
    arrays: list[np.ndarray], parameters: BatchingParameters
) -> np.ndarray:
    if parameters.pad_variable_length_inputs:
        arrays = _pad_to_largest(arrays)
    size = sum(len(array) for array in arrays)
    missing = parameters.padded_size(size) - size
    if size and missing:
        # A row that is known to be a valid input.
        row = next(array[:1] for array in reversed(arrays) if len(array))
        arrays = [*arrays, np.repeat(row, missing, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _kind(feeds: _Arrays, parameters: BatchingParameters) -> Hashable:
    """What must be equal in requests that are run at once."""
    return tuple(
        array.ndim
        # What has no values has none to be filled up with.
        if parameters.pad_variable_length_inputs and array.size
        else array.shape[1:]
        for array in feeds.values()
    )


def _pad_to_largest(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Fills up all dimensions but the first, with each array's own first value."""
    largest = np.max([array.shape for array in arrays], axis=0)
    return [_pad(array, (len(array), *largest[1:])) for array in arrays]


def _pad(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape == shape:
        return array
    padded = np.empty(shape, array.dtype)
    padded.fill(array.flat[0])  # np.full would cut zeros off a string of bytes
    padded[tuple(slice(size) for size in array.shape)] = array
    return padded


def _deadline(task: _Task) -> float:
    return math.inf if task.caller.deadline is None else task.caller.deadline


def _is_late(task: _Task) -> bool:
    """Whether nobody waits for a task any more; it is ended then."""
    if task.caller.gone:
        task.finish(error=ServingError(StatusCode.CANCELLED, "cancelled"))
    elif _deadline(task) <= time.monotonic():
        message = "Run() timeout exceeded while waiting in batching queue"
        task.finish(error=ServingError(StatusCode.RESOURCE_EXHAUSTED, message))
    return task.done.is_set()


def _may_be_of_one(error: BaseException) -> bool:
    """Whether a batch may have failed on account of a single request in it."""
    of_all = (StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED)
    return isinstance(error, ServingError) and error.code not in of_all


def _check_outputs(outputs: Mapping[str, np.ndarray], size: int) -> None:
    for array in outputs.values():
        if array.ndim == 0:
            raise ServingError(
                StatusCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions"
            )
        if array.shape[0] != size:
            raise ServingError(
                StatusCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the "
                "0th dimension sizes of the input tensors",
            )
