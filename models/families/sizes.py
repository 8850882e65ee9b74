"""How large a model is and what a token costs it, by formula: nothing is built.

A token's floating-point operations are those of the matrix products of a forward pass
over a full context, a multiply-add counted as two: twice the weights that every token
is multiplied with, the output layer's included, and for attention the products with
all positions of the context, as Hoffmann et al. count them. Looking up an embedding
costs nothing; activations, normalizations, biases and the softmax, a percent or so,
are left out, as Kaplan et al. leave them out.

Importing this module imports neither TensorFlow nor Keras.

References:
    - [Kaplan et al., 2020](https://arxiv.org/abs/2001.08361), table 1
    - [Hoffmann et al., 2022](https://arxiv.org/abs/2203.15556), appendix F
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Size(NamedTuple):
    """Weights of a model, and floating-point operations of a forward pass a token."""

    parameters: int
    flops_per_token: int


class _Counts(NamedTuple):
    """What of a model is multiplied, and what is not.

    `products`: weights that every token is multiplied with. `others`: weights that are
    added, or looked up, or multiply single numbers. `attention`: multiply-adds between
    a token and the positions of a full context.
    """

    products: int
    others: int
    attention: int = 0


def size(
    family: str,
    vocabulary_size: int,
    context_length: int,
    hyperparameters: Mapping[str, Any],
) -> Size | None:
    """The size of a model of a family.

    Args:
        family: a name of `zoo.FAMILIES`.
        vocabulary_size: int. Number of token ids.
        context_length: int. Longest input, in tokens.
        hyperparameters: arguments of the family's backbone, in place of their
            defaults.

    Returns:
        `None` for n-grams, whose size depends on what they have read.

    Raises:
        KeyError: if there is no such family.
    """
    count = _COUNTS[family]
    if count is None:
        return None
    counts = count(vocabulary_size, context_length, **hyperparameters)
    return Size(
        parameters=counts.products + counts.others,
        flops_per_token=2 * (counts.products + counts.attention),
    )


def default_intermediate_dim(hidden_dim: int, activation: str) -> int:
    """The width of a Transformer's feed-forward networks where none is given.

    With SwiGLU, whose first layer is twice as wide, two thirds of `4 * hidden_dim`
    rounded up to a multiple of 8; else `4 * hidden_dim`.
    """
    if activation == "swiglu":
        return -(-8 * hidden_dim // 24) * 8
    return 4 * hidden_dim


def _transformer(
    vocabulary_size: int,
    context_length: int,
    num_layers: int = 4,
    num_heads: int = 4,
    num_key_value_heads: int | None = None,
    hidden_dim: int = 128,
    intermediate_dim: int | None = None,
    activation: str = "swiglu",
    positions: str = "rotary",
    normalization: str = "rms_norm",
    use_bias: bool = False,
    tie_embeddings: bool = True,
    **_: Any,
) -> _Counts:
    shared = (num_key_value_heads or num_heads) * hidden_dim // num_heads
    width = intermediate_dim or default_intermediate_dim(hidden_dim, activation)
    first_layer = 2 * width if activation == "swiglu" else width
    projected = hidden_dim + 2 * shared  # queries, keys, values
    products = hidden_dim * (projected + hidden_dim + first_layer + width)
    biases = projected + hidden_dim + first_layer + hidden_dim if use_bias else 0
    norm = hidden_dim * (2 if normalization == "layer_norm" and use_bias else 1)
    embeddings = vocabulary_size * hidden_dim
    return _Counts(
        products=num_layers * products + embeddings,
        others=num_layers * (biases + 2 * norm)
        + norm
        + (0 if tie_embeddings else embeddings)
        + (context_length * hidden_dim if positions == "learned" else 0),
        # Scores and the weighted sum of values.
        attention=num_layers * 2 * context_length * hidden_dim,
    )


def _recurrent(gates: int, biases: int) -> Callable[..., _Counts]:
    """For layers of so many gates, with so many biases each."""

    def count(
        vocabulary_size: int,
        context_length: int,
        num_layers: int = 1,
        hidden_dim: int = 256,
        embedding_dim: int | None = None,
        tie_embeddings: bool = True,
        normalize: bool = True,
        **_: Any,
    ) -> _Counts:
        width = embedding_dim or hidden_dim
        inputs = [width] + [hidden_dim] * (num_layers - 1)
        products = sum(gates * hidden_dim * (dim + hidden_dim) for dim in inputs)
        projection = hidden_dim * width if embedding_dim else 0
        embeddings = vocabulary_size * width
        return _Counts(
            products=products + projection + embeddings,
            others=num_layers * biases * gates * hidden_dim
            + (sum(inputs) + width if normalize else 0)
            + (0 if tie_embeddings else embeddings),
        )

    return count


def _gated_conv(
    vocabulary_size: int,
    context_length: int,
    num_layers: int = 6,
    hidden_dim: int = 128,
    kernel_size: int = 4,
    bottleneck_dim: int | None = None,
    **_: Any,
) -> _Counts:
    if bottleneck_dim is None:
        products, outputs = kernel_size * hidden_dim * hidden_dim, hidden_dim
    else:
        products = bottleneck_dim * (2 * hidden_dim + kernel_size * bottleneck_dim)
        outputs = 2 * bottleneck_dim + hidden_dim
    return _Counts(
        # Twice, for values and gates.
        products=num_layers * 2 * products + vocabulary_size * hidden_dim,
        others=num_layers * (2 * outputs + hidden_dim) + hidden_dim,
    )


def _tcn(
    vocabulary_size: int,
    context_length: int,
    num_layers: int = 4,
    hidden_dim: int = 128,
    filters: int | None = None,
    kernel_size: int = 3,
    **_: Any,
) -> _Counts:
    products, others = vocabulary_size * hidden_dim, hidden_dim
    inputs = hidden_dim
    for i in range(num_layers):
        outputs = hidden_dim if i == num_layers - 1 else filters or hidden_dim
        products += kernel_size * (inputs + outputs) * outputs
        others += 4 * outputs  # gain and bias of two convolutions
        if inputs != outputs:
            products += inputs * outputs
            others += outputs
        inputs = outputs
    return _Counts(products, others)


_COUNTS: dict[str, Callable[..., _Counts] | None] = {
    "transformer": _transformer,
    "rnn": _recurrent(gates=1, biases=1),
    "gru": _recurrent(gates=3, biases=2),
    "lstm": _recurrent(gates=4, biases=1),
    "gated_conv": _gated_conv,
    "tcn": _tcn,
    "ngram": None,
}
