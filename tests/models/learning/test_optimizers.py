"""Optimizers by name: they are Keras's, and NT-ASGD is what the paper says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.learning.choices import OPTIMIZERS
from langzoo.models.learning.optimizers import (
    NTASGD,
    TriggerAveraging,
    averaging_is_due,
)
from langzoo.models.learning.recipe import Recipe

THEIRS = {
    "adamw": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.0, beta_2=0.99),
    "adam": lambda rate: keras.optimizers.Adam(rate, beta_2=0.99),
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "nt_asgd": keras.optimizers.SGD,
    "adagrad": keras.optimizers.Adagrad,
    "adafactor": lambda rate: keras.optimizers.Adafactor(rate, relative_step=False),
    "lion": lambda rate: keras.optimizers.Lion(rate, beta_2=0.99),
}


def run(optimizer, gradients, *, after=lambda step: None):
    """The weights after each of the gradients, from zeros and ones."""
    weights = [keras.Variable(np.ones((3, 4), "float32")), keras.Variable(np.zeros(2))]
    optimizer.build(weights)
    course = []
    for step, pair in enumerate(gradients):
        optimizer.apply(pair)
        course.append([weight.numpy() for weight in weights])
        after(step)
    return weights, course


@pytest.fixture
def gradients():
    generator = np.random.default_rng(0)
    return [
        [generator.normal(size=shape).astype("float32") for shape in ((3, 4), (2,))]
        for _ in range(6)
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_updates_as_kerass_own(name, gradients):
    recipe = Recipe(
        learning_rate=0.05,
        optimizer=name,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,
        clip_norm=0.0,
    )
    _, ours = run(recipe.make_optimizer(), gradients)
    _, theirs = run(THEIRS[name](0.05), gradients)
    for expected, got in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)


def test_the_gradients_norm_over_all_weights_is_clipped(gradients):
    recipe = Recipe(
        learning_rate=1.0,
        optimizer="sgd",
        momentum=0.0,
        schedule="constant",
        warmup_steps=0,
    )
    recipe = recipe.replace(clip_norm=0.5, weight_decay=0.0)
    _, ((matrix, vector), *_) = run(recipe.make_optimizer(), gradients[:1])
    moved = np.concatenate([(1 - matrix).ravel(), -vector])
    assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_learns_with_every_optimizer(name, shakespeare):
    model = build_causal_lm("lstm", ByteTokenizer(), 64, hidden_dim=16)
    recipe = Recipe(learning_rate=5e-3, warmup_steps=2).with_optimizer(name)
    model.compile(optimizer=recipe.make_optimizer())
    losses = model.fit(shakespeare, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.5


# --- NT-ASGD ---


def reference(losses, patience):
    """The program of Merity et al., `main.py`: where it switches to ASGD."""
    best_val_loss = []
    for check, val_loss in enumerate(losses):
        if len(best_val_loss) > patience and val_loss > min(best_val_loss[:-patience]):
            return check
        best_val_loss.append(val_loss)
    return None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_averaging_begins_where_the_authors_program_begins_it(patience):
    generator = np.random.default_rng(patience)
    found = []
    for _ in range(50):
        fall = np.linspace(5, 4, 12) * generator.choice([0, 1, 3])
        losses = list(fall + generator.choice([0, 0.2, 1]) * generator.normal(size=12))
        due = [averaging_is_due(losses[: n + 1], patience) for n in range(12)]
        begin = due.index(True) if any(due) else None
        assert begin == reference(losses, patience)
        found.append(begin)
    assert None in found
    assert len(set(found)) > 2


def test_a_loss_that_only_falls_triggers_nothing():
    losses = list(np.linspace(5, 1, 30))
    assert not any(averaging_is_due(losses[:n], 1) for n in range(31))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_average_is_that_of_all_weights_since_the_trigger(gradients, accumulated):
    # Algorithm 1: the mean of w_T, ..., w_K, where T is the step of the trigger.
    optimizer = NTASGD(
        0.1, gradient_accumulation_steps=accumulated if accumulated > 1 else None
    )
    trigger = 3  # batches; with two a step, after the second step
    start = {trigger: optimizer.start_averaging}
    weights, course = run(
        optimizer, gradients, after=lambda batch: start.get(batch, lambda: None)()
    )
    steps = course[accumulated - 1 :: accumulated]
    since = trigger // accumulated
    last = weights[0].numpy()
    np.testing.assert_array_equal(last, steps[-1][0])
    optimizer.finalize_variable_values(weights)
    for number, weight in enumerate(weights):
        expected = np.mean([step[number] for step in steps[since:]], axis=0)
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(last, weights[0].numpy(), atol=1e-3)


def test_the_average_is_the_weights_until_it_begins(gradients):
    optimizer = NTASGD(0.1)
    weights, course = run(optimizer, gradients)
    optimizer.finalize_variable_values(weights)
    np.testing.assert_array_equal(weights[0].numpy(), course[-1][0])


def test_a_trigger_after_the_first_changes_nothing(gradients):
    optimizer = NTASGD(0.1)
    run(optimizer, gradients, after=lambda step: optimizer.start_averaging())
    assert int(optimizer.averaged_updates) == len(gradients)


def test_a_saved_nt_asgd_comes_back():
    config = keras.optimizers.serialize(NTASGD(0.5, global_clipnorm=0.25))
    again = keras.optimizers.deserialize(config)
    assert isinstance(again, NTASGD)
    assert again.global_clipnorm == 0.25


def test_fit_triggers_averaging_and_ends_with_the_average(shakespeare):
    keras.utils.set_random_seed(0)
    model = build_causal_lm("rnn", ByteTokenizer(), 32, hidden_dim=8)
    # So high a rate that the loss goes up and down.
    optimizer = NTASGD(100.0, global_clipnorm=1.0)
    model.compile(optimizer=optimizer)
    trigger = TriggerAveraging(patience=1)
    model.fit(
        shakespeare,
        validation_data=(shakespeare[:4],),
        batch_size=4,
        epochs=6,
        verbose=0,
        callbacks=[trigger],
    )
    assert len(trigger.losses) == 6
    assert int(optimizer.averaged_updates) > 1
    averages = optimizer._model_variables_moving_average
    for weight, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(weight.numpy(), average.numpy())
