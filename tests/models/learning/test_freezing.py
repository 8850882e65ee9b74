"""Frozen layers keep their weights, and a pattern that names none is an error."""

from __future__ import annotations

import keras_hub
import numpy as np
import pytest
from langzoo.models import ByteTokenizer, KerasHubCausalLM, build_causal_lm
from langzoo.models.learning.freezing import freeze


def make_gpt2():
    tokenizer = ByteTokenizer()
    backbone = keras_hub.models.GPT2Backbone(
        tokenizer.vocabulary_size(), 2, 2, 16, 32, max_sequence_length=32
    )
    return KerasHubCausalLM(keras_hub.models.GPT2CausalLM(backbone), tokenizer)


def make_lstm():
    return build_causal_lm("lstm", ByteTokenizer(), 32, num_layers=2, hidden_dim=8)


def weights_by_layer(model):
    return {
        layer.name: [weight.numpy() for weight in layer.weights]
        for layer in model.backbone.layers
        if layer.weights
    }


def fit(model, texts):
    x, y, sample_weight = model.preprocessor(texts[:4])
    network = getattr(model, "model", model)
    network.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    network.preprocessor = None
    network.fit(x, y, sample_weight=sample_weight, verbose=0)


@pytest.mark.parametrize(
    ("make", "patterns", "expected"),
    [
        (make_lstm, ["recurrent_*"], ["recurrent_0", "recurrent_1"]),
        (make_lstm, ["norm_0", "token_*"], ["norm_0", "token_embedding"]),
        (make_gpt2, ["transformer_layer_0"], ["transformer_layer_0"]),
    ],
)
def test_the_layers_that_match_keep_their_weights(
    make, patterns, expected, shakespeare
):
    model = make()
    assert freeze(model, patterns) == expected
    before = weights_by_layer(model)
    fit(model, shakespeare)
    after = weights_by_layer(model)
    kept = {
        name for name in before if all(map(np.array_equal, before[name], after[name]))
    }
    assert kept == set(expected)


def test_without_patterns_all_layers_learn():
    model = make_lstm()
    assert freeze(model, []) == []
    assert len(model.trainable_weights) == len(model.weights)


def test_a_pattern_that_matches_nothing_names_the_layers():
    layers = "token_embedding, norm_0, recurrent_0, norm_1, recurrent_1, final_norm"
    with pytest.raises(ValueError, match=f"{layers}.*pattern='block_"):
        freeze(make_lstm(), ["norm_0", "block_*"])


def test_something_must_be_left_to_train():
    with pytest.raises(ValueError, match="must be left to train"):
        freeze(make_lstm(), ["*"])
