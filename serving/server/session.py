"""A TF1 session whose runs can be stopped, for which TensorFlow has no call.

Beside its outputs, each run waits for elements of a queue, which are put in when the
outputs are there. Whoever stops the run closes its queue: the wait fails, and
TensorFlow ends all else that the run does. The operations for this are added to the
graph of a SavedModel, which has none of them.

A run computes in the thread that asks for it, unless the session is configured to have
others: to hand over costs more than they bring. So nothing may read an input, and go
round in a loop with that thread, before the wait for the queue has begun.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, graph_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session as tf_session
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from .caller import Caller

# Between two looks at whether a caller that waits for its turn is still there.
_PATIENCE = 0.02
_THIS_THREAD = -1  # in a run's options
_FIRST = 2  # elements that are put in before anything is computed
_SCOPE = "langzoo_stop"  # of operations; no SavedModel may have one of this name


class StoppableSession:
    """A SavedModel, loaded into a session.

    Args:
        path: the SavedModel.
        tags: those of the graph to load.
        config: how TensorFlow runs it.
        runs: how many are computed at a time; more wait.

    Attributes:
        definitions: all signatures as the SavedModel holds them.
        dense: those that can be run: not the mark of the initializer, nor those of
            sparse or composite tensors.
    """

    def __init__(
        self,
        path: Path | str,
        tags: Sequence[str],
        config: config_pb2.ConfigProto | None,
        runs: int,
    ) -> None:
        others = config is not None and (
            config.inter_op_parallelism_threads or config.session_inter_op_thread_pool
        )
        self._pool = 0 if others else _THIS_THREAD
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with self._session.graph.as_default():
                handle = self._add_wait()
                self._load(SavedModelLoader(str(path)), list(tags))
                self._add_queues(handle, runs)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frees what it holds; runs end."""
        self._session.close()

    def _add_wait(self) -> tf.Tensor:
        """Adds what waits for a queue and what closes it; gives the queue's handle."""
        ops = tf.raw_ops
        with tf.device("/cpu:0"), tf.name_scope(_SCOPE):
            # A handle cannot be fed, but be read from bytes that are.
            handle_bytes = tf.compat.v1.placeholder(tf.string, [])
            count = tf.compat.v1.placeholder(tf.int32, [])
            handle = ops.ParseTensor(serialized=handle_bytes, out_type=tf.resource)
            # What is ready runs in the order in which it became so, or in the opposite
            # one: between two others, the wait has begun when both have run.
            before = ops.QueueEnqueueV2(handle=handle, components=[count])
            with tf.control_dependencies([ops.QueueSizeV2(handle=handle)]):
                taken = ops.QueueDequeueManyV2(
                    handle=handle, n=count, component_types=[tf.int32]
                )
                size = ops.QueueSizeV2(handle=handle)
            after = ops.QueueEnqueueV2(handle=handle, components=[size])
            with tf.control_dependencies([before, after]):
                self._begun = tf.identity(count)
            self._close = ops.QueueCloseV2(handle=handle)._c_op
            self._destroy = ops.DestroyResourceOp(resource=handle)._c_op
        self._taken = taken[0].op._c_op
        self._handle_bytes = handle_bytes._as_tf_output()
        self._count = count._as_tf_output()
        return handle

    def _load(self, loader: SavedModelLoader, tags: Sequence[str]) -> None:
        meta_graph = loader.get_meta_graph_def_from_tags(tags)
        self.definitions = dict(meta_graph.signature_def)
        self.dense = {k: one for k, one in self.definitions.items() if _is_dense(one)}
        inputs = {
            info.name.removesuffix(":0")
            for one in self.dense.values()
            for info in one.inputs.values()
        }
        begun = self._begun.op.name
        _put_behind(begun, inputs, meta_graph.graph_def)
        loader.load(self._session, tags, input_map={f"^{begun}": self._begun})

    def _add_queues(self, handle: tf.Tensor, runs: int) -> None:
        """Adds the queues, and what tells them that outputs are there."""
        ops = tf.raw_ops
        wholes = {
            frozenset(info.name for info in one.outputs.values())
            for one in self.dense.values()
        }
        with tf.device("/cpu:0"), tf.name_scope(_SCOPE):
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
        self._session._extend_graph()
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

        `Session.run` checks shapes in Python. This is the bare C++ call that TensorFlow
        Serving makes too.

        Args:
            feeds: values by endpoint.
            fetches: the endpoints of the outputs wanted, by name.
            caller: stops the run by leaving.

        Raises:
            ServingError: the caller is gone, or the deadline passes, before the turn.
            tf.errors.OpError: the graph refuses the feeds, or the caller leaves.
        """
        whole = self._told.get(frozenset(fetches))
        told = (
            [self._told[frozenset([n])] for n in fetches] if whole is None else [whole]
        )
        try:
            values = self._run(feeds, list(fetches.values()), told, caller)
        except tf.errors.CancelledError:
            if caller.gone:
                raise
            # The graph has failed, and what waits was ended with it and spoke first:
            # once more, and it waits for no outputs, to hear why.
            values = self._run(feeds, list(fetches.values()), [], caller)
        return dict(zip(fetches, values, strict=True))

    def _run(
        self,
        feeds: Mapping[Any, np.ndarray],
        fetches: Sequence[Any],
        told: Sequence[Any],
        caller: Caller,
    ) -> list[Any]:
        count = np.array(_FIRST + len(told), np.int32)
        with (
            self._turn(caller) as handle,
            caller.stopping(functools.partial(self._stop, handle)),
        ):
            return self._call(
                {**feeds, self._handle_bytes: handle, self._count: count},
                fetches,
                [self._begun.op._c_op, self._taken, *told],
                self._pool,
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
        pool: int = _THIS_THREAD,
    ) -> list[Any]:
        """The values of endpoints; the threads of a pool may all be in loops."""
        return tf_session.TF_SessionRun_wrapper(
            self._session._session, _options(pool), feeds, fetches, targets, None
        )


@functools.cache
def _options(pool: int) -> Any:
    options = config_pb2.RunOptions(inter_op_thread_pool=pool)
    return tf_session.TF_NewBufferFromString(options.SerializeToString())


def _put_behind(first: str, inputs: Set[str], graph_def: graph_pb2.GraphDef) -> None:
    """Lets no operation read what is fed before another has run.

    Placeholders can be fed and fetched as before. What else a signature may take has no
    dtype but the signature's, which may be wrong: that is read at once.
    """
    dtypes = {
        node.name: node.attr["dtype"].type
        for node in graph_def.node
        if node.name in inputs and "dtype" in node.attr
    }
    gates = {name: f"{_SCOPE}/gate_{i}" for i, name in enumerate(dtypes)}
    for node in graph_def.node:
        node.input[:] = [
            gates.get(name.removesuffix(":0"), name) for name in node.input
        ]
    for name, gate in gates.items():
        graph_def.node.add(
            name=gate,
            op="Identity",
            input=[name, f"^{first}"],
            attr={"T": attr_value_pb2.AttrValue(type=dtypes[name])},
        )


def _is_dense(definition: meta_graph_pb2.SignatureDef) -> bool:
    tensors: list[Any] = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(":" in tensor.name for tensor in tensors)
