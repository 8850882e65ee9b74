"""Attention in blocks gives what attention at once does, without squares in memory."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models.families.transformer import attention, blocks
from langzoo.models.tasks.packed import PackedNetwork
from tiny_models import VARIANTS

CONTEXT = 24
DIM = 6


def at_once(query, key, value, first):
    """By the formula, all scores at a time."""
    group = query.shape[1] // key.shape[1]
    key, value = tf.repeat(key, group, axis=1), tf.repeat(value, group, axis=1)
    scores = tf.matmul(query, key, transpose_b=True)
    places = tf.range(query.shape[2])
    seen = places >= first[:, None, :, None]
    seen &= places <= places[:, None]
    return tf.matmul(tf.nn.softmax(tf.where(seen, scores, -np.inf)), value)


def drawn(heads, key_heads, length, seed=0):
    generator = np.random.default_rng(seed)
    shapes = [(2, count, length, DIM) for count in (heads, key_heads, key_heads, heads)]
    return [tf.constant(generator.normal(size=shape), tf.float32) for shape in shapes]


def with_gradients(function, query, key, value, weights):
    """What a function gives, and the gradients of a weighted sum of it."""
    with tf.GradientTape() as tape:
        tape.watch([query, key, value])
        heads = function(query, key, value)
        total = tf.reduce_sum(tf.cast(heads, tf.float32) * weights)
    return heads, *tape.gradient(total, [query, key, value])


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """With blocks of at most five places, and no sequence that goes without them."""
    monkeypatch.setattr(blocks, "_LENGTH", 5)
    monkeypatch.setattr(attention, "WHOLE", 0)


PLACES = np.arange(18)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("heads", "key_heads", "first"),
    [
        pytest.param(2, 2, np.zeros((1, 18)), id="causal"),
        pytest.param(3, 1, np.zeros((1, 4)), id="short"),
        pytest.param(2, 1, np.maximum(PLACES - 6, 0)[None], id="window"),
        pytest.param(
            4, 2, np.stack([PLACES - PLACES % 7, PLACES - PLACES % 4]), id="documents"
        ),
    ],
)
def test_outputs_and_gradients_are_those_of_all_scores(
    heads, key_heads, first, compiled
):
    arrays = drawn(heads, key_heads, first.shape[1])
    first = tf.constant(first, tf.int32)
    expected = with_gradients(lambda *x: at_once(*x, first), *arrays)
    run = tf.function(
        lambda *x: with_gradients(lambda *y: blocks.attend(*y, first), *x),
        jit_compile=compiled,
    )
    for one, other in zip(run(*arrays), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_near_float32(dtype):
    first = tf.zeros((1, 18), tf.int32)
    *arrays, weights = drawn(4, 2, 18)
    half = [tf.cast(x, dtype) for x in arrays]
    attend = lambda *x: blocks.attend(*x, first)  # noqa: E731
    expected = with_gradients(attend, *[tf.cast(x, "float32") for x in half], weights)
    for one, other in zip(
        with_gradients(attend, *half, weights), expected, strict=True
    ):
        assert one.dtype == dtype
        np.testing.assert_allclose(tf.cast(one, "float32"), other, atol=0.15)


def test_what_is_dropped_is_the_same_on_the_way_back():
    first, length = tf.zeros((1, 18), tf.int32), 18
    query, key, value, weights = drawn(2, 1, length)
    options = {"dropout": 0.4, "seed": tf.constant([3, 4])}

    def total(query, key, value):
        heads = blocks.attend(query, key, value, first, **options)
        return tf.reduce_sum(tf.cast(heads * weights, tf.float64))

    _, *gradients = with_gradients(
        lambda *x: blocks.attend(*x, first, **options), query, key, value, weights
    )
    arrays, step = [query, key, value], 1e-2
    for place, gradient in enumerate(gradients):
        way = drawn(2, 1, length, seed=place + 1)[place]
        ends = []
        for sign in (1, -1):
            moved = [*arrays]
            moved[place] = arrays[place] + sign * step * way
            ends.append(total(*moved))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(slope) == pytest.approx(
            float(tf.reduce_sum(gradient * way)), rel=2e-2
        )
    dropped = tf.function(
        lambda seed: blocks.attend(query, key, value, first, dropout=0.4, seed=seed)
    )
    means = tf.reduce_mean([dropped(tf.constant([0, n])) for n in range(200)], axis=0)
    whole = blocks.attend(query, key, value, first)
    assert float(tf.reduce_mean(tf.abs(means - whole))) < 0.1


def shapes_in(graph, seen):
    """Shapes of all that is worked out in a graph and in the loops within."""
    for operation in graph.get_operations():
        seen.update(tuple(output.shape) for output in operation.outputs if output.shape)
        for name in ("body", "cond", "then_branch", "else_branch", "f"):
            if name in operation.node_def.attr:
                called = operation.get_attr(name)
                inner = graph._get_function(called.name)
                shapes_in(inner.graph, seen)
    return seen


def test_no_tensor_of_a_step_grows_with_the_square_of_the_length(monkeypatch):
    monkeypatch.setattr(blocks, "_LENGTH", 256)
    first, length = tf.zeros((1, 2048), tf.int32), 2048
    spec = [tf.TensorSpec((1, heads, length, DIM)) for heads in (4, 2, 2, 4)]

    def traced(attend):
        function = tf.function(
            lambda *x: with_gradients(attend, *x), input_signature=spec
        )
        return shapes_in(function.get_concrete_function().graph, set())

    def largest(shapes):
        return max(np.prod([size or 1 for size in shape]) for shape in shapes)

    assert largest(traced(lambda *x: at_once(*x, first))) >= length**2
    found = traced(lambda *x: blocks.attend(*x, first))
    assert any(shape[-1] == 256 for shape in found)  # The loops have been looked into.
    assert largest(found) <= 4 * 512 * 256


@pytest.fixture(params=["gpt2", "transformer_options"])
def model(request):
    family, sizes = VARIANTS[request.param]
    keras.utils.set_random_seed(0)
    model = models.build_causal_lm(family, models.ByteTokenizer(), CONTEXT, **sizes)
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        noise = generator.normal(scale=0.2, size=weight.shape)
        weight.assign(weight + noise.astype(weight.dtype))
    return model


def without_blocks(function):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "WHOLE", CONTEXT)
        return function()


def test_a_model_says_the_same_in_blocks(model):
    tokens = np.random.default_rng(0).integers(4, 260, (2, CONTEXT))
    tokens[0, [5, 11]] = tokens[1, 3] = 2  # where documents begin
    tokens = tf.constant(tokens, tf.int32)
    inputs = {"token_ids": tokens, "padding_mask": tokens > 0}
    packed = PackedNetwork(model.backbone, 2)

    def told():
        model.score_function = model.generate_function = None
        model.compile(sampler="greedy", jit_compile=False)
        return (
            model(inputs),
            packed(inputs),
            model.score("To be, or not to be, that is the question").numpy(),
            *(model.prefill(inputs["token_ids"], 9)[1]),
            model.backbone.attention_weights(inputs["token_ids"]),
            models.attribute(model, "To be, or", " not").scores,
        ), model.generate("To be, or", max_length=20)

    (in_blocks, text), (at_once, expected) = told(), without_blocks(told)
    for one, other in zip(in_blocks, at_once, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    assert text == expected
