"""Optimizers by name: they are Keras's, and the others what their papers say."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.backbone import holds_matrices, learns_by_rows
from langzoo.models.learning.choices import OPTIMIZERS
from langzoo.models.learning.optimizers import (
    NTASGD,
    Muon,
    ScheduleFreeAdamW,
    TriggerAveraging,
    averaging_is_due,
    extended,
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
    "muon": lambda rate: keras.optimizers.Muon(
        rate, adam_beta_2=0.99, weight_decay=0.0, adam_weight_decay=0.0
    ),
}
OWN = {"schedule_free_adamw"}  # Keras's is not the paper's.


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


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - OWN))
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


# --- AdamW by rows ---


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("dense", [False, True])
def test_a_table_learns_in_the_rows_that_a_batch_has(clip_norm, dense):
    table = keras.Variable(np.ones((5, 3), "float32"))
    learns_by_rows(table)
    recipe = Recipe(learning_rate=0.05, schedule="constant", warmup_steps=0)
    optimizer = recipe.replace(clip_norm=clip_norm, weight_decay=0.3).make_optimizer()
    optimizer.build([table])

    @tf.function(jit_compile=True)
    def apply(values, rows):
        slices = tf.IndexedSlices(values, rows, tf.constant([5, 3]))
        optimizer.apply([tf.convert_to_tensor(slices) if dense else slices])

    generator = np.random.default_rng(0)
    weights, moments = np.ones((5, 3)), np.zeros((5, 3))
    for step, rows in enumerate(([3, 1, 3, 3], [1, 0, 0, 3], [1, 1, 1, 1]), 1):
        values = generator.normal(size=(4, 3)).astype("float32")
        apply(values, np.array(rows, "int32"))
        gradient = np.zeros((5, 3))
        np.add.at(gradient, rows, values)
        gradient *= min(1, (clip_norm or np.inf) / np.linalg.norm(gradient))
        met = np.unique(rows)
        moments[met] += 0.01 * (gradient[met] ** 2 - moments[met])
        unbiased = moments[met] / (1 - 0.99**step)
        weights[met] -= 0.05 * gradient[met] / (np.sqrt(unbiased) + 1e-7)
    np.testing.assert_allclose(table.numpy(), weights, rtol=1e-5)
    np.testing.assert_allclose(optimizer._velocities[0].numpy(), moments, rtol=1e-5)
    np.testing.assert_array_equal(table.numpy()[[2, 4]], 1)


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


# --- Muon ---

SIZE = 0.2  # Moonlight's: the root mean square of an update, as AdamW's


def moved(shape, gradient, *, name="kernel", widths=(), **options):
    """What one step of Muon at rate 1 takes from a kernel of zeros."""
    kernel = keras.Variable(np.zeros(shape, "float32"), name=name)
    if widths:
        holds_matrices(kernel, widths)
    optimizer = Muon(1.0, **options)
    optimizer.build([kernel])
    optimizer.apply([gradient])
    return -kernel.numpy()


def orthogonal(matrix):
    """The nearest orthogonal matrix, of the size of an update."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right * SIZE * max(matrix.shape) ** 0.5


def drawn(shape, seed):
    """A matrix that is not near to one of a lower rank."""
    matrix = np.random.default_rng(seed).normal(size=shape)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return ((left * (values + values.max())) @ right).astype("float32")


def assert_near(got, expected):
    # Five steps of the quintic leave singular values from 0.68 to 1.13.
    left, values, right = np.linalg.svd(got, full_matrices=False)
    scale = SIZE * max(got.shape) ** 0.5
    assert values.min() / scale > 0.6
    assert values.max() / scale < 1.25
    np.testing.assert_allclose(
        left @ right * scale, expected, rtol=1e-3, atol=1e-3 * scale
    )


