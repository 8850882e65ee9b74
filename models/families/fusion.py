"""Element-wise functions as one pass over memory."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ..backbone import Tensor


def fused(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function, compiled by XLA forwards and backwards, for training.

    Op by op, TensorFlow reads and writes memory for every step of such a function and
    again for every step of its gradient; so does an activation cost as much as a
    matrix product. Compiled, it is one pass in each direction, which keeps nothing but
    the input. Inside a step that XLA compiles as a whole it makes no difference. A
    model server may be without XLA: what is exported uses the function itself.

    Args:
        function: of a tensor, without variables.

    Returns:
        The function with its gradient; it has no second derivative.
    """
    forward = tf.function(function, jit_compile=True)

    @tf.function(jit_compile=True)
    def backward(x: Tensor, d_y: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, d_y)

    @tf.custom_gradient
    def call(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return forward(x), lambda d_y: backward(x, d_y)

    return call
