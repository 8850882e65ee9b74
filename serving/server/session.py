"""A TF1 session whose runs can be stopped, for which TensorFlow has no call.

Beside its outputs, each run waits for elements of a queue, which are put in when the
outputs are there. Whoever stops the run closes its queue: the wait fails, and
TensorFlow ends all else that the run does. The operations for this are added to the
graph of the session; a SavedModel has none of them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session as tf_session

from .caller import Caller

# Between two looks at whether a caller that waits for its turn is still there.
_PATIENCE = 0.02


def with_threads(
    config: config_pb2.ConfigProto | None, runs: int
) -> config_pb2.ConfigProto:
    """The configuration of a session with so many runs at a time.

    It has a thread more than runs, unless it says how many: a loop may keep the thread
    that runs it, and a run that finds no other does not come to wait for its queue.
    """
    threaded = config_pb2.ConfigProto()
    if config is not None:
        threaded.CopyFrom(config)
    if not (
        threaded.inter_op_parallelism_threads or threaded.session_inter_op_thread_pool
    ):
        threads = max(os.cpu_count() or 1, runs + 1)
        threaded.session_inter_op_thread_pool.add(num_threads=threads)
    return threaded


class StoppableSession:
    """Runs the graph that has been loaded into a session.

    Args:
        session: the session.
        wholes: names of the tensors that runs may ask for: sets of those that they ask
            for mostly.
        runs: how many are computed at a time; more wait.
    """

    def __init__(
        self,
        session: tf.compat.v1.Session,
        wholes: Collection[frozenset[str]],
        runs: int,
    ) -> None:
        self._session = session
        ops = tf.raw_ops
        with session.graph.as_default(), tf.device("/cpu:0"), tf.name_scope("stop"):
            # A handle cannot be fed, but be read from bytes that are.
            handle_bytes = tf.compat.v1.placeholder(tf.string, [])
            count = tf.compat.v1.placeholder(tf.int32, [])
            handle = ops.ParseTensor(serialized=handle_bytes, out_type=tf.resource)
            taken = ops.QueueDequeueManyV2(
                handle=handle, n=count, component_types=[tf.int32]
            )
            self._taken = taken[0].op._c_op
            self._close = ops.QueueCloseV2(handle=handle)._c_op
            self._destroy = ops.DestroyResourceOp(resource=handle)._c_op
            queues = [
                ops.FIFOQueueV2(
                    component_types=[tf.int32],
                    shapes=[[]],
                    shared_name=f"stop_{number}",
                )
                for number in range(runs)
            ]
            self._queues = [
                ops.SerializeTensor(tensor=queue)._as_tf_output() for queue in queues
            ]
            self._told = {
                names: self._tell(handle, names)
                for names in {*wholes, *(frozenset([n]) for w in wholes for n in w)}
            }
        self._handle_bytes = handle_bytes._as_tf_output()
        self._count = count._as_tf_output()
        session._extend_graph()
        self._renewing = threading.Lock()
        self._free: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        for name in self._create_queues():
            self._free.put(np.array(name, object))
        self._stop_once()

    def endpoint(self, name: str) -> Any:
        """A tensor as TensorFlow's C interface names it."""
        return self._session.graph.get_tensor_by_name(name)._as_tf_output()

    def run(
        self,
        feeds: Mapping[Any, np.ndarray],
        fetches: Mapping[str, Any],
        caller: Caller,
    ) -> dict[str, Any]:
        """The values of tensors by name, for values of endpoints.

        `Session.run` checks shapes in Python, and a callable takes no deadline. This is
        the bare C++ call that TensorFlow Serving makes too.

        Args:
            feeds: values by endpoint.
            fetches: the endpoints of the outputs wanted, by name.
            caller: stops the run by leaving.

        Raises:
            ServingError: the caller is gone, or the deadline passes before the turn.
            tf.errors.OpError: the graph refuses the feeds, the deadline passes, or the
                caller leaves.
        """
        try:
            values = self._run_stoppably(feeds, fetches, caller)
        except tf.errors.CancelledError:
            if caller.gone:
                raise
            # The graph has failed, and what waits was ended with it and spoke first:
            # once more without it, to hear why.
            with _run_options(caller.time_left()) as options:
                values = self._call(feeds, list(fetches.values()), [], options)
        return dict(zip(fetches, values, strict=True))

    def _run_stoppably(
        self,
        feeds: Mapping[Any, np.ndarray],
        fetches: Mapping[str, Any],
        caller: Caller,
    ) -> list[Any]:
        whole = self._told.get(frozenset(fetches))
        told = (
            [self._told[frozenset([n])] for n in fetches] if whole is None else [whole]
        )
        with (
            self._turn(caller) as handle,
            caller.stopping(functools.partial(self._stop, handle)),
            _run_options(caller.time_left()) as options,
        ):
            return self._call(
                {
                    **feeds,
                    self._handle_bytes: handle,
                    self._count: np.array(len(told), np.int32),
                },
                list(fetches.values()),
                [self._taken, *told],
                options,
            )

    def _tell(self, handle: tf.Tensor, outputs: Collection[str]) -> Any:
        """The operation that puts an element into a queue once outputs are there.

        The element is made of the outputs: what only follows a function's call does not
        wait for what it returns. Where a shape is known TensorFlow would make the
        element beforehand; a placeholder hides it.
        """
        ops, sizes = tf.raw_ops, []
        with tf.device(None):
            for name in sorted(outputs):
                tensor = self._session.graph.get_tensor_by_name(name)
                hidden = ops.PlaceholderWithDefault(
                    input=tensor, shape=tf.TensorShape(None)
                )
                sizes.append(ops.Size(input=hidden))
        element = sizes[0] if len(sizes) == 1 else ops.AddN(inputs=sizes)
        return ops.QueueEnqueueV2(handle=handle, components=[element])._c_op

    @contextlib.contextmanager
    def _turn(self, caller: Caller) -> Iterator[np.ndarray]:
        """The handle of a queue, for one run."""
        handle = None
        while handle is None:
            left = caller.time_left()
            with contextlib.suppress(queue.Empty):
                handle = self._free.get(timeout=min(left or _PATIENCE, _PATIENCE))
        whole = False
        try:
            yield handle
            whole = not caller.gone
        finally:
            if not whole:
                # It is closed, or elements are left in it. One thread at a time, or it
                # is found to be there while another looks for it.
                with self._renewing:
                    self._call({self._handle_bytes: handle}, [], [self._destroy])
                    self._create_queues()
            self._free.put(handle)

    def _create_queues(self) -> list[bytes]:
        """Creates the queues that are not there; gives the handles of all."""
        return self._call({}, self._queues, [])

    def _stop(self, handle: np.ndarray) -> None:
        with contextlib.suppress(tf.errors.CancelledError):  # the session is closed
            self._call({self._handle_bytes: handle}, [], [self._close])

    def _stop_once(self) -> None:
        """Or the first stop would wait for what TensorFlow does before a first run."""
        caller = Caller()
        with self._turn(caller) as handle:
            self._stop(handle)
            caller.leave()

    def _call(
        self,
        feeds: Mapping[Any, np.ndarray],
        fetches: Sequence[Any],
        targets: Sequence[Any],
        options: Any = None,
    ) -> list[Any]:
        """Runs in this thread, unless the options say otherwise."""
        return tf_session.TF_SessionRun_wrapper(
            self._session._session,
            options or _in_this_thread(),
            feeds,
            fetches,
            targets,
            None,
        )


@functools.cache
def _in_this_thread() -> Any:
    """The threads of the session may all be kept by what is to be stopped."""
    return _buffer(config_pb2.RunOptions(inter_op_thread_pool=-1))


@contextlib.contextmanager
def _run_options(timeout: float | None) -> Iterator[Any]:
    options = config_pb2.RunOptions()
    if timeout is not None:
        options.timeout_in_ms = min(max(1, round(timeout * 1000)), 2**31 - 1)
    buffer = _buffer(options)
    try:
        yield buffer
    finally:
        tf_session.TF_DeleteBuffer(buffer)


def _buffer(options: config_pb2.RunOptions) -> Any:
    return tf_session.TF_NewBufferFromString(options.SerializeToString())
