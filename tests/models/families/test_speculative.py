"""Speculative sampling: the greedy text, in fewer steps of the large model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import ByteTokenizer, SpeculativeSampler, build_causal_lm
from tiny_models import VARIANTS

CONTEXT = 32
OPTIONS = [{}, {**VARIANTS["transformer_options"][1], "positions": "learned"}]
PROMPTS = ["From fairest creatures", "To", ""]


def make_model(seed, **sizes):
    keras.utils.set_random_seed(seed)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, **sizes}
    return build_causal_lm(
        "transformer",
        ByteTokenizer(),
        CONTEXT,
        initializer_range=0.5,  # so that texts differ
        **sizes,
    )


def generate(model, prompts, **options):
    inputs = model.preprocessor.generate_preprocess(prompts, sequence_length=CONTEXT)
    outputs = model.make_generate_function()(inputs, **options)
    return {name: np.array(value) for name, value in outputs.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "options"])
@pytest.mark.parametrize("draft_seed", [0, 7], ids=["itself", "another"])
def test_the_text_is_the_greedy_samplers(options, draft_seed):
    model = make_model(0, **options)
    model.compile(sampler="greedy")
    expected = generate(model, PROMPTS)
    for tokens in (1, 4):
        draft = make_model(draft_seed, **options)
        model.compile(sampler=SpeculativeSampler(draft, tokens))
        actual = generate(model, PROMPTS)
        np.testing.assert_array_equal(actual["token_ids"], expected["token_ids"])


def test_it_stops_at_a_stop_token():
    model = make_model(0)
    model.compile(sampler="greedy")
    stop = int(generate(model, PROMPTS[:1])["token_ids"][0, 27])
    expected = generate(model, PROMPTS[:1], stop_token_ids=[stop])
    model.compile(sampler=SpeculativeSampler(make_model(7)))
    actual = generate(model, PROMPTS[:1], stop_token_ids=[stop])
    mask = expected["padding_mask"]
    np.testing.assert_array_equal(actual["padding_mask"], mask)
    np.testing.assert_array_equal(
        actual["token_ids"][mask], expected["token_ids"][mask]
    )


def test_a_good_draft_saves_steps():
    calls = tf.Variable(0)

    def steps(draft):
        model = make_model(0)
        call = model.call_with_cache

        def counted(*args):
            calls.assign_add(1)
            return call(*args)

        model.call_with_cache = counted
        model.compile(sampler=SpeculativeSampler(draft, 4))
        calls.assign(0)
        generate(model, ["To"])
        return int(calls.numpy())

    assert steps(make_model(0)) <= (CONTEXT - 3) // 5 + 1
    assert steps(make_model(7)) > CONTEXT // 2


@pytest.mark.parametrize("length", [2, 5, CONTEXT])
def test_many_tokens_at_once_are_as_one_after_the_other(length):
    model = make_model(0)
    token_ids = np.random.default_rng(0).integers(4, 260, (2, length))
    expected = model({"token_ids": token_ids, "padding_mask": token_ids > 0})
    cache = model.prefill(np.pad(token_ids, [(0, 0), (0, 3)]), 1)
    logits, _, _ = model.call_with_cache(token_ids[:, 1:], cache, 1)
    np.testing.assert_allclose(logits, expected[:, 1:], atol=1e-4)


def test_only_transformers_of_one_vocabulary_can():
    model = make_model(0)
    lstm = build_causal_lm("lstm", ByteTokenizer(), CONTEXT, hidden_dim=8)
    with pytest.raises(ValueError, match="`TransformerBackbone`"):
        SpeculativeSampler(lstm)
    lstm.compile(sampler=SpeculativeSampler(model))
    with pytest.raises(ValueError, match="`TransformerBackbone`"):
        lstm.generate("To")
    other = type(model)(type(model.backbone)(9, hidden_dim=8, num_heads=2))
    model.compile(sampler=SpeculativeSampler(other))
    with pytest.raises(ValueError, match="vocabulary"):
        model.generate("To")
