"""One version of a model, loaded as TensorFlow Serving loads it.

TensorFlow Serving runs signatures through `Session::Run`, not through functions, so
the SavedModel is loaded into a TF1 session. What goes through here behaves alike there.
"""

from __future__ import annotations

import os
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers its ops, which exports use)
from grpc import StatusCode
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from ..errors import ServingError, invalid, status_code
from .caller import FOREVER, Caller
from .session import StoppableSession
from .tensors import array_from_proto, check_expansion, dtype_name

DEFAULT_SIGNATURE = "serving_default"


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
        return signature.call(feeds, wanted, caller)


Compute = Callable[[Mapping[str, np.ndarray], Sequence[str], Caller], Sequence[Any]]


class Signature:
    """One signature of a loaded model, ready to be called.

    Messages and codes of errors are those of TensorFlow Serving's `predict_util.cc`
    and TensorFlow's `saved_model/util.cc`.

    Args:
        definition: the signature as the SavedModel holds it.
        compute: gives the outputs that are wanted for all inputs, to a caller.
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
        caller: Caller = FOREVER,
    ) -> dict[str, np.ndarray]:
        """The outputs for these inputs, with the signature's defaults for the rest.

        Shapes are left to the graph, as TensorFlow Serving leaves them: it takes
        `[3]` where its own example model declares `[-1, 1]`.

        Args:
            inputs: arrays by name.
            output_filter: the outputs wanted, if not all.
            caller: who waits for them; once it leaves the graph is stopped.

        Raises:
            ServingError: the inputs do not fit, the graph refuses them, the time is
                over (DEADLINE_EXCEEDED), or the caller has left (CANCELLED).
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
        caller: Caller,
    ) -> dict[str, np.ndarray]:
        """The outputs that are wanted, for inputs that have been checked."""
        try:
            values = self._compute(feeds, wanted, caller)
        except tf.errors.OpError as error:
            caller.time_left()  # raises what is the reason, if the caller is
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
    runs: int | None = None,
) -> Servable:
    """Loads the SavedModel in a folder.

    Args:
        version: its number.
        path: the folder.
        tags: those of the graph to load.
        config: how TensorFlow runs it.
        runner: runs its signatures.
        runs: of its signatures at a time, more wait; two for each processor by default.

    Raises:
        ServingError: it cannot be loaded.
    """
    runs = runs or 2 * (os.cpu_count() or 1)
    try:
        session = StoppableSession(path, tags, config, runs)
        signatures = {
            name: Signature(definition, _SessionCompute(session, definition), runner)
            for name, definition in session.dense.items()
        }
    except Exception as error:
        raise _load_error(error) from error
    return Servable(version, session.definitions, signatures, session.close)


class _SessionCompute:
    """Runs a signature in a session."""

    def __init__(
        self, session: StoppableSession, definition: meta_graph_pb2.SignatureDef
    ) -> None:
        self._session = session
        self._feeds = {
            alias: session.endpoint(info.name)
            for alias, info in definition.inputs.items()
        }
        self._names = {alias: info.name for alias, info in definition.outputs.items()}
        self._fetches = {name: session.endpoint(name) for name in self._names.values()}

    def __call__(
        self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str], caller: Caller
    ) -> Sequence[Any]:
        names = [self._names[alias] for alias in wanted]
        values = self._session.run(
            {self._feeds[alias]: array for alias, array in feeds.items()},
            # Two aliases may be of one tensor.
            {name: self._fetches[name] for name in names},
            caller,
        )
        return [values[name] for name in names]


def _load_error(error: Exception) -> ServingError:
    message = str(error)
    if isinstance(error, tf.errors.OpError):
        return ServingError(status_code(error.error_code), error.message)
    if isinstance(error, OSError):
        return ServingError(StatusCode.DATA_LOSS, message)
    if isinstance(error, RuntimeError) and "tags" in message:
        return ServingError(StatusCode.NOT_FOUND, message)
    return ServingError(StatusCode.INTERNAL, f"{type(error).__name__}: {message}")


def _join(names: Iterable[str]) -> str:
    return ",".join(names)
