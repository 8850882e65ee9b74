"""Training by masked tokens: it learns, and goes on as if it had not been stopped."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from langzoo.components.trainer import callbacks, training
from langzoo.components.trainer.networks import network_of
from langzoo.components.trainer.rows.masking import read_windows
from langzoo.components.trainer.rows.windows import TokenStream
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.models import ByteTokenizer, zoo

STEPS = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "stream"
    text = training.__doc__ + training.train.__doc__ + TokenStream.__doc__
    TokenStream.write(
        path,
        [np.array(ByteTokenizer()(part)) for part in text.split("\n\n")],
        vocabulary_size=260,
        start_id=2,
        end_id=3,
        pad_id=0,
        unk_id=1,
    )
    return path


def train(path, folder, **options):
    options = {"steps": STEPS, "batch_size": 8, "jit_compile": False, **options}
    settings = TrainerSettings(learning_rate=1e-2, warmup_steps=2, **options)
    windows = read_windows(path, 16, "contiguous", ByteTokenizer(), settings.masking)
    keras.utils.set_random_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "dropout": 0.1}
    model = zoo.build("bert", ByteTokenizer(), 16, task="masked_lm", **sizes)
    network = network_of(model, settings)
    return model, training.train(network, windows, windows, settings, str(folder))


def test_an_interrupted_training_ends_alike_and_has_learned(
    path, tmp_path, interrupted, monkeypatch
):
    monkeypatch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)
    options = {"masking": {"units": "words"}}
    whole, expected = train(path, tmp_path / "whole", **options)
    with interrupted("step 7/"):
        train(path, tmp_path / "parts", **options)
    resumed, result = train(path, tmp_path / "parts", **options)
    assert result.resumed_at == 7
    assert result.eval_loss == pytest.approx(expected.eval_loss, abs=1e-6)
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-6)
    assert expected.history[0]["loss"] == pytest.approx(np.log(261), rel=0.05)
    assert expected.eval_loss < np.log(261) - 1
