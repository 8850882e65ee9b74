"""Our LSTM layer is Keras's LSTM, faster."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import recurrent

BATCH, LENGTH, DIM, UNITS = 3, 11, 5, 7


@pytest.fixture(scope="module")
def pair():
    """Our layer and Keras's, with the same weights."""
    keras.utils.set_random_seed(11)
    ours = recurrent.LSTM(UNITS)
    theirs = keras.layers.LSTM(UNITS, return_sequences=True)
    ours.build((None, None, DIM))
    theirs.build((None, None, DIM))
    theirs.set_weights([keras.random.normal(w.shape, seed=1) for w in ours.weights])
    ours.set_weights(theirs.get_weights())
    return ours, theirs


@pytest.fixture(scope="module")
def inputs():
    return tf.random.stateless_normal((BATCH, LENGTH, DIM), [1, 2])


WEIGH = np.random.default_rng(3).normal(size=(BATCH, LENGTH, UNITS)).astype("f")


def loss_and_gradients(layer, inputs, training):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(WEIGH * layer(inputs, training=training))
    sources = [inputs, *(weight.value for weight in layer.trainable_weights)]
    return loss, tape.gradient(loss, sources)


@pytest.mark.parametrize("training", [False, True])
def test_outputs_equal_those_of_keras(pair, inputs, training):
    ours, theirs = pair
    np.testing.assert_allclose(
        ours(inputs, training=training), theirs(inputs), atol=1e-6
    )


@pytest.mark.parametrize("jit_compile", [False, True, None])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_those_of_keras(pair, inputs, training, jit_compile):
    ours, theirs = pair
    compute = loss_and_gradients
    if jit_compile is not None:
        compute = tf.function(loss_and_gradients, jit_compile=jit_compile)
    _, gradients = compute(ours, inputs, training)
    _, expected = loss_and_gradients(theirs, inputs, training)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5, rtol=1e-5)


def test_gradients_of_the_first_state_equal_those_of_a_plain_loop(pair, inputs):
    ours, _ = pair
    projected = tf.transpose(ours._project(inputs), (1, 0, 2))
    kernel = ours.recurrent_kernel.value
    state = tf.random.stateless_normal((2, BATCH, UNITS), [5, 6])
    gradients = []
    for run in (recurrent._outputs_with_fast_gradient, recurrent._run):
        with tf.GradientTape() as tape:
            tape.watch(state)
            outputs = run(projected, kernel, state[0], state[1])
            loss = tf.reduce_sum(tf.sin(tf.nest.flatten(outputs)[0]))
        gradients.append(tape.gradient(loss, state))
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_steps_equal_the_whole_sequence(pair, inputs):
    ours, _ = pair
    state = (tf.zeros((BATCH, UNITS)), tf.zeros((BATCH, UNITS)))
    for time in range(LENGTH):
        output, state = ours.step(inputs[:, time], state)
        np.testing.assert_allclose(output, ours(inputs)[:, time], atol=1e-6)


def test_an_empty_sequence_gives_an_empty_output(pair):
    ours, _ = pair
    assert ours(tf.zeros((2, 0, DIM))).shape == (2, 0, UNITS)


def test_fresh_weights_follow_keras(pair):
    ours, theirs = recurrent.LSTM(UNITS), keras.layers.LSTM(UNITS)
    ours.build((None, None, DIM))
    theirs.build((None, None, DIM))
    assert [w.name for w in ours.weights] == [w.name for w in theirs.cell.weights]
    np.testing.assert_array_equal(ours.bias, theirs.cell.bias)


def test_the_configuration_round_trips():
    layer = recurrent.LSTM(UNITS, unit_forget_bias=False)
    assert recurrent.LSTM.from_config(layer.get_config()).get_config() == (
        layer.get_config()
    )
