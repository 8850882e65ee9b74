"""The whole pipeline with a preset of KerasHub as model."""

from __future__ import annotations

import json

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo.components.errors import InputError

CONTEXT = 16


def settings_of(preset, **model):
    model = {
        "family": "keras_hub",
        "preset": preset,
        "context_length": CONTEXT,
        **model,
    }
    return [
        f"model={json.dumps(model)}",
        "trainer.steps=3",
    ]


def test_pretrained_weights_are_tuned_and_exported(
    run_pipeline, refused, export_of, gpt2_preset
):
    changes = settings_of(gpt2_preset, pretrained=True)
    _, result, _ = run_pipeline(*refused, *changes, "tokenizer.type=preset")
    assert result.training.steps == 3
    exported = tf.saved_model.load(str(export_of(result)))
    text = "the value of a name"
    nll = exported.signatures["score"](text=tf.constant([text]))["nll"].numpy()[0]

    # What KerasHub makes of the preset that the run has saved is the model exported.
    saved = str(result.training_folder / "preset")
    tuned = keras_hub.models.CausalLM.from_preset(saved)
    assert type(tuned) is keras_hub.models.GPT2CausalLM
    assert nll == pytest.approx(loss(tuned, tuned.preprocessor, text), rel=1e-4)
    # Three steps from the weights of the preset, which are not another's.
    untuned = keras_hub.models.CausalLM.from_preset(gpt2_preset)
    start = loss(untuned, untuned.preprocessor, text)
    assert 0 < abs(nll - start) < 0.3 * start


def loss(model, preprocessor, text):
    x, y, real = preprocessor([text], sequence_length=CONTEXT)
    losses = model.score(
        x["token_ids"], x["padding_mask"], scoring_mode="loss", target_ids=y
    )
    return np.array(losses)[np.array(real)].sum()


def test_a_preset_that_does_not_exist_is_named(run_pipeline, refused):
    said = "model: preset 'gpt2_base_enn' is neither a folder nor the name of a causal"
    with pytest.raises(InputError, match=said):
        run_pipeline(*refused, *settings_of("gpt2_base_enn"), "tokenizer.type=bytes")
