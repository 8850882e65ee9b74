"""Frozen layers keep their weights, and a pattern that names none is an error."""

from __future__ import annotations

import keras
import keras_hub
import numpy as np
import pytest
from langzoo.models import (
    ByteTokenizer,
    KerasHubCausalLM,
    build,
    build_causal_lm,
)
from langzoo.models.learning.freezing import freeze, set_pace
from langzoo.models.learning.recipe import Recipe


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


def stepped(model, texts, steps=3, **recipe):
    """The weights by layer after so many steps, from the same ones on."""
    network = keras.Model(model.input, model.output)
    optimizer = Recipe(warmup_steps=0, **recipe).make_optimizer(paced=True)
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(True))
    x, y, sample_weight = model.preprocessor(texts[:4])
    for _ in range(steps):
        network.train_on_batch(x, y, sample_weight)
    return weights_by_layer(model)


def drawn_lstm():
    keras.utils.set_random_seed(0)
    return make_lstm()


def moved(before, after):
    return {
        name: [b - a for a, b in zip(before[name], after[name], strict=True)]
        for name in before
    }


def test_a_layer_learns_at_its_share_of_the_rate(shakespeare):
    plain = {"optimizer": "sgd", "momentum": 0.0, "clip_norm": 0.0, "weight_decay": 0.1}
    before = weights_by_layer(drawn_lstm())
    whole = moved(before, stepped(drawn_lstm(), shakespeare, 1, **plain))
    model = drawn_lstm()
    set_pace(model, {"recurrent_*": 0.25})
    slow = moved(before, stepped(model, shakespeare, 1, **plain))
    for name, changes in whole.items():
        share = 0.25 if name.startswith("recurrent_") else 1.0
        for expected, change in zip(changes, slow[name], strict=True):
            np.testing.assert_allclose(change, share * expected, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_layer_that_does_not_learn_yet_is_as_a_frozen_one(optimizer, shakespeare):
    frozen, late = drawn_lstm(), drawn_lstm()
    freeze(frozen, ["recurrent_*"])
    set_pace(late, starts={"recurrent_*": 3})
    options = {"optimizer": optimizer, "clip_norm": 0.01}
    expected = stepped(frozen, shakespeare, **options)
    before = weights_by_layer(drawn_lstm())
    for name, weights in stepped(late, shakespeare, **options).items():
        for one, other in zip(weights, expected[name], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        if name.startswith("recurrent_"):
            assert all(map(np.array_equal, weights, before[name]))
    model = drawn_lstm()
    set_pace(model, starts={"recurrent_*": 3})
    after = moved(before, stepped(model, shakespeare, 4, **options))
    assert all(np.any(change) for change in after["recurrent_0"])


def test_what_a_task_puts_behind_the_backbone_always_learns():
    model = build(
        *("gated_conv", ByteTokenizer(), 16),
        task="text_classifier",
        of_task={"labels": ["a", "b"]},
        num_layers=1,
        hidden_dim=8,
    )
    freeze(model, ["*"])
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"head"}


@pytest.mark.parametrize(
    ("rates", "starts", "said"),
    [
        ({"block_*": 0.1}, {}, "match one of the layers token_embedding"),
        ({}, {"block_*": 2}, "match one of the layers token_embedding"),
        ({"recurrent_*": 0.1, "recurrent_0": 1.0}, {}, "the layer recurrent_0"),
    ],
)
def test_a_pace_of_no_layer_or_two_of_one_are_refused(rates, starts, said):
    with pytest.raises(ValueError, match=said):
        set_pace(make_lstm(), rates, starts)
