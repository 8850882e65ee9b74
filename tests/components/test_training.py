"""Training: it learns, and what is interrupted goes on as if it had not been."""

from __future__ import annotations

import contextlib
import logging

import keras
import numpy as np
import pytest
from langzoo.components.errors import InputError
from langzoo.components.trainer import training
from langzoo.components.trainer.windows import TokenWindows
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.recipes import RECIPES

STEPS = 12


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
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
    )
    return TokenWindows(path, context_length=16)


def make_model(family="transformer"):
    keras.utils.set_random_seed(0)
    model = build_causal_lm(
        family, ByteTokenizer(), 16, num_layers=1, hidden_dim=16, dropout=0.2
    )
    return keras.Model(model.input, model.output)


def train(windows, folder, model=None, **options):
    model = model or make_model()
    config = training.TrainingConfig.of(
        "transformer",
        **{"steps": STEPS, "batch_size": 4, "warmup_steps": 2, **options},
    )
    result = training.train(model, windows, windows, config, str(folder))
    return model, result


class Interruption(logging.Handler):
    """Presses Ctrl-C when a step is shown, as a person would."""

    def __init__(self, step):
        super().__init__()
        self._step = f"step {step}/"

    def emit(self, record):
        if self._step in record.getMessage():
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupts what runs in a `with` statement at a step."""
    monkeypatch.setattr(training, "_SHOW_EVERY_SECONDS", 0)
    logger = logging.getLogger("langzoo")
    level = logger.level
    logger.setLevel(logging.INFO)

    @contextlib.contextmanager
    def at(step):
        interruption = Interruption(step)
        logger.addHandler(interruption)
        try:
            with pytest.raises(KeyboardInterrupt):
                yield
        finally:
            logger.removeHandler(interruption)

    yield at
    logger.setLevel(level)


@pytest.mark.parametrize(
    "family", ["transformer", "rnn", "gru", "lstm", "gated_conv", "tcn"]
)
def test_training_lowers_the_loss(windows, tmp_path, family):
    _, before = train(windows, tmp_path / "none", make_model(family), steps=0)
    options = {"steps": 40, "learning_rate": 1e-2}
    _, after = train(windows, tmp_path / "some", make_model(family), **options)
    assert before.eval_loss == pytest.approx(np.log(260), rel=0.05)
    assert after.eval_loss < before.eval_loss - 0.5


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    windows, tmp_path, interrupted
):
    whole, _ = train(windows, tmp_path / "whole")
    with interrupted(5):
        train(windows, tmp_path / "parts")
    resumed, result = train(windows, tmp_path / "parts")
    assert result.resumed_at == 5
    for expected, weight in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), expected.numpy(), atol=1e-6)
    assert [row["step"] for row in result.history] == list(range(1, STEPS + 1))


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
    with pytest.raises(InputError, match="loss is nan at step 1: lower"):
        train(windows, tmp_path, model)
    assert not list(tmp_path.glob("ckpt-*"))


def test_settings_change_the_familys_recipe():
    config = training.TrainingConfig.of(
        "lstm", steps=9, clip_norm=0.25, warmup_steps=0, beta_2=None
    )
    assert config.steps == 9
    assert config.recipe == RECIPES["lstm"]._replace(clip_norm=0.25, warmup_steps=0)


def test_an_n_gram_model_counts(windows, tmp_path):
    tokenizer = ByteTokenizer()
    documents = [np.array(tokenizer(training.__doc__))] * 3
    config = training.TrainingConfig(steps=1, batch_size=4)
    model = build_causal_lm("ngram", tokenizer, 16, order=3)
    result = training.count(model, documents, windows, windows, config)
    assert result.eval_loss < np.log(260) - 0.5
    assert result.train_tokens == windows.num_tokens
    assert result.steps == 0
