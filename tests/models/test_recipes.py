"""Recipes: every family has one, and its schedule is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from langzoo.models import FAMILIES, ByteTokenizer, build_causal_lm
from langzoo.models.recipes import RECIPES, Recipe


def rates(recipe, steps, at):
    optimizer = recipe.optimizer(steps)
    return [float(optimizer._learning_rate(step)) for step in at]


def test_every_family_that_learns_by_gradient_has_a_recipe():
    assert set(RECIPES) == set(FAMILIES) - {"ngram"}


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe(learning_rate=0.5, final_learning_rate=0.1, warmup_steps=10)
    expected = [0.0, 0.25, 0.5, (0.5 + 0.05) / 2, 0.05]
    assert rates(recipe, 110, [0, 5, 10, 60, 110]) == pytest.approx(expected)


def test_the_learning_rate_stays_where_the_length_is_not_known():
    recipe = Recipe(learning_rate=0.5, warmup_steps=10)
    assert rates(recipe, None, [5, 10, 11, 10_000]) == pytest.approx([0.25] + [0.5] * 3)


@pytest.mark.parametrize("steps", [0, 1, 2, 50])
def test_a_training_shorter_than_the_warm_up_reaches_the_peak(steps):
    last = rates(Recipe(learning_rate=0.5), steps, [max(steps - 1, 0)])
    assert last == pytest.approx([0.5])


def test_biases_and_norms_are_spared_by_weight_decay():
    model = build_causal_lm(
        "transformer", ByteTokenizer(), 16, num_layers=1, hidden_dim=16, use_bias=True
    )
    optimizer = Recipe().optimizer()
    optimizer.build(model.trainable_variables)
    decayed = {
        weight.path
        for weight in model.trainable_variables
        if optimizer._use_weight_decay(weight)
    }
    spared = {weight.path for weight in model.trainable_variables} - decayed
    assert all("norm" in path or "bias" in path for path in spared)
    assert any("norm" in path for path in spared)
    assert any("bias" in path for path in spared)
    assert all("norm" not in path and "bias" not in path for path in decayed)


def test_a_built_model_learns_by_its_recipe():
    model = build_causal_lm("gru", ByteTokenizer(), 16, hidden_dim=16)
    texts = ["to be, or not to be"] * 8
    losses = model.fit(texts, batch_size=2, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 1
    schedule = model.optimizer._learning_rate
    np.testing.assert_allclose(schedule(1000), RECIPES["gru"].learning_rate, rtol=1e-6)