def test_muon_makes_queries_keys_and_values_orthogonal_apart():
    widths = (16, 8, 8)  # of grouped queries
    parts = [drawn((16, width), seed) for seed, width in enumerate(widths)]
    gradient = np.concatenate(parts, axis=1)
    got = moved((16, 32), gradient, widths=widths)
    updates = np.split(got, np.cumsum(widths)[:-1], axis=1)
    for part, update in zip(parts, updates, strict=True):
        assert_near(update, orthogonal(part))
    whole = orthogonal(gradient)
    assert not np.allclose(got, whole, atol=0.3 * np.abs(whole).max())


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((3, 8, 12), (24, 12)), ((16, 4, 4), (16, 16)), ((4, 4, 16), (16, 16))],
    ids=["convolution", "query heads", "heads to output"],
)
def test_muon_takes_a_kernel_of_more_axes_for_a_matrix(shape, matrix):
    gradient = drawn(matrix, 1)
    update = moved(shape, gradient.reshape(shape)).reshape(matrix)
    assert_near(update, orthogonal(gradient))


def test_muon_goes_on_from_its_momentum_by_nesterov():
    gradients = [drawn((8, 8), 2)]
    gradients += [gradients[0] + 0.1 * drawn((8, 8), seed) for seed in (3, 4)]
    kernel = keras.Variable(np.zeros((8, 8), "float32"), name="kernel")
    optimizer = Muon(1.0)
    optimizer.build([kernel])
    before, momentum = kernel.numpy(), np.zeros((8, 8))
    for gradient in gradients:
        optimizer.apply([gradient])
        momentum = 0.95 * momentum + gradient
        assert_near(before - kernel.numpy(), orthogonal(gradient + 0.95 * momentum))
        before = kernel.numpy()


@pytest.mark.parametrize(
    ("shape", "name"), [((8, 4), "embeddings"), ((8,), "bias"), ((), "scale")]
)
def test_muon_leaves_the_rest_to_adamw(shape, name):
    gradient = np.random.default_rng(3).normal(size=shape).astype("float32")
    path = "token_embedding" if name == "embeddings" else name
    got = moved(shape, gradient, name=path)
    np.testing.assert_allclose(got, np.sign(gradient), rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        ("transformer", {"num_key_value_heads": 1}, {(16, 8, 8), (64, 64)}),
        ("gated_conv", {}, {(16, 16)}),
        ("lstm", {}, {(16,) * 4}),
        ("gru", {}, {(16,) * 3}),
        ("rnn", {}, {(16,)}),
    ],
)
def test_a_familys_fused_kernels_say_what_they_hold(family, options, expected):
    if family == "transformer":
        options |= {"num_heads": 2, "intermediate_dim": 64}
    model = build_causal_lm(
        family, ByteTokenizer(), 16, num_layers=1, hidden_dim=16, **options
    )
    found = {getattr(weight, "matrix_widths", None) for weight in model.weights}
    assert found - {None} == expected
    for weight in model.weights:
        widths = getattr(weight, "matrix_widths", weight.shape[-1:])
        assert sum(widths) == sum(weight.shape[-1:])


# --- Schedule-free AdamW ---


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free_adamw_is_the_papers_algorithm(gradients, decay):
    rates = [0.0, 0.05, 0.1, 0.1, 0.1, 0.1]  # behind a warm-up
    optimizer = ScheduleFreeAdamW(0.1, beta_2=0.99, weight_decay=decay)
    base, average, moment = np.ones((3, 4)), np.ones((3, 4)), np.zeros((3, 4))
    weight, total = np.ones((3, 4)), 0.0
    kernel = keras.Variable(np.ones((3, 4), "float32"))
    optimizer.build([kernel])
    for step, (rate, (gradient, _)) in enumerate(zip(rates, gradients, strict=True), 1):
        optimizer.learning_rate = rate
        optimizer.apply([gradient])
        moment = 0.99 * moment + 0.01 * gradient**2
        update = gradient / (np.sqrt(moment / (1 - 0.99**step)) + 1e-7)
        base = base - rate * (update + decay * weight)
        total += rate**2
        share = rate**2 / total if total else 0.0
        average = (1 - share) * average + share * base
        weight = 0.1 * base + 0.9 * average
        np.testing.assert_allclose(kernel.numpy(), weight, rtol=1e-4, atol=1e-5)
    optimizer.finalize_variable_values([kernel])
    np.testing.assert_allclose(kernel.numpy(), average, rtol=1e-4, atol=1e-5)


