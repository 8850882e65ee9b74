"""Label smoothing: Keras's, for targets that are token ids."""

from __future__ import annotations

import keras
import langzoo  # noqa: F401  # sets the environment before TensorFlow is imported
import numpy as np
import pytest
from langzoo.models.learning.losses import SmoothedCrossEntropy


@pytest.fixture
def batch():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 7, (2, 5))
    logits = generator.normal(scale=3, size=(2, 5, 7)).astype("float32")
    return targets, logits, generator.integers(0, 2, (2, 5)).astype("float32")


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_is_what_keras_says_of_smoothed_vectors(batch, smoothing):
    targets, logits, weights = batch
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True,
        label_smoothing=smoothing,
        reduction="mean_with_sample_weight",
    )
    expected = float(theirs(np.eye(7, dtype="float32")[targets], logits, weights))
    loss = SmoothedCrossEntropy(smoothing)
    assert float(loss(targets, logits, weights)) == pytest.approx(expected, rel=1e-5)


def test_a_saved_one_comes_back():
    config = keras.losses.serialize(SmoothedCrossEntropy(0.25, "sum"))
    again = keras.losses.deserialize(config)
    assert (again.label_smoothing, again.reduction) == (0.25, "sum")


def test_a_smoothing_out_of_range_is_refused():
    with pytest.raises(ValueError, match="must be at least 0 and below 1"):
        SmoothedCrossEntropy(1.0)
