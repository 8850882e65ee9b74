"""A recurrent layer over whole sequences as one call of cuDNN.

On an NVIDIA card TensorFlow's op `CudnnRNNV3` computes the input projection and the time
loop in one kernel, and its gradient in another. It has no kernel for other devices, so
no export may contain it, and XLA cannot compile it.

cuDNN takes all weights of a layer in one vector: for each gate the matrix of the input,
for each gate the matrix of the last output, then the biases in the same order. The
matrices are those of column vectors, `(U, D)` and `(U, U)`. Its order of the gates is in
`Cell.cudnn_gates`.

References:
    - [cuDNN, recurrent neural networks](https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-adv-library.html)
      (equations, order of the gates)
    - [Appleyard et al., 2016](https://arxiv.org/abs/1604.01946)
"""  # noqa: E501

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from ...backbone import Tensor, is_portable
from .cells import Cell, Recurrence, State


def is_present() -> bool:
    """Whether TensorFlow has cuDNN and sees a GPU. It starts TensorFlow's devices."""
    gpus = tf.config.list_logical_devices("GPU")
    return bool(gpus) and tf.test.is_built_with_cuda()


def may_be_called() -> bool:
    """Whether a call may be put here: not in portable graphs, nor in XLA's graphs."""
    if is_portable():
        return False
    # As TensorFlow's own loops ask it; there is no public way.
    return not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def run(
    cell: Cell,
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor,
    recurrence: Recurrence,
    state: State,
) -> tuple[Tensor, State]:
    """Runs over time, as `recurrence.run()` does over `inputs @ kernel + bias`.

    Args:
        cell: the element-wise part of a step.
        inputs: `(T, B, D)`, at least one step.
        kernel: `(D, G * U)`.
        bias: `(G * U,)`.
        recurrence: the other part of a step; without a mask.
        state: the state before the first step, tensors `(B, U)`.

    Returns:
        The outputs `(T, B, U)` and the state after the last step.
    """
    length, batch_size = tf.unstack(tf.shape(inputs)[:2])
    # One more dimension, of layers. Other cells than the LSTM's have no second state.
    first = [part[None] for part in state] + [0] * (2 - cell.num_states)
    # `is_training` by default: without it there is no gradient.
    outputs, *last, _, _ = tf.raw_ops.CudnnRNNV3(
        rnn_mode=cell.cudnn_mode,
        input=inputs,
        input_h=first[0],
        input_c=first[1],
        params=weight_vector(cell, kernel, bias, recurrence),
        sequence_lengths=tf.fill([batch_size], length),
    )
    return outputs, tuple(part[0] for part in last[: cell.num_states])


def weight_vector(
    cell: Cell, kernel: Tensor, bias: Tensor, recurrence: Recurrence
) -> Tensor:
    """The weights of a layer as cuDNN takes them, see above.

    Args:
        cell: whose gates they are.
        kernel: `(D, G * U)`.
        bias: `(G * U,)`.
        recurrence: `kernel` is `(U, G * U)`, and no `bias` is one of zeros.

    Returns:
        A vector of `G * U * (D + U + 2)` numbers.
    """
    second_bias = recurrence.bias
    if second_bias is None:
        second_bias = tf.zeros_like(bias)
    parts = []
    for weights in (kernel, recurrence.kernel, bias, second_bias):
        gates = tf.split(weights, cell.num_gates, axis=-1)
        parts += [tf.transpose(gates[gate]) for gate in cell.cudnn_gates]
    return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)
