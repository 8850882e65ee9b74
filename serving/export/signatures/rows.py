"""Functions of rows, as the contract has a signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..contract import Signature


def signature(contract: Signature, **defaults: Any) -> Callable[[Callable], Callable]:
    """Makes a function of rows what is saved for a signature.

    The function gets all inputs by their names, the settings as one value a row.

    Args:
        contract: the signature.
        defaults: of settings, where they are others than the contract's.
    """
    defaults = {k: s.default for k, s in contract.settings.items()} | defaults
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    specs, parameters = [], []
    for name, tensor in contract.inputs.items():
        spec = tf.TensorSpec([None, *tensor.shape], tensor.dtype, name)
        default = inspect.Parameter.empty
        if name in defaults:
            default = tf.constant([defaults[name]], spec.dtype)
        specs.append(spec)
        parameters.append(inspect.Parameter(name, kind, default=default))

    def decorate(answer: Callable[..., dict[str, tf.Tensor]]) -> Callable:
        def function(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            given = dict(zip(contract.inputs, inputs, strict=True))
            rows = tf.shape(inputs[0])[0]
            for name in contract.settings:
                # One row holds for all; several are one for each.
                shape = [rows, *contract.inputs[name].shape]
                given[name] = tf.broadcast_to(given[name], shape)
            outputs = answer(**given)
            return {
                name: tf.ensure_shape(outputs[name], [None, *tensor.shape])
                for name, tensor in contract.outputs.items()
            }

        # What a default is in the SavedModel, is a default in Python first.
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            parameters
        )
        # Nothing here is written for AutoGraph, and tracing is faster without.
        return tf.function(function, input_signature=specs, autograph=False)

    return decorate
