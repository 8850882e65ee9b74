"""The convolutional families are what their papers and their formulas say."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models.families.convolutional.layers import (
    CausalConv,
    GatedConvBlock,
    TemporalBlock,
    WeightNormDense,
)

BATCH, LENGTH, DIM = 2, 17, 6


@pytest.fixture
def inputs():
    return tf.random.stateless_normal((BATCH, LENGTH, DIM), [1, 2])


def randomize(layer, seed=0):
    """Draws every weight, so that no gain is one and no bias is zero."""
    generator = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))


def keras_convolution(conv):
    """Keras's own convolution with the effective kernel of one of ours."""
    theirs = keras.layers.Conv1D(
        conv.dense.units,
        conv.kernel_size,
        padding="causal",
        dilation_rate=conv.dilation_rate,
    )
    theirs.build((None, None, conv.input_dim))
    kernel = np.reshape(conv.dense.kernel, theirs.kernel.shape)
    theirs.set_weights([kernel, conv.dense.bias])
    return theirs


@pytest.mark.parametrize("dilation_rate", [1, 2, 5])
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("dense_cls", [keras.layers.Dense, WeightNormDense])
def test_a_causal_convolution_is_that_of_keras(
    inputs, dense_cls, kernel_size, dilation_rate
):
    ours = CausalConv(dense_cls(4), kernel_size, dilation_rate)
    ours.build(inputs.shape)
    randomize(ours)
    np.testing.assert_allclose(ours(inputs), keras_convolution(ours)(inputs), atol=1e-5)


def test_weight_normalization_makes_the_length_of_a_column_its_gain(inputs):
    layer = WeightNormDense(4)
    layer.build(inputs.shape)
    first = layer(inputs)
    np.testing.assert_allclose(first, inputs @ layer.direction, atol=1e-6)
    layer.gain.assign([1, 2, 3, 4])
    np.testing.assert_allclose(np.linalg.norm(layer.kernel, axis=0), [1, 2, 3, 4], 1e-6)
    kernel = np.array(layer.kernel)
    layer.direction.assign(layer.direction * 7)
    np.testing.assert_allclose(layer.kernel, kernel, rtol=1e-6)


@pytest.mark.parametrize("filters", [DIM, 4])
def test_a_temporal_block_is_the_one_of_the_paper(inputs, filters):
    block = TemporalBlock(filters, kernel_size=3, dilation_rate=4)
    block.build(inputs.shape)
    randomize(block)
    first, second = map(keras_convolution, block.convs)
    branch = tf.nn.relu(second(tf.nn.relu(first(inputs))))
    residual = inputs
    if filters != DIM:
        residual = inputs @ block.project.kernel + block.project.bias
    np.testing.assert_allclose(block(inputs), tf.nn.relu(residual + branch), atol=1e-5)


@pytest.mark.parametrize("bottleneck_dim", [None, 3])
def test_a_gated_block_is_the_one_of_the_paper(inputs, bottleneck_dim):
    block = GatedConvBlock(3, bottleneck_dim)
    block.build(inputs.shape)
    randomize(block)
    assert [conv.kernel_size for conv in block.convs] == (
        [1, 3, 1] if bottleneck_dim else [3]
    )
    mean_square = tf.reduce_mean(inputs**2, axis=-1, keepdims=True)
    branch = inputs / tf.sqrt(mean_square + 1e-6) * block.norm.scale
    for conv in block.convs:
        value, gate = tf.split(keras_convolution(conv)(branch), 2, axis=-1)
        branch = value * tf.sigmoid(gate)
    np.testing.assert_allclose(block(inputs), inputs + branch, atol=1e-5)


def test_dropout_of_a_temporal_block_drops_whole_channels(inputs):
    block = TemporalBlock(DIM, kernel_size=2, dropout=0.5)
    block.build(inputs.shape)
    block.convs[1].dense.bias.assign(np.full(DIM, 100.0))
    changes = block(inputs, training=True) - tf.nn.relu(inputs)
    is_dropped = np.abs(changes) < 50
    assert 0 < is_dropped.mean() < 1
    assert (is_dropped.all(axis=1) | ~is_dropped.any(axis=1)).all()


BACKBONES = {
    "gated_conv": (models.GatedConvBackbone, {"num_layers": 3, "kernel_size": 3}),
    "gated_conv_bottleneck": (
        models.GatedConvBackbone,
        {"num_layers": 2, "kernel_size": 5, "bottleneck_dim": 4},
    ),
    "tcn": (models.TCNBackbone, {"num_layers": 3, "kernel_size": 2}),
    "tcn_wide": (models.TCNBackbone, {"num_layers": 2, "kernel_size": 4, "filters": 9}),
}
FIELDS = {"gated_conv": 7, "gated_conv_bottleneck": 9, "tcn": 15, "tcn_wide": 19}


@pytest.mark.parametrize("name", BACKBONES)
def test_an_output_depends_on_its_receptive_field_and_on_nothing_else(name):
    cls, sizes = BACKBONES[name]
    backbone = cls(vocabulary_size=20, hidden_dim=8, **sizes)
    randomize(backbone)
    field = backbone.receptive_field
    assert field == FIELDS[name]
    length = 2 * field
    at = length - 3
    embeddings = tf.random.stateless_normal((1, length, 8), [3, 4])
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        x = embeddings
        for block in backbone.blocks:
            x = block(x)
        output = tf.reduce_sum(x[0, at] ** 2)
    gradient = np.abs(tape.gradient(output, embeddings)[0]).max(axis=-1)
    assert (gradient[at - field + 1 : at + 1] > 0).all()
    assert not gradient[: at - field + 1].any()
    assert not gradient[at + 1 :].any()


def test_the_caches_of_a_tcn_hold_the_last_inputs_of_each_convolution():
    backbone = models.TCNBackbone(20, num_layers=3, hidden_dim=8, filters=5)
    shapes = [
        [tuple(cache.shape) for cache in caches]
        for caches in backbone.empty_cache(2, 30)
    ]
    assert shapes == [
        [(2, 2, 8), (2, 2, 5)],
        [(2, 4, 5), (2, 4, 5)],
        [(2, 8, 5), (2, 8, 8)],
    ]


def deviation_of_branches(bottleneck_dim):
    """Of what a network's untrained blocks add to a residual stream of deviation 1."""
    keras.utils.set_random_seed(0)
    backbone = models.GatedConvBackbone(
        20, num_layers=6, hidden_dim=96, bottleneck_dim=bottleneck_dim
    )
    x = tf.random.stateless_normal((4, 32, 96), [5, 6])
    branches = [block(x) - x for block in backbone.blocks]
    return float(np.mean([tf.math.reduce_std(branch) for branch in branches]))


def test_a_bottleneck_leaves_the_branches_their_size():
    # A gate halves a signal, and there are three instead of one.
    plain, bottleneck = deviation_of_branches(None), deviation_of_branches(48)
    assert plain / 5 < bottleneck < plain


@pytest.mark.parametrize("cls", [models.GatedConvBackbone, models.TCNBackbone])
def test_a_kernel_that_sees_nothing_before_is_an_error(cls):
    with pytest.raises(ValueError, match="kernel_size: 1 cannot be"):
        cls(vocabulary_size=20, kernel_size=1)
