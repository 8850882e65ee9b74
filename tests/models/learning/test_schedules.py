"""Schedules: each is its closed form at chosen steps."""

from __future__ import annotations

import math

import keras
import langzoo  # noqa: F401  # sets the environment before TensorFlow is imported
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models.learning.choices import LAID_OUT, SCHEDULES
from langzoo.models.learning.recipe import Recipe
from langzoo.models.learning.schedules import make_schedule, plateau_of

PEAK, WARMUP, STEPS, FINAL = 0.5, 10, 110, 0.1
OPTIONS = {
    "warmup_steps": WARMUP,
    "steps": STEPS,
    "final": FINAL,
    "decay_every_steps": 20,
    "decay_factor": 0.5,
}


def cosine(step):
    share = (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2
    return PEAK * (FINAL + (1 - FINAL) * share)


CLOSED_FORMS = {
    "constant": lambda step: PEAK,
    "plateau": lambda step: PEAK,
    "cosine": cosine,
    "linear": lambda step: (
        PEAK * (1 - (1 - FINAL) * (step - WARMUP) / (STEPS - WARMUP))
    ),
    "inverse_square_root": lambda step: PEAK * math.sqrt(WARMUP / step),
    # The last half of all steps: from 55 to 110.
    "wsd": lambda step: PEAK * (FINAL + (1 - FINAL) * min(1, (STEPS - step) / 55)),
    "step": lambda step: PEAK * 0.5 ** ((step - WARMUP) // 20),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_is_its_closed_form_behind_a_linear_warm_up(kind):
    schedule = make_schedule(kind, PEAK, **OPTIONS)
    for step in (0, 1, 5, 9):
        assert float(schedule(step)) == pytest.approx(PEAK * step / WARMUP, abs=1e-7)
    for step in (10, 11, 29, 30, 50, 54, 56, 75):
        expected = CLOSED_FORMS[kind](step)
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_no_schedule_falls_below_its_end(kind):
    schedule = make_schedule(kind, PEAK, **OPTIONS)
    last = float(schedule(100_000))
    stays = kind in ("constant", "plateau")
    assert last == pytest.approx(PEAK if stays else PEAK * FINAL, rel=1e-5)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_there_can_be_no_warm_up(kind):
    schedule = make_schedule(kind, PEAK, **{**OPTIONS, "warmup_steps": 0})
    assert float(schedule(0)) == pytest.approx(PEAK)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_wsd_stays_until_its_share_of_the_steps_is_left(share):
    schedule = make_schedule("wsd", PEAK, **{**OPTIONS, "decay_share": share})
    begin = max(STEPS - round(STEPS * share), WARMUP)
    expected = [PEAK, (PEAK + PEAK * FINAL) / 2, PEAK * FINAL]
    got = [float(schedule(step)) for step in (begin, (begin + STEPS) / 2, STEPS)]
    assert got == pytest.approx(expected)
    assert float(schedule(begin + 1)) < PEAK


@pytest.mark.parametrize("kind", LAID_OUT)
def test_a_schedule_stays_at_its_peak_where_the_length_is_not_known(kind):
    schedule = make_schedule(kind, PEAK, **{**OPTIONS, "steps": None})
    assert float(schedule(100_000)) == pytest.approx(PEAK)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_over_steps_of_several_batches_counts_steps(kind):
    recipe = Recipe(schedule=kind, decay_every_steps=20, warmup_steps=10)
    batchwise = recipe.replace(gradient_accumulation_steps=4).make_schedule(STEPS)
    stepwise = recipe.make_schedule(STEPS)
    for batch in (0, 3, 4, 21, 43, 200):
        rate = float(stepwise(batch // 4))
        assert float(batchwise(batch)) == pytest.approx(rate, abs=1e-9)


def test_a_plateau_can_be_lowered_while_a_graph_runs():
    recipe = Recipe(
        learning_rate=1.0, schedule="plateau", warmup_steps=0, weight_decay=0.0
    )
    recipe = recipe.replace(optimizer="sgd", momentum=0.0)
    optimizer = recipe.make_optimizer()
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    apply = tf.function(lambda: optimizer.apply([np.ones(1, "float32")]))
    apply()
    plateau_of(optimizer._learning_rate).share.assign(0.25)
    apply()
    np.testing.assert_allclose(weight.numpy(), [-1.25])


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_an_optimizer_with_a_schedule_can_be_saved(kind, batches):
    recipe = Recipe(
        schedule=kind, decay_every_steps=20, gradient_accumulation_steps=batches
    )
    optimizer = recipe.make_optimizer(STEPS)
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    for step in (3, 60, 105):
        expected = float(optimizer._learning_rate(step))
        assert float(again._learning_rate(step)) == pytest.approx(expected)
