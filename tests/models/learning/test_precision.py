"""Another precision computes nearly the same, with float32 weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.learning.precision import in_precision
from tiny_models import GRADIENTS, tiny


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", GRADIENTS)
def test_a_family_computes_nearly_the_same(family, precision, shakespeare):
    keras.utils.set_random_seed(0)
    model = build_causal_lm(family, ByteTokenizer(), 16, **tiny(family))
    inputs, _, _ = model.preprocessor(shakespeare[:2])
    other = in_precision(model, precision)
    assert other.backbone.compute_dtype == precision
    assert {weight.dtype for weight in other.weights} == {"float32"}
    expected, got = model(inputs), other(inputs)
    assert got.dtype == tf.float32
    assert not np.array_equal(got, expected)
    np.testing.assert_allclose(got, expected, atol=0.05 * float(np.std(expected)))


def test_learning_leaves_the_original_alone():
    model = build_causal_lm("lstm", ByteTokenizer(), 16, hidden_dim=8)
    before = model.get_weights()
    other = in_precision(model, "bfloat16")
    other.backbone.set_weights([weight + 1 for weight in before])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_an_unknown_precision_is_refused():
    model = build_causal_lm("lstm", ByteTokenizer(), 16, hidden_dim=8)
    with pytest.raises(ValueError, match="one of float32, bfloat16, float16"):
        in_precision(model, "float8")
