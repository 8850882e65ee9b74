"""The weights of a mixture's members, by what is known of them after each token."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from scipy import optimize

from ...backbone import Tensor
from .family import num_features

# Log-probabilities below count as this; of what was never counted they are -87.
_LOWEST = -10.0
# Of the square of each number that is learned, so that few tokens teach little.
_PENALTY = 1e-4
_STEPS = 300


@keras.saving.register_keras_serializable(package="langzoo")
class Gate(keras.layers.Layer):
    """The logarithms of the members' weights, from how sure each is.

    What is known of each member is the logarithms of its two largest probabilities, and
    its entropy and cross-entropy with each other one: how far they agree. These are
    centred and scaled, and go through a layer of `hidden_dim` units. As initialized,
    all weights are alike.

    Args:
        num_members: int.
        hidden_dim: int.

    Call arguments:
        inputs: the members' log-probabilities, of shape
            `(..., num_members, vocabulary_size)`.

    Returns:
        A float32 tensor of shape `(..., num_members)`, of which the exponentials sum to
        one. In half-precision policies it is computed in float32, too.
    """

    def __init__(self, num_members: int, hidden_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_members = num_members
        self.hidden_dim = hidden_dim

    def build(self, input_shape: Any = None) -> None:
        width = num_features(self.num_members)
        shapes = {
            "mean": (width,),
            "scale": (width,),
            "kernel": (width, self.hidden_dim),
            "bias": (self.hidden_dim,),
            "output_kernel": (self.hidden_dim, self.num_members),
            "output_bias": (self.num_members,),
        }
        drawn = {"scale": "ones", "kernel": "glorot_uniform"}
        for name, shape in shapes.items():
            weight = self.add_weight(
                shape,
                drawn.get(name, "zeros"),
                trainable=name not in ("mean", "scale"),
                autocast=False,
                name=name,
            )
            setattr(self, name, weight)

    def call(self, inputs: Tensor) -> Tensor:
        return self.log_weights(self.features(inputs))

    def features(self, log_probabilities: Tensor) -> Tensor:
        """What is known of the members, `(..., num_features)`."""
        said = ops.maximum(log_probabilities, _LOWEST)  # (..., K, V)
        # Row i: how surprised each member is by what member i says, its entropy too.
        crossed = ops.matmul(ops.exp(log_probabilities), ops.swapaxes(said, -1, -2))
        best, _ = ops.top_k(said, 2)  # (..., K, 2)
        known = ops.concatenate([crossed, best], axis=-1)  # (..., K, K + 2)
        width = num_features(self.num_members)
        return ops.reshape(known, (*ops.shape(known)[:-2], width))

    def log_weights(self, features: Tensor) -> Tensor:
        """The logarithms of the weights, from what `features` returned."""
        features = (features - _float32(self.mean)) * _float32(self.scale)
        hidden = ops.silu(features @ _float32(self.kernel) + _float32(self.bias))
        output = hidden @ _float32(self.output_kernel) + _float32(self.output_bias)
        return ops.log_softmax(output, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_members": self.num_members,
            "hidden_dim": self.hidden_dim,
        }


def _float32(weight: keras.Variable) -> Tensor:
    return ops.cast(weight, "float32")


def fit_gate(gate: Gate, features: np.ndarray, scores: np.ndarray) -> float:
    """Learns the weights from tokens that no member has learned from.

    L-BFGS minimizes the cross-entropy of the mixture and a small penalty; the result
    depends on the arguments, and on the weights that the gate begins with.

    Args:
        gate: the gate, changed in place.
        features: float32 `(num_tokens, num_features)`, see `Gate.features`.
        scores: float32 `(num_tokens, num_members)`, the log-probability that each
            member gives the token.

    Returns:
        The cross-entropy of the mixture, in nats a token.

    References:
        - [Byrd et al., 1995](https://doi.org/10.1137/0916069) (L-BFGS-B)
    """
    gate.mean.assign(features.mean(axis=0))
    gate.scale.assign(1 / (features.std(axis=0) + 1e-3))
    variables = gate.trainable_variables
    places = np.cumsum([np.prod(variable.shape) for variable in variables])[:-1]

    def assign(numbers: np.ndarray) -> None:
        for variable, values in zip(variables, np.split(numbers, places), strict=True):
            variable.assign(np.reshape(values, variable.shape))

    known, said = tf.constant(features), tf.constant(scores)

    @tf.function
    def losses() -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        weights = [variable.value for variable in variables]
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(
                tf.reduce_logsumexp(gate.log_weights(known) + said, axis=-1)
            )
            penalty = tf.add_n([tf.reduce_sum(weight**2) for weight in weights])
            total = loss + _PENALTY * penalty
        return loss, total, tape.gradient(total, weights)

    def objective(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        assign(numbers)
        _, total, gradients = losses()
        flat = np.concatenate([np.ravel(gradient) for gradient in gradients])
        return float(total), flat.astype(np.float64)

    begin = np.concatenate([np.ravel(variable) for variable in variables])
    found = optimize.minimize(
        objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}
    )
    assign(found.x)
    return float(losses()[0])
