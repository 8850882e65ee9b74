"""Scores of models that adapt to a text: caches, and gradient steps as it goes by."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import (
    ByteTokenizer,
    DynamicEvaluation,
    NeuralCache,
    build_causal_lm,
)
from langzoo.models.tasks import scoring, windows
from tiny_models import KINDS, TINY

CONTEXT = 8
TEXTS = ["", "short", "of 8 ids", "a text of some more", "long and longer " * 4, "Ü"]
# Each says a rare word again and again.
REPEATED = [f"{word} is what {word} was: {word}, {word}. " * 3 for word in ("zq", "xv")]
CACHE = NeuralCache(size=10, theta=3.0, weight=0.3)
LEARNING = DynamicEvaluation(learning_rate=0.3, decay=0.01, segment_length=3)
ADAPTING = [
    *((family, CACHE) for family in KINDS),
    ("lstm", LEARNING),
    ("transformer", LEARNING),
]


def drawn(family):
    """A model with weights at random, or with counts of a text."""
    model = build_causal_lm(family, ByteTokenizer(), CONTEXT, **TINY[family])
    if family == "ngram":
        model.fit(["a text to count", "and another one"])
        return model
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.3, size=weight.shape))
    return model


@pytest.fixture(scope="module")
def models():
    """A model of each kind."""
    return {family: drawn(family) for family in KINDS}


@pytest.fixture
def lstm(models):
    return models["lstm"]


def states_of(model, text, stride):
    """The hidden state at each token of a text, in the window that scores it."""
    ids = scoring.framed(model.preprocessor.tokenizer, tf.constant([text]))[0]
    if not stride:
        empty = model.backbone.empty_cache(1)
        states, _ = model.backbone.call_with_state(ids[tf.newaxis, :-1], empty)
        return ids.numpy(), states[0].numpy()
    found, offset, count = [], 0, len(ids) - 1
    while len(found) < count:
        read = ids[tf.newaxis, offset : min(offset + CONTEXT, count)]
        inputs = {"token_ids": read, "padding_mask": tf.ones_like(read, tf.bool)}
        states = model.backbone(inputs, training=False)[0].numpy()
        found += [*states[len(found) - offset :]]
        offset += stride
    return ids.numpy(), np.array(found)


def by_hand(model, text, cache, stride):
    """What a cache makes of a text's log-probabilities, token after token."""
    own = model.score([text], stride=stride)[0].numpy().astype(np.float64)
    ids, states = states_of(model, text, stride)
    if model.backbone.family.has_hidden_states:
        states = states / np.linalg.norm(states, axis=-1, keepdims=True)
    else:
        states = np.ones((len(own), 1))
    scores = []
    for place, score in enumerate(own):
        held = range(max(place - cache.size, 0), place)
        if not held:
            scores.append(score)
            continue
        counts = np.exp([cache.theta * states[place] @ states[i] for i in held])
        same = [ids[i + 1] == ids[place + 1] for i in held]
        share = counts[same].sum() / counts.sum()
        scores.append(np.log((1 - cache.weight) * np.exp(score) + cache.weight * share))
    return np.array(scores)


@pytest.mark.parametrize("stride", [3, CONTEXT])
@pytest.mark.parametrize("family", KINDS)
def test_a_cache_is_the_mixture_that_it_says(models, family, stride):
    model = models[family]
    scores = model.score(TEXTS, stride=stride, adapt=CACHE)
    for row, text in zip(scores, TEXTS, strict=True):
        expected = by_hand(model, text, CACHE, stride)
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_a_cache_goes_on_with_a_state(lstm, monkeypatch):
    for positions in (1, 16, 1024):
        monkeypatch.setattr(windows, "CHUNK_POSITIONS", positions)
        lstm.cached_score_function = None
        scores = lstm.score(TEXTS, stride=0, adapt=CACHE)
        for row, text in zip(scores, TEXTS, strict=True):
            np.testing.assert_allclose(row, by_hand(lstm, text, CACHE, 0), atol=1e-4)


@pytest.mark.parametrize(("family", "adapt"), ADAPTING)
def test_a_token_changes_nothing_that_is_before_it(models, family, adapt):
    model = models[family]
    one, other = "the same beginning, then a", "the same beginning, then b"
    scores = model.score([one, other], adapt=adapt)
    np.testing.assert_allclose(scores[0][:-2], scores[1][:-2], atol=1e-5)
    assert abs(scores[0][-2] - scores[1][-2]) > 1e-4


@pytest.mark.parametrize(("family", "adapt"), ADAPTING)
def test_documents_do_not_see_each_other(models, family, adapt):
    model = models[family]
    together = model.score(REPEATED, adapt=adapt)
    for text, row in zip(REPEATED, together, strict=True):
        np.testing.assert_allclose(model.score(text, adapt=adapt), row, atol=1e-4)


@pytest.mark.parametrize(("family", "adapt"), ADAPTING)
def test_what_repeats_itself_costs_less(models, family, adapt):
    model = models[family]
    static, adapted = (
        model.score(REPEATED, adapt=given).flat_values.numpy().mean()
        for given in (None, adapt)
    )
    assert adapted > static + 0.1


@pytest.mark.parametrize("stride", [0, 3, CONTEXT])
def test_without_a_step_nothing_changes(lstm, stride):
    still = DynamicEvaluation(learning_rate=0.0, segment_length=3)
    static = lstm.score(TEXTS, stride=stride)
    for adapt in (still, NeuralCache(weight=0.0)):
        scores = lstm.score(TEXTS, stride=stride, adapt=adapt)
        np.testing.assert_allclose(scores.flat_values, static.flat_values, atol=1e-5)


def test_a_step_is_one_of_gradient_descent_on_what_was_scored(lstm):
    """A segment is scored with the weights that the steps before it have made."""
    text, size = "a text of some more", LEARNING.segment_length
    ids, _ = states_of(lstm, text, 0)
    trained = [weight.numpy() for weight in lstm.trainable_variables]
    expected, state = [], lstm.backbone.empty_cache(1)
    for begin in range(0, len(ids) - 1, size):
        read = ids[np.newaxis, begin : begin + size + 1]
        count = min(size, len(ids) - 1 - begin)
        with tf.GradientTape() as tape:
            hidden, state = lstm.backbone.call_with_state(read[:, :count], state)
            logits = tf.nn.log_softmax(lstm.backbone.logits(hidden)[0])
            scores = tf.gather(logits, read[0, 1:], axis=1, batch_dims=1)
            loss = -tf.reduce_mean(scores)
        expected += [*scores.numpy()]
        weights = [weight.value for weight in lstm.trainable_variables]
        gradients = [*map(tf.convert_to_tensor, tape.gradient(loss, weights))]
        norm = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients))
        for weight, gradient, first in zip(weights, gradients, trained, strict=True):
            step = LEARNING.learning_rate * gradient.numpy() / max(norm, 1.0)
            back = LEARNING.decay * (first - weight.numpy())
            weight.assign(weight.numpy() - step + back)
    for weight, first in zip(lstm.trainable_variables, trained, strict=True):
        weight.assign(first)
    found = lstm.score(text, stride=0, adapt=LEARNING)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for weight, first in zip(lstm.trainable_variables, trained, strict=True):
        np.testing.assert_array_equal(weight.numpy(), first)


def test_what_only_counts_does_not_learn_by_gradient(models):
    with pytest.raises(ValueError, match="models that learn by gradient"):
        models["ngram"].score("a text", adapt=LEARNING)
