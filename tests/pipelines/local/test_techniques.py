"""The pipeline with techniques of training, and a second one that goes on from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import CausalLM


@pytest.fixture(scope="module")
def trained(run_pipeline, refused):
    """A run with all of it."""
    techniques = {
        "optimizer": "lion",
        "learning_rate": 1e-3,
        "schedule": "linear",
        "gradient_accumulation_steps": 2,
        "ema_momentum": 0.9,
        "label_smoothing": 0.1,
        "precision": "bfloat16",
        "freeze": ["norm_*"],
        "eval_every_steps": 20,
        "early_stopping_patience": 2,
        "steps": 60,
    }
    changes = (f"trainer.{name}={json.dumps(one)}" for name, one in techniques.items())
    return run_pipeline(*refused, *changes)


def test_a_model_trained_with_all_of_it_is_exported(trained, export_of):
    _, result, _ = trained
    evaluations = result.training.evaluations
    assert [row["step"] for row in evaluations] == [20, 40, 60]
    best = min(row["bits_per_byte"] for row in evaluations)
    # The gate scores whole documents, and with float32.
    assert result.decision.value == pytest.approx(best, rel=0.05)
    model = CausalLM.from_preset(str(result.training_folder / "preset"))
    assert model.backbone.compute_dtype == "float32"
    text = "the value of a name"
    exported = tf.saved_model.load(str(export_of(result)))
    nll = exported.signatures["score"](text=tf.constant([text]))["nll"]
    np.testing.assert_allclose(nll[0], -tf.reduce_sum(model.score(text)), rtol=1e-4)


def test_another_training_goes_on_from_it(trained, run_pipeline, refused):
    config, result, _ = trained
    changes = [
        *refused,
        f"model={json.dumps({'initial_weights': str(config.folder)})}",
        "tokenizer.type=preset",
        "trainer.steps=1",
        "trainer.learning_rate=1e-5",
    ]
    _, continued, _ = run_pipeline(*changes)
    assert continued.training.eval_loss == pytest.approx(
        result.training.eval_loss, abs=0.05
    )
