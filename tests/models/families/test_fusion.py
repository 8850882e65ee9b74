"""Fused functions: the same values and gradients, compiled."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.families.fusion import fused
from langzoo.models.families.transformer.block import ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_are_the_same(name):
    x = tf.constant(np.random.default_rng(0).normal(0, 3, (2, 5, 8)), tf.float32)
    results = []
    for function in (ACTIVATIONS[name], fused(ACTIVATIONS[name])):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        results.append((y, tape.gradient(y, x, y * y)))
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def uses_xla(model, training):
    ids = tf.ones((2, 8), tf.int32)
    inputs = {"token_ids": ids, "padding_mask": tf.cast(ids, tf.bool)}
    graph = tf.function(lambda: model(inputs, training=training))
    graph = graph.get_concrete_function().graph
    functions = graph.as_graph_def().library.function
    return any(function.attr["_XlaMustCompile"].b for function in functions)


@pytest.mark.parametrize("family", ["transformer", "gated_conv"])
def test_only_training_compiles(family):
    sizes = {"num_layers": 1, "hidden_dim": 16}
    model = build_causal_lm(family, ByteTokenizer(), 8, **sizes)
    assert uses_xla(model, training=True)
    assert not uses_xla(model, training=False)
