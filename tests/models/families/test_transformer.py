"""The Transformer's options are what their papers and other implementations say."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models.families.transformer.attention import (
    CausalMask,
    RotaryPositions,
    SelfAttention,
    _rotate,
)
from langzoo.models.families.transformer.block import ACTIVATIONS, FeedForward

BATCH, LENGTH, DIM = 2, 9, 12


@pytest.fixture
def inputs():
    return tf.random.stateless_normal((BATCH, LENGTH, DIM), [1, 2])


def randomize(layer):
    generator = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))


def backbone(**options):
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": DIM, **options}
    return models.TransformerBackbone(20, max_sequence_length=LENGTH, **sizes)


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("use_bias", [False, True])
def test_attention_is_that_of_keras(inputs, heads, use_bias):
    ours = SelfAttention(4, heads, stddev=0.02, use_bias=use_bias)
    ours.build(inputs.shape)
    randomize(ours)
    theirs = keras.layers.GroupQueryAttention(
        DIM // 4, num_query_heads=4, num_key_value_heads=heads, use_bias=use_bias
    )
    theirs.build(inputs.shape, inputs.shape)
    sizes = np.cumsum([DIM, heads * DIM // 4])
    columns = [
        np.split(np.array(weight), sizes, axis=-1)
        for weight in ours.query_key_value.weights
    ]
    weights = [part for parts in zip(*columns, strict=True) for part in parts]
    weights += ours.attention_output.get_weights()
    theirs.set_weights(
        [
            np.reshape(weight, other.shape)
            for weight, other in zip(weights, theirs.weights, strict=True)
        ]
    )
    mask = CausalMask()(inputs)
    expected = theirs(inputs, inputs, use_causal_mask=True)
    np.testing.assert_allclose(ours(inputs, mask), expected, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_feed_forward_network_is_its_formula(inputs, activation):
    layer = FeedForward(7, activation, stddev=0.02, use_bias=True)
    layer.build(inputs.shape)
    randomize(layer)
    first = layer.intermediate
    hidden = inputs @ first.kernel + first.bias
    if activation == "swiglu":
        hidden = tf.nn.silu(hidden[..., :7]) * hidden[..., 7:]
    elif activation == "relu":
        hidden = np.maximum(hidden, 0)
    else:
        hidden = tf.nn.gelu(hidden, approximate=activation == "gelu_approximate")
    last = layer.feedforward_output
    np.testing.assert_allclose(
        layer(inputs), hidden @ last.kernel + last.bias, atol=1e-5
    )


def test_the_two_gelus_differ(inputs):
    exact, approximate = (
        ACTIVATIONS[name](inputs) for name in ("gelu", "gelu_approximate")
    )
    assert 1e-5 < np.abs(exact - approximate).max() < 1e-3


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rotary_positions_turn_pairs_as_complex_numbers(base):
    layer = RotaryPositions(6, base)
    x = np.random.default_rng(0).normal(size=(LENGTH, 6))
    pairs = x[:, :3] + 1j * x[:, 3:]
    frequencies = base ** -(np.arange(0, 6, 2) / 6)
    turned = pairs * np.exp(1j * np.arange(LENGTH)[:, None] * frequencies)
    rotated = _rotate(tf.constant(x, tf.float32), *layer(tf.zeros((1, LENGTH, 6))))
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(rotated, expected, atol=1e-5)


def test_late_rotary_positions_are_exact_in_half_precision():
    layer = RotaryPositions(4, 10000.0, dtype="mixed_bfloat16")
    cosine, sine = layer.rotation(tf.constant([4001]))
    assert cosine.dtype == tf.bfloat16
    np.testing.assert_allclose(float(cosine[0, 0]), np.cos(4001), atol=4e-3)
    np.testing.assert_allclose(float(sine[0, 1]), np.sin(40.01), atol=4e-3)


def test_sinusoidal_positions_are_those_of_the_paper():
    network = backbone(positions="sinusoidal")
    token_ids = tf.constant([[5, 5, 7]])
    exponents = np.arange(0, DIM, 2) / DIM
    angles = np.arange(3)[:, None] / 10000**exponents
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(3, DIM)
    embeddings = np.array(network.token_embedding(token_ids))[0]
    expected = embeddings * DIM**0.5 + table
    np.testing.assert_allclose(network._embed(token_ids)[0], expected, atol=1e-5)
    np.testing.assert_allclose(
        network._embed(token_ids[:, 2:], 2)[0], expected[2:], atol=1e-5
    )


def test_learned_positions_are_added_and_are_weights():
    network = backbone(positions="learned")
    token_ids = tf.constant([[5, 5, 7]])
    table = np.array(network.position_embedding.position_embeddings)
    assert table.shape == (LENGTH, DIM)
    expected = np.array(network.token_embedding(token_ids))[0] + table[:3]
    np.testing.assert_allclose(network._embed(token_ids)[0], expected, atol=1e-6)


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
def test_positions_tell_the_order_of_tokens(positions):
    network = backbone(positions=positions)
    randomize(network)

    def last(token_ids):
        ids = np.array([token_ids])
        return network({"token_ids": ids, "padding_mask": np.ones_like(ids)})[0, -1]

    assert np.abs(last([4, 9, 6]) - last([9, 4, 6])).max() > 1e-3


@pytest.mark.parametrize("normalization", ["rms_norm", "layer_norm"])
def test_normalization_is_its_formula(inputs, normalization):
    norm = backbone(normalization=normalization, norm_epsilon=0.1).final_norm
    x = inputs
    if normalization == "layer_norm":
        x -= tf.reduce_mean(x, axis=-1, keepdims=True)
    expected = x / tf.sqrt(tf.reduce_mean(x**2, axis=-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(norm(inputs), expected, atol=1e-5)


def test_without_biases_no_weight_is_one():
    def biases(**options):
        weights = backbone(normalization="layer_norm", **options).weights
        return [weight.name for weight in weights if weight.name in ("bias", "beta")]

    assert biases() == []
    assert sorted(biases(use_bias=True)) == ["beta"] * 3 + ["bias"] * 4


def test_untied_output_weights_are_weights_of_their_own():
    tied, untied = backbone(), backbone(tie_embeddings=False)
    assert untied.count_params() == tied.count_params() + 20 * DIM
    x = tf.ones((1, 1, DIM))
    before = untied.token_embedding(x, reverse=True)
    untied.token_embedding.embeddings.assign_add(tf.ones((20, DIM)))
    np.testing.assert_array_equal(untied.token_embedding(x, reverse=True), before)


def test_weights_are_drawn_with_the_deviation_asked_for():
    keras.utils.set_random_seed(0)
    network = models.TransformerBackbone(
        50, num_layers=8, hidden_dim=64, initializer_range=0.1
    )
    block = network.blocks[3]
    for layer, expected in [
        (block.attention.query_key_value, 0.1),
        (block.feedforward.intermediate, 0.1),
        (block.attention.attention_output, 0.1 / 4),
        (block.feedforward.feedforward_output, 0.1 / 4),
    ]:
        assert np.std(layer.kernel) == pytest.approx(expected, rel=0.05)
    assert np.std(network.token_embedding.embeddings) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"activation": "tanh"}, "activation: 'tanh' cannot be"),
        ({"positions": "alibi"}, "positions: 'alibi' cannot be"),
        ({"normalization": "batch"}, "normalization: 'batch' cannot be"),
        (
            {"num_key_value_heads": 4},
            "num_heads 2 must be a multiple of num_key_value_heads 4",
        ),
        ({"num_heads": 4}, "hidden_dim 12 must be a multiple of twice num_heads 4"),
    ],
)
def test_an_option_that_is_not_known_is_an_error(options, received):
    with pytest.raises(ValueError, match=received):
        backbone(**options)


def test_heads_of_odd_width_are_fine_where_nothing_is_rotated():
    assert backbone(num_heads=4, positions="learned").hidden_dim == DIM
