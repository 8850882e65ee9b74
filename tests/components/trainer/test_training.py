"""Training: it learns, and what is interrupted goes on as if it had not been."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.trainer import callbacks, training
from langzoo.components.trainer.counting import count
from langzoo.components.trainer.evaluation import evaluate
from langzoo.components.trainer.networks import network_of
from langzoo.components.trainer.rows.packing import make_windows
from langzoo.components.trainer.rows.windows import TokenStream, TokenWindows
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.models import ByteTokenizer, CausalLM, LSTMBackbone, build_causal_lm
from langzoo.models.families import RECIPES

STEPS = 12


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    tokenizer = ByteTokenizer()
    text = training.__doc__ + training.train.__doc__ + TokenWindows.__doc__
    path = tmp_path_factory.mktemp("windows") / "stream"
    TokenWindows.write(
        path,
        [np.array(tokenizer(paragraph)) for paragraph in text.split("\n\n")],
        vocabulary_size=tokenizer.vocabulary_size(),
        start_id=tokenizer.start_token_id,
        end_id=tokenizer.end_token_id,
        pad_id=tokenizer.pad_token_id,
        unk_id=tokenizer.unk_token_id,
    )
    return path


@pytest.fixture(scope="module")
def windows(stream):
    return TokenWindows(stream, context_length=16)


def make_model(family="transformer", **options):
    keras.utils.set_random_seed(0)
    model = build_causal_lm(
        family, ByteTokenizer(), 16, num_layers=1, hidden_dim=16, dropout=0.2
    )
    return network_of(model, TrainerSettings(steps=1, **options))


def train(windows, folder, model=None, **options):
    model = model or make_model(packing=options.get("packing", "contiguous"))
    settings = TrainerSettings(
        **{
            "steps": STEPS,
            "batch_size": 4,
            "warmup_steps": 2,
            "jit_compile": False,
            **options,
        },
    )
    result = training.train(
        model, windows, windows, settings.of_family("transformer"), str(folder)
    )
    return model, result


@pytest.fixture
def interrupted(interrupted, monkeypatch):
    """Interrupts what runs in a `with` statement at a step."""
    monkeypatch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)
    return lambda step: interrupted(f"step {step}/")


@pytest.mark.parametrize(
    "family", ["transformer", "rnn", "gru", "lstm", "gated_conv", "tcn"]
)
def test_training_lowers_the_loss(windows, tmp_path, family):
    options = {"steps": 40, "learning_rate": 1e-2, "jit_compile": True}
    _, result = train(windows, tmp_path, make_model(family), **options)
    assert result.history[0]["loss"] == pytest.approx(np.log(260), rel=0.05)
    assert result.eval_loss < result.history[0]["loss"] - 0.5


def test_a_loss_that_is_not_finite_is_recorded_with_its_batch(windows, tmp_path):
    train(windows, tmp_path, steps=3)
    options = {"learning_rate": 1e30, "warmup_steps": 0, "clip_norm": 0}
    with pytest.raises(InputError, match=r"the loss is .* lower trainer.learning_rate"):
        train(windows, tmp_path, steps=STEPS, **options)
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["step"] > 3
    assert failure["learning_rate"] > 1e28
    batch = windows.training_batches(
        4, seed=0, first_step=failure["step"] - 1, last_step=STEPS
    )
    inputs, _, _ = next(iter(batch))
    np.testing.assert_array_equal(failure["token_ids"], inputs["token_ids"])
    # Nothing that came of it was saved.
    _, result = train(windows, tmp_path, steps=3)
    assert result.resumed_at == 3
    assert np.isfinite(result.eval_loss)


def test_checkpoints_are_written_by_steps_too(windows, tmp_path):
    options = {"checkpoint_steps": 5, "checkpoint_seconds": 1e6, "keep_checkpoints": 9}
    train(windows, tmp_path, **options)
    written = {path.name.split(".")[0] for path in tmp_path.glob("ckpt-*")}
    assert written == {"ckpt-5", "ckpt-10", f"ckpt-{STEPS}"}


def test_the_checkpoint_of_the_best_evaluation_is_kept(windows, tmp_path):
    options = {"eval_every_steps": 2, "keep_checkpoints": 1, "learning_rate": 10.0}
    options |= {"schedule": "constant", "warmup_steps": 8}
    model, result = train(windows, tmp_path, **options)
    best = min(result.evaluations, key=lambda row: row["loss"])
    assert best["step"] < STEPS  # With such a learning rate it gets worse.
    (path,) = (tmp_path / "best").glob("ckpt-*.index")
    assert path.name == f"ckpt-{best['step']:.0f}.index"
    saved = tf.train.load_checkpoint(str(path.with_suffix("")))
    for number, variable in enumerate(model.variables):
        name = f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE"
        variable.assign(saved.get_tensor(name))
    assert evaluate(model, windows.evaluation_batches(4)) == pytest.approx(best["loss"])


@pytest.mark.parametrize("packing", ["contiguous", "lines"])
def test_an_evaluation_reads_its_batches_once_and_no_more_than_are_wanted(
    stream, tmp_path, monkeypatch, packing
):
    windows, read = make_windows(stream, 16, packing), []
    noted = TokenStream._read
    monkeypatch.setattr(
        TokenStream, "_read", lambda *args: read.append(args) or noted(*args)
    )
    options = {"packing": packing, "eval_every_steps": 1, "steps": 0}
    whole = windows.steps_an_epoch(4)
    train(windows, tmp_path / "none", **options)
    assert len(read) == 2 * whole  # inputs and targets
    read.clear()
    options |= {"steps": 2, "eval_batches": 3}
    train(windows, tmp_path / "some", **options)
    learned = 2
    assert len(read) == 2 * (learned + 2 * 3 + whole)


def test_the_batches_of_an_evaluation_are_from_all_over_the_split(stream):
    windows = make_windows(stream, 16, "lines")
    lengths = [x["token_ids"].shape[1] for x, *_ in windows.evaluation_batches(4)]
    some = [x["token_ids"].shape[1] for x, *_ in windows.evaluation_batches(4, 5)]
    assert len(some) == 5 < len(lengths)
    assert (some[0], some[-1]) == (min(lengths), max(lengths))


# --- Packing and augmentation ---

NOISE = {"token_dropout": 0.1, "span_masking": 0.2}


@pytest.mark.parametrize("packing", ["best_fit", "lines"])
def test_an_interrupted_training_with_whole_documents_and_noise_ends_alike(
    stream, tmp_path, interrupted, packing
):
    packed = make_windows(stream, 16, packing)
    options = {"packing": packing, "augmentation": NOISE, "batch_size": 8}
    options["steps"] = 16  # of `lines` almost, of others more than, an epoch
    whole, expected = train(packed, tmp_path / "whole", **options)
    with interrupted(7):
        train(packed, tmp_path / "parts", **options)
    resumed, result = train(packed, tmp_path / "parts", **options)
    assert result.resumed_at == 7
    assert [row["step"] for row in result.history] == list(range(1, 17))
    np.testing.assert_allclose(losses_of(result), losses_of(expected), atol=1e-6)
    assert result.eval_loss == pytest.approx(expected.eval_loss, abs=1e-6)
    for value, weight in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), value.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("family", "jit_compile"), [("transformer", False), ("lstm", True)]
)
def test_documents_that_are_kept_apart_lower_the_loss(
    stream, tmp_path, family, jit_compile
):
    packed = make_windows(stream, 16, "best_fit")
    model = make_model(family, packing="best_fit")
    options = {"steps": 40, "learning_rate": 1e-2, "jit_compile": jit_compile}
    _, result = train(packed, tmp_path, model, packing="best_fit", **options)
    assert result.eval_loss < np.log(260) - 0.5
    assert result.tokens_seen == round(40 * packed.targets_a_step(4))


@pytest.mark.parametrize("packing", ["contiguous", "best_fit", "lines"])
def test_the_evaluation_loss_is_the_mean_over_the_tokens(stream, tmp_path, packing):
    packed = make_windows(stream, 16, packing)
    model = make_model(packing=packing)
    model, result = train(packed, tmp_path, model, steps=5, packing=packing)
    total = tokens = 0.0
    for inputs, targets, weights in packed.evaluation_batches(3):
        losses = keras.ops.sparse_categorical_crossentropy(
            targets, model(inputs, training=False), from_logits=True
        )
        total += float(keras.ops.sum(losses * weights))
        tokens += float(keras.ops.sum(weights))
    assert result.eval_loss == pytest.approx(total / tokens, abs=1e-5)


def test_noise_is_of_training_and_not_of_evaluation(windows, tmp_path):
    options = {"steps": 1, "learning_rate": 1e-9}
    loud = {"token_dropout": 0.9}
    _, plain = train(windows, tmp_path / "plain", **options)
    _, noisy = train(windows, tmp_path / "noisy", **options, augmentation=loud)
    assert abs(losses_of(noisy)[0] - losses_of(plain)[0]) > 1e-4
    assert noisy.eval_loss == pytest.approx(plain.eval_loss, abs=1e-6)


def test_a_family_that_cannot_keep_documents_apart_cannot_be_packed(stream):
    model = build_causal_lm("ngram", ByteTokenizer(), 16)
    settings = TrainerSettings(steps=1, packing="best_fit")
    with pytest.raises(InputError, match=r"trainer\.packing .*: take contiguous or l"):
        network_of(model, settings)


def test_a_state_is_carried_through_contiguous_windows_only():
    with pytest.raises(ValueError, match=r"needs trainer\.packing contiguous"):
        TrainerSettings(carry_state=True, packing="lines")


@pytest.mark.parametrize("packing", ["best_fit", "lines"])
def test_only_windows_over_documents_are_repacked(packing):
    with pytest.raises(ValueError, match=r"repack needs trainer\.packing contiguous"):
        TrainerSettings(repack=True, packing=packing)


# --- State carried from batch to batch ---


def make_stateful(batch_size, dropout=0.2):
    keras.utils.set_random_seed(0)
    model = build_causal_lm(
        "lstm", ByteTokenizer(), 16, num_layers=2, hidden_dim=16, dropout=dropout
    )
    settings = TrainerSettings(batch_size=batch_size, carry_state=True)
    return network_of(model, settings)


def losses_of(result):
    return [row["loss"] for row in result.history]


def test_an_interrupted_training_with_carried_state_ends_as_if_it_had_not_been(
    windows, tmp_path, interrupted
):
    batch_size = 40
    steps_an_epoch = windows.steps_an_epoch(batch_size)
    stop = steps_an_epoch + 2  # in the middle of the second epoch
    options = {"batch_size": batch_size, "steps": stop + steps_an_epoch}
    options["carry_state"] = True
    whole, expected = train(
        windows, tmp_path / "whole", make_stateful(batch_size), **options
    )
    with interrupted(stop):
        train(windows, tmp_path / "parts", make_stateful(batch_size), **options)
    resumed, result = train(
        windows, tmp_path / "parts", make_stateful(batch_size), **options
    )
    assert result.resumed_at == stop
    assert len(result.history) == options["steps"]
    np.testing.assert_allclose(losses_of(result), losses_of(expected), atol=1e-6)
    assert result.eval_loss == pytest.approx(expected.eval_loss, abs=1e-6)
    for value, weight in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), value.numpy(), atol=1e-6)


def test_every_epoch_begins_without_a_past(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)
    epoch = windows.steps_an_epoch(40)
    # Nothing is learned and the batches are the same, so losses differ by state alone.
    options = {"batch_size": 40, "steps": 2 * epoch, "learning_rate": 1e-30}
    options["carry_state"] = True
    _, result = train(windows, tmp_path, make_stateful(40, dropout=0.0), **options)
    losses = losses_of(result)
    np.testing.assert_allclose(losses[epoch:], losses[:epoch], atol=1e-5)
    # The evaluation reads the same batches, without a past where they begin.
    tokens = [weights.numpy().sum() for *_, weights in windows.evaluation_batches(40)]
    mean = np.average(losses[:epoch], weights=tokens)
    assert result.eval_loss == pytest.approx(mean, abs=1e-5)


TOPICS = range(20, 36)


def write_topics(path, seed, number):
    """Documents that repeat their topic every 4 tokens; the rest is foreseeable."""
    topics = np.random.default_rng(seed).choice(TOPICS, number)
    documents = [np.tile([topic, 4, 5, 6], 24) for topic in topics]
    TokenWindows.write(
        path, documents, vocabulary_size=40, start_id=2, end_id=3, pad_id=0
    )
    return TokenWindows(path, context_length=16)


def test_what_only_earlier_windows_tell_is_learned_with_carried_state(tmp_path):
    keras.utils.set_random_seed(0)
    model = CausalLM(LSTMBackbone(40, hidden_dim=32, max_sequence_length=16))
    data = [write_topics(tmp_path / f"{n}", n, 100) for n in (0, 1)]

    def eval_loss(folder, steps, carry_state):
        settings = TrainerSettings(
            steps=steps,
            batch_size=16,
            learning_rate=1e-2,
            carry_state=carry_state,
        ).of_family("lstm")
        network = network_of(model, settings)
        return training.train(network, *data, settings, str(folder)).eval_loss

    carried = eval_loss(tmp_path / "carried", 400, carry_state=True)
    # The same weights, without another step.
    forgotten = eval_loss(tmp_path / "forgotten", 0, carry_state=False)
    # Without a past, whatever the weights, one topic a window is a guess among all.
    guess = np.log(len(TOPICS)) / 16
    assert forgotten > guess
    assert carried < 0.75 * guess


def test_a_family_without_a_state_cannot_carry_it():
    model = build_causal_lm("tcn", ByteTokenizer(), 16, hidden_dim=8)
    settings = TrainerSettings(steps=1, carry_state=True)
    with pytest.raises(InputError, match=r"trainer\.carry_state .* not TCNBackbone"):
        network_of(model, settings)


def test_a_half_written_checkpoint_is_not_loaded(windows, tmp_path, interrupted):
    with interrupted(5):
        train(windows, tmp_path)
    # A process that dies while it writes leaves files that the index does not name.
    (tmp_path / "ckpt-9.index").write_bytes(b"half")
    (tmp_path / "ckpt-9.data-00000-of-00001").write_bytes(b"half")
    _, result = train(windows, tmp_path)
    assert result.resumed_at == 5


def test_a_loss_that_is_no_number_is_an_error_and_no_checkpoint(windows, tmp_path):
    model = make_model()
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
    with pytest.raises(InputError, match=r"loss is nan at step 1, .*: lower"):
        train(windows, tmp_path, model)
    assert not list(tmp_path.glob("ckpt-*"))


def test_settings_change_the_familys_recipe():
    settings = TrainerSettings(steps=9, clip_norm=0.25, warmup_steps=0, beta_2=None)
    assert settings.of_family("lstm").steps == 9
    assert settings.of_family("lstm").recipe == RECIPES["lstm"].replace(
        clip_norm=0.25, warmup_steps=0
    )


def test_an_n_gram_model_counts(windows, tmp_path):
    tokenizer = ByteTokenizer()
    documents = [np.array(tokenizer(training.__doc__))] * 3
    settings = TrainerSettings(steps=1, batch_size=4)
    model = build_causal_lm("ngram", tokenizer, 16, order=3)
    result = count(model, documents, windows, windows, settings)
    assert result.eval_loss < np.log(260) - 0.5
    assert result.train_tokens == windows.num_tokens
    assert result.steps == 0