def test_schedule_free_adamw_accumulates(gradients):
    halves = [[half * scale for half in pair] for pair in gradients for scale in (2, 0)]
    _, course = run(ScheduleFreeAdamW(0.1, gradient_accumulation_steps=2), halves)
    _, expected = run(ScheduleFreeAdamW(0.1), gradients)
    for got, one in zip(course[1::2], expected, strict=True):
        np.testing.assert_allclose(got[0], one[0], rtol=1e-5)


# --- What any optimizer can be extended by ---


def test_a_weight_decays_cautiously_only_where_its_step_brings_it_nearer_to_zero():
    values = np.array([[1.0, 1.0, -1.0, -1.0, 0.0]], "float32")
    gradient = np.array([[1.0, -1.0, 1.0, -1.0, 1.0]], "float32")
    kernel = keras.Variable(values)
    optimizer = extended(keras.optimizers.SGD)(
        0.1, weight_decay=0.5, cautious_decay=True
    )
    optimizer.build([kernel])
    optimizer.apply([gradient])
    # 1 falls by 0.1 and decays by 0.05, and so does -1 rise; the others only move.
    expected = [[0.85, 1.1, -1.1, -0.85, -0.1]]
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon", "lion"])
def test_decay_that_is_not_cautious_is_that_of_keras(name, gradients):
    recipe = Recipe(optimizer=name, schedule="constant", warmup_steps=0)
    _, expected = run(recipe.make_optimizer(), gradients)
    # A width of 3, the shorter side of the matrix.
    _, course = run(recipe.replace(decay_width=3).make_optimizer(), gradients)
    for one, got in zip(expected, course, strict=True):
        np.testing.assert_allclose(got[0], one[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "factor"), [((4, 8), 2.0), ((32, 16), 0.5), ((2, 4, 8), 1.0), ((3,), 1.0)]
)
def test_a_narrow_matrix_decays_more(shape, factor):
    kernel = keras.Variable(np.ones(shape, "float32"))
    optimizer = extended(keras.optimizers.SGD)(0.1, weight_decay=0.5, decay_width=8)
    optimizer.build([kernel])
    optimizer.apply([np.zeros(shape, "float32")])
    np.testing.assert_allclose(kernel.numpy(), 1 - 0.05 * factor, rtol=1e-6)


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("momentum", [None, 0.5])
def test_the_last_steps_are_averaged_behind_their_exponential_average(
    gradients, accumulated, momentum
):
    recipe = Recipe(
        learning_rate=0.1,
        optimizer="sgd",
        schedule="constant",
        warmup_steps=0,
        average_last=0.5,
        ema_momentum=momentum,
        gradient_accumulation_steps=accumulated,
    )
    steps = len(gradients) // accumulated
    optimizer = recipe.make_optimizer(steps)
    weights, course = run(optimizer, gradients)
    each = (momentum or 0.0) ** (1 / accumulated)
    averages = [matrix for matrix, _ in course[:accumulated]]  # Where Keras's begins.
    for matrix, _ in course[accumulated:]:
        averages.append(each * averages[-1] + (1 - each) * matrix)
    ends = averages[accumulated - 1 :: accumulated]
    last = ends[steps - round(steps * 0.5) :]
    before = weights[0].numpy()
    np.testing.assert_array_equal(before, course[-1][0])  # The training is the same.
    optimizer.finalize_variable_values(weights)
    np.testing.assert_allclose(
        weights[0].numpy(), np.mean(last, axis=0), rtol=1e-4, atol=1e-6
    )
    assert not np.allclose(before, weights[0].numpy(), atol=1e-4)
