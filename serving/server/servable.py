"""One version of a model, loaded as TensorFlow Serving loads it.

TensorFlow Serving runs signatures through `Session::Run`, not through functions, so
the SavedModel is loaded into a TF1 session. What goes through here behaves alike there.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers its ops, which exports use)
from grpc import StatusCode
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session as tf_session

from ..errors import ServingError, invalid, status_code
from .tensors import array_from_proto, check_expansion, dtype_name

DEFAULT_SIGNATURE = "serving_default"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who waits for an answer.

    Attributes:
        deadline: until when, by `time.monotonic`; None is for ever.
        gone: says whether nobody waits any more.
    """

    deadline: float | None = None
    gone: Callable[[], bool] = lambda: False

    def time_left(self) -> float | None:
        """Seconds until the deadline, None without one.

        Raises:
            ServingError: nobody waits any more, or the deadline has passed.
        """
        if self.gone():
            raise ServingError(StatusCode.CANCELLED, "the request was cancelled")
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ServingError(
                StatusCode.DEADLINE_EXCEEDED, "the deadline passed in the queue"
            )
        return left


class Runner(Protocol):
    """Runs a signature on inputs that have been checked."""

    def run(
        self,
        signature: Signature,
        feeds: Mapping[str, np.ndarray],
        wanted: Sequence[str],
        caller: Caller,
    ) -> dict[str, np.ndarray]:
        """The outputs that are wanted."""


class DirectRunner:
    """Runs each request by itself, at once."""

    def run(
        self,
        signature: Signature,
        feeds: Mapping[str, np.ndarray],
        wanted: Sequence[str],
        caller: Caller,
    ) -> dict[str, np.ndarray]:
        """The outputs that are wanted."""
        return signature.call(feeds, wanted, caller.time_left())


Compute = Callable[
    [Mapping[str, np.ndarray], Sequence[str], float | None], Sequence[Any]
]


