"""Recipes: every family has one, and its schedule is what it says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from langzoo.models import FAMILIES, RECIPES, ByteTokenizer, build_causal_lm
from langzoo.models.families import family_of
from langzoo.models.learning.choices import OPTIMIZERS
from langzoo.models.learning.recipe import Recipe


def rates(recipe, steps, at):
    optimizer = recipe.make_optimizer(steps)
    return [float(optimizer._learning_rate(step)) for step in at]


def test_every_family_that_learns_by_gradient_has_a_recipe():
    learn = {name for name in FAMILIES if family_of(name).learns_by_gradient}
    assert set(RECIPES) == learn


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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_biases_and_norms_are_spared_by_weight_decay(optimizer):
    model = build_causal_lm(
        "transformer",
        ByteTokenizer(),
        16,
        num_layers=1,
        hidden_dim=16,
        use_bias=True,
        normalization="layer_norm",
    )
    weights = model.trainable_variables
    for weight in weights:
        weight.assign(np.full(weight.shape, 0.5))
    recipe = Recipe(
        learning_rate=0.5, weight_decay=0.1, warmup_steps=0, schedule="constant"
    )
    made = recipe.replace(optimizer=optimizer).make_optimizer()
    made.build(weights)
    made.apply([np.zeros(weight.shape, "float32") for weight in weights])
    decayed = {
        weight.path for weight in weights if not np.allclose(weight.numpy(), 0.5)
    }
    spared = {weight.path for weight in weights} - decayed
    assert all("norm" in path or "bias" in path for path in spared)
    assert any("norm" in path for path in spared)
    assert any("bias" in path for path in spared)
    assert all("norm" not in path and "bias" not in path for path in decayed)
    kernel = next(weight for weight in weights if weight.path in decayed)
    np.testing.assert_allclose(kernel.numpy(), 0.5 * (1 - 0.5 * 0.1), rtol=1e-5)


def test_the_default_recipe_makes_the_optimizer_it_always_made():
    made = Recipe(learning_rate=0.5).make_optimizer(steps=1000)
    config = made.get_config()
    schedule = config.pop("learning_rate")
    assert schedule["class_name"] == "CosineDecay"
    assert schedule["config"]["warmup_target"] == 0.5
    expected = keras.optimizers.AdamW(
        1.0, weight_decay=0.1, beta_2=0.99, global_clipnorm=1.0
    ).get_config()
    del expected["learning_rate"], expected["name"], config["name"]
    assert config == expected


def test_another_optimizer_gets_a_rate_of_its_own_and_decays_as_much_a_step():
    recipe = Recipe(learning_rate=3e-3, weight_decay=0.1).with_optimizer("lion")
    assert recipe.learning_rate < 3e-3
    assert recipe.learning_rate * recipe.weight_decay == pytest.approx(3e-4)
    assert recipe.with_optimizer("adam").weight_decay == 0


def test_an_optimizer_without_a_schedule_has_a_constant_rate_unless_it_is_told():
    assert Recipe().with_optimizer("schedule_free_adamw").schedule == "constant"
    assert Recipe().with_optimizer("muon").schedule == "cosine"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_clips_and_decays_as_the_recipe_says(optimizer):
    recipe = Recipe(clip_norm=0.5, optimizer=optimizer, weight_decay=0.25)
    made = recipe.make_optimizer(10)
    assert (made.global_clipnorm, made.weight_decay) == (0.5, 0.25)


@pytest.mark.parametrize("batches", [1, 3])
def test_an_average_forgets_as_much_a_step_whatever_its_batches(batches):
    recipe = Recipe(
        learning_rate=1e-30, ema_momentum=0.9, gradient_accumulation_steps=batches
    )
    optimizer = recipe.make_optimizer()
    weight = keras.Variable(np.zeros(2))
    optimizer.build([weight])
    for value in (0.0, 1.0):
        weight.assign([value, value])
        for _ in range(batches):
            optimizer.apply([np.zeros(2, "float32")])
    optimizer.finalize_variable_values([weight])
    np.testing.assert_allclose(weight.numpy(), 0.1, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "newton"}, "must be one of adamw, adam, sgd"),
        ({"schedule": "zigzag"}, "should be 'constant', 'cosine'"),
        ({"schedule": "step"}, "schedule step needs decay_every_steps"),
        ({"optimizer": "nt_asgd", "ema_momentum": 0.9}, "both average the weights"),
        (
            {"optimizer": "schedule_free_adamw", "average_last": 0.1},
            "average_last and optimizer schedule_free_adamw both average",
        ),
        (
            {"optimizer": "schedule_free_adamw", "cautious_decay": True},
            "cautious_decay needs another optimizer",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**changes).make_optimizer()


def test_a_built_model_learns_by_its_recipe():
    model = build_causal_lm("gru", ByteTokenizer(), 16, hidden_dim=16)
    texts = ["to be, or not to be"] * 8
    losses = model.fit(texts, batch_size=2, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 1
    schedule = model.optimizer._learning_rate
    np.testing.assert_allclose(schedule(1000), RECIPES["gru"].learning_rate, rtol=1e-6)
