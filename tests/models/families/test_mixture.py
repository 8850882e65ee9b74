"""Mixtures: several models, and weights that say whom to believe where."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.families import FAMILIES, families_of, parts_of
from langzoo.models.families.mixture.gate import Gate, fit_gate
from langzoo.models.learning.holding_out import held_out
from tiny_models import TINY, VARIANTS

CONTEXT, VOCABULARY = 16, 12


def build(*members, **settings):
    keras.utils.set_random_seed(0)
    return build_causal_lm(
        "mixture", ByteTokenizer(), CONTEXT, members=list(members), **settings
    )


def member(family, **others):
    return {"family": family, **TINY[family], **others}


def test_probabilities_are_the_weighted_sums_of_the_members():
    model = build(member("gated_conv"), member("ngram"), member("lstm"))
    mixture = model.backbone.mixture
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(generator.normal(scale=0.1, size=weight.shape))
    ids = np.random.default_rng(0).integers(4, 260, (2, CONTEXT))
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids, bool)}
    alone = [tf.nn.softmax(part(inputs)).numpy() for part in model.parts]
    said = np.log(np.stack(alone, axis=2) + 1e-38)  # (B, T, K, V)
    weights = np.exp(mixture.gate(said))  # (B, T, K)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert np.ptp(weights, axis=(0, 1)).max() > 1e-5  # They depend on the context.
    expected = np.log(np.einsum("btk,btkv->btv", weights, np.exp(said)))
    logits = model(inputs).numpy()
    np.testing.assert_allclose(logits[..., 4:], expected[..., 4:], rtol=1e-4)
    targets = np.random.default_rng(2).integers(4, 260, ids.shape)
    np.testing.assert_allclose(
        model.token_log_probabilities(inputs, targets),
        np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0],
        rtol=1e-5,
    )


def test_members_are_alike_before_anything_is_learned():
    gate = Gate(3, 4)
    gate.build()
    said = np.log(np.random.default_rng(0).dirichlet(np.ones(9), (2, 5, 3)))
    np.testing.assert_allclose(gate(said), np.log(1 / 3), atol=1e-6)


@pytest.mark.parametrize(
    ("families", "carries_state", "goes_back"),
    [
        (("lstm", "gru"), True, False),
        (("lstm", "ngram"), False, False),
        (("transformer", "transformer"), False, True),
        (("transformer", "gated_conv"), False, False),
    ],
)
def test_a_mixture_can_what_each_of_its_members_can(families, carries_state, goes_back):
    backbone = build(*map(member, families)).backbone
    assert backbone.family.carries_state == carries_state
    assert backbone.family.cache_goes_back == goes_back


def test_a_state_goes_on_in_every_member():
    backbone = build(member("lstm"), member("gru")).backbone
    ids = tf.constant(np.random.default_rng(0).integers(4, 260, (2, CONTEXT)))
    inputs = {"token_ids": ids, "padding_mask": tf.ones_like(ids, tf.bool)}
    state, parts = backbone.empty_cache(2), []
    for part in tf.split(tf.cast(ids, tf.int32), 2, axis=1):
        states, state = backbone.call_with_state(part, state)
        parts.append(states)
    np.testing.assert_allclose(np.concatenate(parts, 1), backbone(inputs), atol=1e-5)


def test_several_tokens_at_once_are_as_one_by_one():
    model = build(member("transformer"), member("transformer", hidden_dim=8))
    ids = tf.constant(np.random.default_rng(0).integers(4, 260, (2, 6)), tf.int32)
    inputs = {"token_ids": ids, "padding_mask": tf.ones_like(ids, tf.bool)}
    cache = model.prefill(ids, 2)
    logits, _, cache = model.call_with_cache(ids[:, 2:5], cache, 2)
    again, _, _ = model.call_with_cache(ids[:, 3:6], cache, 3)
    expected = model(inputs)
    np.testing.assert_allclose(logits, expected[:, 2:5], atol=1e-5)
    np.testing.assert_allclose(again, expected[:, 3:6], atol=1e-5)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([{"family": "lstm"}], "members: .* cannot be: list should have at least 2"),
        ([{"family": "lstm"}, {"order": 3}], "members.1: the key family is missing"),
        ([{"family": "lstm"}, {"family": "x"}], "members.1: `family` must be one of"),
        ([{"family": "lstm", "order": 3}] * 2, "members.0: unknown key order: known"),
        ([{"family": "ngram", "order": 0}] * 2, "members.0: order: 0 cannot be"),
        ([{"family": "mixture"}] * 2, "members.0: family 'mixture' cannot be a member"),
        (
            [{"family": "lstm", "context_length": 8}] * 2,
            "members.0: context_length is no key of a member",
        ),
    ],
)
def test_what_cannot_be_mixed_is_an_error_of_one_line(members, said):
    with pytest.raises(ValueError, match=said) as raised:
        FAMILIES["mixture"].settings_of(members=members)
    assert "\n" not in str(raised.value)


def test_the_parts_of_a_model_are_what_learns_by_itself():
    model = {"family": "mixture", "context_length": 32, **TINY["mixture"]}
    assert [family.name for family in families_of(model)] == ["gated_conv", "ngram"]
    first, second = parts_of(model)
    assert first["context_length"] == second["context_length"] == 32
    assert second["order"] == 4
    assert parts_of({"family": "lstm"}) == [{"family": "lstm"}]
    assert len(parts_of({"family": "mixture"})) == 2  # by default


def test_the_size_is_that_of_the_model():
    family, settings = VARIANTS["mixture_of_networks"]
    size = FAMILIES[family].settings_of(**settings).size(260)
    built = build_causal_lm(family, ByteTokenizer(), CONTEXT, **settings)
    assert size.parameters == built.count_params()
    assert FAMILIES["mixture"].settings_of().size(260) is None  # n-grams


def two_experts(number, seed):
    """Two members of which one is sure, and right, where the other knows nothing."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, VOCABULARY, number)
    said = np.full((number, 2, VOCABULARY), 1 / VOCABULARY)
    expert = random.integers(0, 2, number)
    said[np.arange(number), expert] = 0.1 / VOCABULARY
    guess = np.where(random.random(number) < 0.9, targets, random.permutation(targets))
    said[np.arange(number), expert, guess] += 0.9
    # Both are sure and one is wrong in a tenth of the places.
    return np.log(said).astype("float32"), targets