class Signature:
    """One signature of a loaded model, ready to be called.

    Messages and codes of errors are those of TensorFlow Serving's `predict_util.cc`
    and TensorFlow's `saved_model/util.cc`.

    Args:
        definition: the signature as the SavedModel holds it.
        compute: gives the outputs that are wanted for all inputs, within some seconds.
        runner: runs it, alone or in batches.
    """

    def __init__(
        self,
        definition: meta_graph_pb2.SignatureDef,
        compute: Compute,
        runner: Runner,
    ) -> None:
        self.definition = definition
        self.inputs = sorted(definition.inputs)
        self.outputs = sorted(definition.outputs)
        self._input_dtypes = [
            tf.dtypes.as_dtype(definition.inputs[name].dtype) for name in self.inputs
        ]
        self._defaults = {
            name: array_from_proto(proto) for name, proto in definition.defaults.items()
        }
        self._compute = compute
        self._runner = runner

    def output_dtype(self, name: str) -> tf.DType:
        """The dtype of an output."""
        return tf.dtypes.as_dtype(self.definition.outputs[name].dtype)

    def parse_inputs(
        self, protos: Mapping[str, tensor_pb2.TensorProto]
    ) -> dict[str, np.ndarray]:
        """The arrays in a request; raises `ServingError` for one that is broken."""
        self.check_inputs(protos)
        arrays = {}
        expansion = 0
        for name in self.inputs:
            if name not in protos:
                continue
            try:
                expansion = check_expansion(protos[name], expansion)
                arrays[name] = array_from_proto(protos[name])
            except ValueError as error:
                raise invalid(f"tensor parsing error: {name}") from error
        return arrays

    def check_inputs(self, given: Collection[str]) -> None:
        """Raises `ServingError` unless these inputs, with the defaults, are all."""
        missing = sorted(set(self.inputs) - set(given))
        extra = sorted(set(given) - set(self.inputs))
        names = sorted(given)
        too_few = len(given) < len(self.inputs) and not self._defaults
        if len(given) > len(self.inputs) or too_few:
            raise invalid(
                f"input size does not match signature: {len(given)}!="
                f"{len(self.inputs)} len({{{_join(names)}}}) != "
                f"len({{{_join(self.inputs)}}}). Sent extra: {{{_join(extra)}}}. "
                f"Missing but required: {{{_join(missing)}}}."
            )
        for name in missing:
            if name not in self._defaults:
                feed = self.definition.inputs[name].name
                raise invalid(
                    f"Signature input alias: {name}(feed name: {feed}) not found in "
                    "request and no default value provided. Inputs expected to be in "
                    f"the request {{{_join(names)}}}, or default input alias set: "
                    f"{_join(sorted(self._defaults))}"
                )
        if extra:
            used = sorted(set(given) & set(self.inputs))
            raise invalid(
                "Inputs contains invalid name. Used request inputs: "
                f"{_join(used)}, request input: {_join(names)}"
            )

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        caller: Caller = Caller(),
    ) -> dict[str, np.ndarray]:
        """The outputs for these inputs, with the signature's defaults for the rest.

        Shapes are left to the graph, as TensorFlow Serving leaves them: it takes
        `[3]` where its own example model declares `[-1, 1]`.

        Args:
            inputs: arrays by name.
            output_filter: the outputs wanted, if not all.
            caller: who waits for them; at the deadline the graph is stopped.

        Raises:
            ServingError: the inputs do not fit, the graph refuses them, or the time is
                over (DEADLINE_EXCEEDED).
        """
        feeds = self.check(inputs, output_filter)
        return self._runner.run(self, feeds, output_filter or self.outputs, caller)

    def check(
        self, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """All inputs, with the defaults; raises `ServingError` if they do not fit."""
        self.check_inputs(inputs)
        self._check_filter(output_filter)
        feeds = {
            name: inputs[name] if name in inputs else self._defaults[name]
            for name in self.inputs
        }
        self._check_dtypes(list(feeds.values()))
        return feeds

    def call(
        self,
        feeds: Mapping[str, np.ndarray],
        wanted: Sequence[str],
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs that are wanted, for inputs that have been checked."""
        try:
            values = self._compute(feeds, wanted, timeout)
        except tf.errors.OpError as error:
            code = status_code(error.error_code)
            raise ServingError(code, error.message) from error
        except UnicodeDecodeError as error:
            # TensorFlow's message quotes the request's bytes: Python cannot read it.
            message = error.object.decode("utf-8", "backslashreplace")
            raise invalid(message) from error
        # A string scalar comes as bytes.
        return {
            name: value
            if isinstance(value, np.ndarray)
            else np.asarray(value, dtype=self.output_dtype(name).as_numpy_dtype)
            for name, value in zip(wanted, values, strict=True)
        }

    def _check_dtypes(self, feeds: Sequence[np.ndarray]) -> None:
        for index, (feed, dtype) in enumerate(
            zip(feeds, self._input_dtypes, strict=True)
        ):
            given = tf.dtypes.as_dtype(feed.dtype)
            if given != dtype:
                raise invalid(
                    f"Expects arg[{index}] to be {dtype_name(dtype)} but "
                    f"{dtype_name(given)} is provided"
                )

    def _check_filter(self, output_filter: Sequence[str]) -> None:
        for position, name in enumerate(output_filter):
            if name not in self.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {name} Outputs "
                    f"expected to be in the set {{{_join(self.outputs)}}}."
                )
            if name in output_filter[:position]:
                raise invalid(f"duplicate output tensor alias: {name}")


class Servable:
    """One loaded version of a model.

    Args:
        version: its number.
        definitions: its signatures as the SavedModel holds them.
        signatures: those of them that can be called.
        close: frees what the version holds.

    Attributes:
        check_methods: let a signature only be used for what it says that it is for.
    """

    def __init__(
        self,
        version: int,
        definitions: Mapping[str, meta_graph_pb2.SignatureDef],
        signatures: Mapping[str, Signature],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.version = version
        self.definitions = definitions
        self.check_methods = False
        self._signatures = dict(signatures)
        self._close = close

    def signature(self, name: str = "") -> Signature | None:
        """The signature of this name, of the default name if it is empty, or None."""
        return self._signatures.get(name or DEFAULT_SIGNATURE)

    def close(self) -> None:
        """Frees what the version holds."""
        self._signatures = {}
        self._close()


def load_servable(
    version: int,
    path: Path | str,
    *,
    tags: Sequence[str] = ("serve",),
    config: config_pb2.ConfigProto | None = None,
    runner: Runner = DirectRunner(),  # noqa: B008
) -> Servable:
    """Loads the SavedModel in a folder.

    Args:
        version: its number.
        path: the folder.
        tags: those of the graph to load.
        config: how TensorFlow runs it.
        runner: runs its signatures.

    Raises:
        ServingError: it cannot be loaded.
    """
    with tf.Graph().as_default() as graph:
        session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            meta_graph = tf.compat.v1.saved_model.load(session, list(tags), str(path))
            definitions = dict(meta_graph.signature_def)
            signatures = dict(_callable_signatures(session, definitions, runner))
            return Servable(version, definitions, signatures, session.close)
        except Exception as error:
            session.close()
            raise _load_error(error) from error


class _SessionCompute:
    """Runs a signature in a session.

    `Session.run` checks shapes in Python, and a callable takes no deadline. This is the
    bare C++ call that TensorFlow Serving makes too.
    """

    def __init__(
        self, session: tf.compat.v1.Session, definition: meta_graph_pb2.SignatureDef
    ) -> None:
        self._session = session
        self._feeds = self._endpoints(definition.inputs)
        self._fetches = self._endpoints(definition.outputs)

    def _endpoints(
        self, infos: Mapping[str, meta_graph_pb2.TensorInfo]
    ) -> dict[str, Any]:
        """The tensors of a signature as TensorFlow's C interface names them."""
        graph = self._session.graph
        return {
            name: graph.get_tensor_by_name(info.name)._as_tf_output()
            for name, info in infos.items()
        }

    def __call__(
        self,
        feeds: Mapping[str, np.ndarray],
        wanted: Sequence[str],
        timeout: float | None,
    ) -> Sequence[Any]:
        with _run_options(timeout) as options:
            return tf_session.TF_SessionRun_wrapper(
                self._session._session,
                options,
                {self._feeds[name]: array for name, array in feeds.items()},
                [self._fetches[name] for name in wanted],
                [],
                None,
            )


@contextlib.contextmanager
def _run_options(timeout: float | None) -> Iterator[Any]:
    if timeout is None:
        yield None
        return
    milliseconds = min(max(1, round(timeout * 1000)), 2**31 - 1)
    options = config_pb2.RunOptions(timeout_in_ms=milliseconds)
    buffer = tf_session.TF_NewBufferFromString(options.SerializeToString())
    try:
        yield buffer
    finally:
        tf_session.TF_DeleteBuffer(buffer)


def _load_error(error: Exception) -> ServingError:
    message = str(error)
    if isinstance(error, tf.errors.OpError):
        return ServingError(status_code(error.error_code), error.message)
    if isinstance(error, OSError):
        return ServingError(StatusCode.DATA_LOSS, message)
    if isinstance(error, RuntimeError) and "tags" in message:
        return ServingError(StatusCode.NOT_FOUND, message)
    return ServingError(StatusCode.INTERNAL, f"{type(error).__name__}: {message}")


def _callable_signatures(
    session: tf.compat.v1.Session,
    definitions: Mapping[str, meta_graph_pb2.SignatureDef],
    runner: Runner,
) -> Iterable[tuple[str, Signature]]:
    for name, definition in definitions.items():
        if not _is_dense(definition):
            # The mark of the initializer, and sparse or composite tensors.
            _logger.debug("signature %s cannot be called", name)
            continue
        yield name, Signature(definition, _SessionCompute(session, definition), runner)


def _is_dense(definition: meta_graph_pb2.SignatureDef) -> bool:
    tensors: list[Any] = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(":" in tensor.name for tensor in tensors)


def _join(names: Iterable[str]) -> str:
    return ",".join(names)
