"""Techniques of training: each does what it says, and survives an interruption."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest
from langzoo.components.errors import InputError
from langzoo.components.trainer import callbacks, evaluation, training
from langzoo.components.trainer.networks import network_of, prepared
from langzoo.components.trainer.rows.windows import TokenWindows
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.components.trainer.watching.watching import Watching
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.learning.optimizers import averaging_is_due

BATCH = 4
STEPS = 8


def write(path, texts):
    tokenizer = ByteTokenizer()
    TokenWindows.write(
        path,
        [np.array(tokenizer(text)) for text in texts],
        vocabulary_size=tokenizer.vocabulary_size(),
        start_id=tokenizer.start_token_id,
        end_id=tokenizer.end_token_id,
        pad_id=tokenizer.pad_token_id,
    )
    return TokenWindows(path, context_length=16)


# What the courses of the losses below are of.
TEXT = """The training loop: checkpoints, progress.\
Trains `model` in place, from the newest checkpoint if there is one.

    Args:
        model: A causal language model from `{"token_ids", "padding_mask"}`, both
            `[b, t]`, to logits `[b, t, vocabulary]`. A `StatefulNetwork` gets the
            windows in contiguous order.
        train_windows: Windows to learn from, in the packing of the configuration.
        eval_windows: Windows for the loss in the result, and those during training.
        config: Hyperparameters; `precision` and `freeze` have been applied to the
            model.
        checkpoint_folder: Where checkpoints lie; it belongs to this training alone.
        bytes_per_token: Bytes of text for each target of `eval_windows`, for bits per
            byte.

    Raises:
        InputError: Where the loss is not finite.
    Windows of one context length over the stream, wherever documents end.

    Window `i` predicts the tokens `i * context_length + 1 ... (i + 1) * context_length`
    of the stream, so every token but the very first is a target exactly once an epoch;
    `<s>` and the padding at the end of the stream have weight zero.

    Two orders of an epoch's windows are on offer: shuffled, and contiguous, where row
    `i` of a batch goes on where row `i` of the batch before ended. For the latter the
    windows are dealt out to the rows in equal runs; the last rows may lack some, and
    have windows of padding in their place.

    Args:
        path: File that `write` has written.
        context_length: Tokens in a window.
    """


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    # Paragraphs: in many windows a document begins, and its first token has no weight.
    return write(folder / "stream", TEXT.split("\n\n"))


@pytest.fixture(scope="module")
def eval_windows(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "eval"
    return write(path, evaluation.__doc__.split("\n\n"))


@pytest.fixture(autouse=True)
def every_step_is_shown(monkeypatch):
    monkeypatch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)


def make_model(family="gated_conv", dropout=0.2):
    keras.utils.set_random_seed(0)
    return build_causal_lm(
        family, ByteTokenizer(), 16, num_layers=1, hidden_dim=16, dropout=dropout
    )


def make_steep(factor):
    """A model that is sure of its predictions, if wrong."""
    model = make_model(dropout=0.0)
    embedding = model.backbone.token_embedding
    embedding.set_weights([weight * factor for weight in embedding.get_weights()])
    return model


def train(data, folder, model=None, *, carry_state=False, watching=None, **options):
    """Trains a new model, or this one; returns it and the result."""
    model = model or make_model("rnn" if carry_state else "gated_conv")
    settings = TrainerSettings(
        **{
            "steps": STEPS,
            "batch_size": BATCH,
            "carry_state": carry_state,
            "warmup_steps": 2,
            "jit_compile": False,
            **options,
        },
    ).of_family("gated_conv")
    trained = prepared(model, settings)
    network = network_of(trained, settings)
    result = training.train(network, *data, settings, str(folder), watching=watching)
    return trained, result


def assert_same(expected, got, **tolerance):
    tolerance = tolerance or {"atol": 1e-6}
    for one, other in zip(expected.weights, got.weights, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), **tolerance)


def losses(rows):
    return [row["loss"] for row in rows]


# --- An interrupted training ends as if it had not been ---

EVALUATED = {"eval_every_steps": 2}
STATEFUL = {
    "adafactor, float16": {"optimizer": "adafactor", "precision": "float16"},
    "plateau": {
        "schedule": "plateau",
        "learning_rate": 0.5,
        "plateau_patience": 1,
        **EVALUATED,
    },
    "lion, smoothing, freezing, XLA": {
        "optimizer": "lion",
        "label_smoothing": 0.1,
        "freeze": ["token_embedding"],
        "jit_compile": True,
    },
    "rates of layers, unfreezing, accumulation": {
        "layer_rates": {"block_*": 0.5, "token_embedding": 0.1},
        "unfreeze": {"block_0": 3, "token_embedding": 6},
        "gradient_accumulation_steps": 2,
    },
    "nt_asgd": {
        "optimizer": "nt_asgd",
        "learning_rate": 60.0,  # so high that the loss does not only fall
        "averaging_patience": 1,
        **EVALUATED,
    },
    "sgd, accumulation, average, early stopping": {
        "optimizer": "sgd",
        "learning_rate": 60.0,
        "gradient_accumulation_steps": 3,
        "ema_momentum": 0.5,
        "early_stopping_patience": 3,
        **EVALUATED,
    },
    "muon, accumulation, bfloat16": {
        "optimizer": "muon",
        "gradient_accumulation_steps": 2,
        "precision": "bfloat16",
    },
    "schedule-free AdamW, early stopping": {
        "optimizer": "schedule_free_adamw",
        "early_stopping_patience": 9,
        **EVALUATED,
    },
    "schedule-free AdamW, accumulation, float16": {
        "optimizer": "schedule_free_adamw",
        "gradient_accumulation_steps": 2,
        "precision": "float16",
    },
    "wsd, cautious decay by width, averages, new orders": {
        "schedule": "wsd",
        "cautious_decay": True,
        "decay_width": 64,
        "ema_momentum": 0.5,
        "average_last": 0.5,
        "repack": True,
        **EVALUATED,
    },
    "new orders, carried state": {"repack": True, "carry_state": True},
    "accumulation, bfloat16, carried state": {
        "gradient_accumulation_steps": 3,
        "precision": "bfloat16",
        "carry_state": True,
    },
}
# That it did come to what the technique is for, before the interruption.
COMES_TO = {
    "nt_asgd": lambda course: (
        averaging_is_due(course[:2], 1) or averaging_is_due(course[:3], 1)
    ),
    "plateau": lambda course: evaluation.falls(course[:2], 1) > 0,
    "sgd, accumulation, average, early stopping": lambda course: (
        evaluation.since_best(course) > 0
    ),
}


@pytest.mark.parametrize("technique", STATEFUL)
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    technique, windows, eval_windows, tmp_path, interrupted
):
    data, options = (windows, eval_windows), STATEFUL[technique]
    whole, expected = train(data, tmp_path / "whole", **options)
    with interrupted("step 7/"):
        train(data, tmp_path / "parts", **options)
    resumed, result = train(data, tmp_path / "parts", **options)
    assert result.resumed_at == 7
    assert_same(whole, resumed)
    np.testing.assert_allclose(
        losses(result.history), losses(expected.history), atol=1e-6
    )
    course = losses(result.evaluations)
    np.testing.assert_allclose(course, losses(expected.evaluations), atol=1e-6)
    assert result.eval_loss == pytest.approx(expected.eval_loss, abs=1e-6)
    assert COMES_TO.get(technique, lambda course: True)(course), course


@pytest.mark.parametrize(
    "technique",
    [
        "sgd, accumulation, average, early stopping",
        "accumulation, bfloat16, carried state",
    ],
)
def test_a_training_that_had_ended_goes_on_as_if_it_had_not(
    technique, windows, eval_windows, tmp_path
):
    data = (windows, eval_windows)
    options = {"schedule": "constant", **STATEFUL[technique]}
    whole, expected = train(data, tmp_path / "whole", **options)
    train(data, tmp_path / "parts", **{**options, "steps": 4})
    longer, result = train(data, tmp_path / "parts", **options)
    assert result.resumed_at == 4
    assert_same(whole, longer)
    assert losses(result.history) == pytest.approx(losses(expected.history), abs=1e-6)
    assert losses(result.evaluations) == pytest.approx(losses(expected.evaluations))


def test_a_shorter_training_does_not_go_on_from_a_longer_one(windows, tmp_path, caplog):
    data, options = (windows, windows), {"schedule": "constant", "checkpoint_steps": 6}
    expected, _ = train(data, tmp_path / "new", **{**options, "steps": 4})
    train(data, tmp_path / "old", **options)
    with caplog.at_level(logging.INFO, "langzoo"):
        shorter, result = train(data, tmp_path / "old", **{**options, "steps": 4})
    assert "are of more steps: training anew" in caplog.text
    assert (result.resumed_at, result.steps) == (0, 4)
    assert_same(expected, shorter)
    _, result = train(data, tmp_path / "old", **{**options, "steps": 7})
    assert result.resumed_at == 4


@pytest.mark.parametrize(("accumulated", "told"), [(3, True), (1, False)])
def test_a_batch_that_was_learned_from_is_not_learned_from_again(
    accumulated, told, windows, tmp_path, monkeypatch
):
    options = {"gradient_accumulation_steps": accumulated, "ema_momentum": 0.5}
    whole, expected = train((windows, windows), tmp_path / "whole", **options)
    ended = callbacks.Progress.on_train_batch_end

    def end(self, batch, logs=None):
        if told or batch < 4:
            ended(self, batch, logs)
        if batch == 4:  # With three batches a step in the middle of one.
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_train_batch_end", end)
        with pytest.raises(KeyboardInterrupt):
            train((windows, windows), tmp_path / "parts", **options)
    resumed, result = train((windows, windows), tmp_path / "parts", **options)
    assert result.resumed_at == 5 // accumulated
    assert_same(whole, resumed)
    if told:
        np.testing.assert_allclose(
            losses(result.history), losses(expected.history), atol=1e-6
        )


def test_an_evaluation_that_is_interrupted_is_made_up_for(
    windows, eval_windows, tmp_path, interrupted
):
    data = (windows, eval_windows)
    options = {"ema_momentum": 0.5, "early_stopping_patience": 9, **EVALUATED}
    whole, expected = train(data, tmp_path / "whole", **options)
    for folder, said in [("before", "loss"), ("after", "evaluation")]:
        with interrupted(f"step 4/8, {said}"):
            train(data, tmp_path / folder, **options)
        resumed, result = train(data, tmp_path / folder, **options)
        assert result.resumed_at == 4
        assert losses(result.evaluations) == losses(expected.evaluations)
        assert_same(whole, resumed)


# --- Gradient accumulation ---


@pytest.mark.parametrize(("optimizer", "clip_norm"), [("adamw", 0.05), ("sgd", 0.0)])
def test_accumulated_batches_are_one_large_batch(
    optimizer, clip_norm, windows, tmp_path
):
    options = {"optimizer": optimizer, "clip_norm": clip_norm, "schedule": "linear"}
    data = (windows, windows)

    def run(folder, batch_size, **more):
        return train(
            data,
            tmp_path / folder,
            make_model(dropout=0.0),
            batch_size=batch_size,
            **options,
            **more,
        )

    large, expected = run("large", 12)
    parts, result = run("parts", 4, gradient_accumulation_steps=3)
    assert_same(large, parts, atol=1e-5)
    np.testing.assert_allclose(
        losses(result.history), losses(expected.history), atol=1e-5
    )
    assert result.history[-1]["learning_rate"] == pytest.approx(
        expected.history[-1]["learning_rate"]
    )
    assert (result.steps, result.tokens_seen) == (expected.steps, expected.tokens_seen)
    assert result.eval_loss == pytest.approx(expected.eval_loss, abs=1e-2)


# --- Averages ---


def test_the_exponential_average_is_what_is_evaluated_and_returned(
    windows, eval_windows, tmp_path
):
    options = {"steps": 3, "learning_rate": 0.02, "warmup_steps": 0}
    options["schedule"] = "constant"
    course = []

    class Noted(Watching):
        def evaluated(self, row):
            course.append(model.get_weights())

    model = make_model()
    plain = train(
        (windows, eval_windows),
        tmp_path / "plain",
        model,
        watching=Noted(),
        eval_every_steps=1,
        **options,
    )[1]
    average = course[0]
    for weights in course[1:]:
        average = [0.5 * a + 0.5 * w for a, w in zip(average, weights, strict=True)]
    averaged, result = train(
        (windows, eval_windows),
        tmp_path / "averaged",
        ema_momentum=0.5,
        eval_every_steps=2,
        **options,
    )
    for expected, got in zip(average, averaged.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    # Averaging does not disturb the training, and evaluations do not.
    assert losses(result.history) == losses(plain.history)
    assert losses(result.evaluations)[-1] == pytest.approx(result.eval_loss)
    assert result.eval_loss != pytest.approx(plain.eval_loss, abs=1e-4)


def test_the_average_of_schedule_free_adamw_is_evaluated_and_returned(
    windows, eval_windows, tmp_path
):
    class Noted(Watching):
        def begin(self, network, *more):
            self.optimizer = network.optimizer
            return super().begin(network, *more)

        def evaluated(self, row):
            self.weights = model.get_weights()

    model, noted = make_model(), Noted()
    _, result = train(
        (windows, eval_windows),
        tmp_path,
        model,
        watching=noted,
        optimizer="schedule_free_adamw",
        eval_every_steps=4,
    )
    averages = noted.optimizer._model_variables_moving_average
    for weights in (noted.weights, model.get_weights()):
        for got, average in zip(weights, averages, strict=True):
            np.testing.assert_array_equal(got, average.numpy())
    bases = noted.optimizer._momentums
    assert not np.allclose(bases[0].numpy(), averages[0].numpy(), atol=1e-4)
    assert losses(result.evaluations)[-1] == pytest.approx(result.eval_loss)


# --- What evaluations decide ---


def test_evaluations_do_not_disturb_the_training(windows, eval_windows, tmp_path):
    data = (windows, eval_windows)
    plain, expected = train(data, tmp_path / "plain", carry_state=True)
    watched, result = train(
        data, tmp_path / "watched", carry_state=True, eval_every_steps=3
    )
    assert losses(result.history) == losses(expected.history)
    assert [row["step"] for row in result.evaluations] == [3, 6, 8]
    assert losses(result.evaluations)[-1] == result.eval_loss
    assert_same(plain, watched, atol=0)


def test_a_training_ends_early_with_the_best_weights_and_is_not_gone_on_with(
    windows, eval_windows, tmp_path
):
    data = (windows, eval_windows)
    options = {
        "steps": 60,
        "learning_rate": 0.5,
        "schedule": "constant",
        "eval_every_steps": 2,
        "early_stopping_patience": 3,
    }
    ended, result = train(data, tmp_path, **options)
    course = losses(result.evaluations)
    assert result.steps == 2 * len(course) < 60
    assert course.index(min(course)) == len(course) - 1 - 3
    assert result.eval_loss == pytest.approx(min(course), abs=1e-6)
    assert result.tokens_seen == result.steps * BATCH * 16
    again, resumed = train(data, tmp_path, **options)
    assert resumed.evaluations == result.evaluations
    assert resumed.resumed_at == result.steps
    assert_same(ended, again, atol=0)


def test_the_learning_rate_falls_where_the_loss_stays(windows, eval_windows, tmp_path):
    _, result = train(
        (windows, eval_windows),
        tmp_path,
        steps=24,
        learning_rate=0.5,
        schedule="plateau",
        plateau_patience=2,
        decay_factor=0.25,
        final_learning_rate=0.1,
        eval_every_steps=2,
    )
    course = losses(result.evaluations)
    rates = {row["step"]: row["learning_rate"] for row in result.history}
    for number in range(1, len(course)):
        share = max(0.25 ** evaluation.falls(course[:number], 2), 0.1)
        assert rates[2 * number + 1] == pytest.approx(0.5 * share)
    assert rates[23] < 0.5


@pytest.mark.parametrize(
    ("course", "patience", "expected"),
    [
        ([], 1, 0),
        ([3, 2, 1], 1, 0),
        ([3, 2, 2, 2], 1, 2),
        ([3, 2, 2, 2, 2], 2, 1),
        ([3, 2, 4, 1, 4, 4], 2, 1),
        ([float("nan"), 2, 3], 1, 2),
    ],
)
def test_falls_are_counted_from_the_last_best_or_fall(course, patience, expected):
    assert evaluation.falls(course, patience) == expected


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ([], 0),
        ([3.0], 0),
        ([3.0, 2.0, 4.0, 5.0], 2),
        ([2.0, 2.0], 1),  # only better is better
        ([float("nan"), float("nan")], 2),
        ([2.0, float("nan")], 1),
    ],
)
def test_evaluations_since_the_best_are_counted(course, expected):
    assert evaluation.since_best(course) == expected


# --- Losses, layers, precision ---


def test_reported_losses_are_not_smoothed(windows, tmp_path):
    # Nothing is learned, so all that differs is what is reported.
    options = {"learning_rate": 1e-30, "eval_every_steps": 8}
    data = (windows, windows)
    _, plain = train(data, tmp_path / "plain", make_steep(20), **options)
    _, smoothed = train(
        data, tmp_path / "smoothed", make_steep(20), label_smoothing=0.5, **options
    )
    np.testing.assert_allclose(
        losses(smoothed.history), losses(plain.history), rtol=1e-5
    )
    # Keras's mean is of batches, that of the metric of tokens.
    assert smoothed.eval_loss == pytest.approx(plain.eval_loss, rel=0.01)
    (row,) = smoothed.evaluations
    assert row["loss"] == smoothed.eval_loss


def test_smoothing_is_learned(windows, tmp_path):
    def reached(folder, label_smoothing):
        model, _ = train(
            (windows, windows),
            tmp_path / folder,
            steps=60,
            learning_rate=2e-2,
            label_smoothing=label_smoothing,
        )
        inputs = next(iter(windows.evaluation_batches(BATCH)))[0]
        return float(np.max(keras.ops.softmax(model(inputs))))

    assert reached("smoothed", 0.9) < 0.5 * reached("plain", 0.0)


def test_frozen_layers_keep_their_weights(windows, tmp_path):
    model = make_model("lstm")
    before = {weight.path: weight.numpy() for weight in model.weights}
    _, result = train(
        (windows, windows), tmp_path, model, freeze=["recurrent_*", "token_embedding"]
    )
    for weight in model.weights:
        frozen = "norm" not in weight.path
        assert np.array_equal(weight.numpy(), before[weight.path]) == frozen
    assert result.parameters == 2 * 16


def test_a_layer_that_is_not_there_cannot_be_frozen(windows, tmp_path):
    with pytest.raises(InputError, match=r"trainer\.freeze: .*token_embedding, "):
        train((windows, windows), tmp_path, freeze=["layer_*"])


def test_a_model_learns_as_much_in_another_precision(windows, tmp_path):
    options = {"steps": 40, "learning_rate": 1e-2, "jit_compile": True}
    data = (windows, windows)
    _, expected = train(data, tmp_path / "float32", **options)
    _, result = train(data, tmp_path / "half", precision="bfloat16", **options)
    assert result.eval_loss == pytest.approx(expected.eval_loss, abs=0.1)
    assert result.eval_loss < np.log(260) - 0.5


def test_a_recurrent_model_learns_in_float16(windows, tmp_path):
    options = {"steps": 40, "learning_rate": 1e-2, "precision": "float16"}
    _, result = train((windows, windows), tmp_path, make_model("lstm"), **options)
    assert result.eval_loss < np.log(260) - 0.5


def test_an_overflow_in_float16_skips_a_batch_and_loses_no_place(
    windows, tmp_path, interrupted
):
    data = (windows, windows)
    # The first scale of the loss is too large for these logits, the next will do.
    options = {"precision": "float16", "steps": 6}
    whole, expected = train(data, tmp_path / "whole", make_steep(2000), **options)
    with interrupted("step 4/"):
        train(data, tmp_path / "parts", make_steep(2000), **options)
    resumed, result = train(data, tmp_path / "parts", make_steep(2000), **options)
    assert result.resumed_at == 4
    assert losses(result.history) == pytest.approx(losses(expected.history), abs=1e-5)
    assert_same(whole, resumed, atol=1e-5)