def at(said, targets):
    return said[np.arange(len(targets)), :, targets]


def test_learned_weights_beat_the_best_member_and_every_fixed_mixture():
    gate = Gate(2, 8)
    gate.build()
    said, targets = two_experts(2000, seed=0)
    loss = fit_gate(gate, gate.features(said).numpy(), at(said, targets))
    said, targets = two_experts(2000, seed=1)
    scores = at(said, targets)
    learned = -np.mean(np.logaddexp.reduce(gate(said).numpy() + scores, axis=-1))
    shares = np.linspace(0.01, 0.99, 99)
    fixed = [-np.mean(np.log(np.exp(scores) @ [share, 1 - share])) for share in shares]
    assert learned == pytest.approx(loss, abs=0.1)
    assert learned < min(fixed) - 0.3
    assert min(fixed) < -scores.mean(axis=0).max()


def test_fitting_twice_gives_the_same_weights():
    said, targets = two_experts(200, seed=0)
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        gate = Gate(2, 4)
        gate.build()
        fit_gate(gate, gate.features(said).numpy(), at(said, targets))
        weights.append(np.concatenate([np.ravel(weight) for weight in gate.weights]))
    np.testing.assert_array_equal(*weights)


def test_members_do_not_learn_from_what_the_weights_are_learned_on(monkeypatch):
    model = build(member("gated_conv"), member("ngram", order=2), held_out=0.25)
    seen, counted = [], []
    cls = type(model)
    monkeypatch.setattr(cls, "fit_weights", lambda self, batches: seen.append(batches))
    ngram = type(model.parts[1])
    monkeypatch.setattr(ngram, "fit", lambda self, x: counted.append(x))
    model.fit([f"text {letter}" for letter in "abcdefgh"], verbose=0)
    (batches,) = seen
    [(features, _, _)] = list(batches)
    rest = [
        model.preprocessor.tokenizer.detokenize(row) for row in features["token_ids"]
    ]
    learned, everything = counted
    assert len(learned) == 6
    assert len(everything) == 8
    assert not {*learned} & {str(text) for text in rest}


@pytest.mark.parametrize("number", [2, 3, 20, 101])
def test_documents_are_held_out_evenly(number):
    is_held = held_out(number, 0.05)
    assert is_held.sum() == max(1, round(number * 0.05))
    assert np.ptp(np.diff(np.flatnonzero(is_held))) <= 1 if is_held.sum() > 1 else True


def test_one_document_is_too_few():
    model = build(member("gated_conv"), member("ngram"))
    with pytest.raises(ValueError, match="There must be two documents"):
        model.fit(["one"])
