"""Surprisal, attributions and attention maps against what the models themselves say."""

from __future__ import annotations

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import ByteTokenizer, build_causal_lm, train_sentencepiece
from langzoo.models.explanation.attribution import (
    attention_weights,
    attribute,
    surprisal,
)
from langzoo.models.families.transformer.backbone import TransformerBackbone
from tiny_models import GRADIENTS, TINY, narrow

CONTEXT = 24


def drawn(model, scale=0.3):
    """Draws weights, so that every token matters."""
    generator = np.random.default_rng(7)
    for variable in model.trainable_variables:
        value = generator.normal(scale=scale, size=variable.shape)
        variable.assign(value.astype("float32"))
    return model


@pytest.fixture(scope="module")
def build(shakespeare):
    built = {}

    def get(family):
        if family not in built:
            dropout = {"dropout": 0.5} if family == "lstm" else {}
            sizes = narrow(family, **dropout)
            model = build_causal_lm(family, ByteTokenizer(), CONTEXT, **sizes)
            if family not in GRADIENTS:
                model.fit(shakespeare)
            built[family] = drawn(model)
        return built[family]

    return get


def ids_of(text):
    ids = ByteTokenizer().tokenize(text)
    return [ByteTokenizer().start_token_id, *map(int, ids)]


def log_probability(model, text, target, unknown=()):
    """Of the target's bytes after the text's, from the model's logits, in NumPy."""
    ids = np.array(ids_of(text + target))
    for place in unknown:
        ids[place] = ByteTokenizer().unk_token_id
    inputs = {
        "token_ids": ids[None, :-1],
        "padding_mask": np.ones((1, len(ids) - 1), bool),
    }
    logits = np.asarray(model(inputs)[0], np.float64)
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    length = 1 + len(text.encode())
    return sum(log_p[place - 1, ids[place]] for place in range(length, len(ids)))


@pytest.mark.parametrize("family", GRADIENTS)
def test_integrated_gradients_sum_to_the_difference_of_outputs(build, family):
    model = build(family)
    found = attribute(model, "From fair", "est", tolerance=1e-3)
    assert found.method == "integrated_gradients"
    assert "".join(found.tokens) == "<s>From fair"
    assert found.target == ("e", "s", "t")
    output = log_probability(model, "From fair", "est")
    baseline = log_probability(model, "From fair", "est", unknown=range(1, 10))
    assert found.output == pytest.approx(output, abs=1e-4)
    assert found.baseline == pytest.approx(baseline, abs=1e-4)
    difference = output - baseline
    assert abs(difference) > 0.02
    assert abs(found.residual) <= 1.1e-3 * max(1, abs(difference))
    assert np.sum(found.scores) == pytest.approx(difference - found.residual, abs=1e-3)
    assert found.scores[0] == 0


def test_steps_are_added_until_the_gradients_sum_to_the_difference():
    sizes = narrow("gated_conv")
    # Large weights make sharp bends, which sixteen steps do not follow.
    model = drawn(build_causal_lm("gated_conv", ByteTokenizer(), CONTEXT, **sizes), 1.0)
    rough = attribute(model, "From fair", "est", tolerance=1.0)
    fine = attribute(model, "From fair", "est", tolerance=1e-3)
    assert abs(rough.residual) > 0.1
    assert abs(fine.residual) < 1e-3 * abs(fine.output - fine.baseline)


def test_integrated_gradients_of_a_token_that_is_out_of_reach_are_zero(build):
    # Two layers of kernel 3 see the last five tokens.
    found = attribute(build("gated_conv"), "From fairest", "!")
    assert np.all(found.scores[:-5] == 0)
    assert np.all(found.scores[-5:] != 0)


@pytest.fixture(scope="module")
def untied():
    """A model whose input embeddings can be moved without moving its output."""
    plain = {"num_layers": 1, "tie_embeddings": False, "normalize": False}
    options = narrow("gru", **plain)
    model = drawn(build_causal_lm("gru", ByteTokenizer(), CONTEXT, **options))
    return model, model.backbone.token_embedding.embeddings


def moved(untied, rows):
    """The log-probability with other input embeddings of some ids."""
    model, table = untied
    before = table.numpy()
    changed = before.copy()
    for token, row in rows.items():
        changed[token] = row
    table.assign(changed)
    output = log_probability(model, "abc", "de")
    table.assign(before)
    return output


def test_integrated_gradients_are_the_integral_of_slopes_on_the_way(untied):
    model, table = untied
    ids, rows = ids_of("abc")[1:], table.numpy()
    unknown = rows[ByteTokenizer().unk_token_id]
    expected = np.zeros(3)
    shares, step = (np.arange(8) + 0.5) / 8, 0.02
    for share in shares:
        here = {token: unknown + share * (rows[token] - unknown) for token in ids}
        for place, token in enumerate(ids):
            way = rows[token] - unknown
            up, down = (
                moved(untied, {**here, token: here[token] + sign * step * way})
                for sign in (1, -1)
            )
            expected[place] += (up - down) / (2 * step) / len(shares)
    scores = attribute(model, "abc", "de", tolerance=1e-4).scores
    assert np.max(np.abs(expected)) > 0.05
    np.testing.assert_allclose(scores[1:], expected, atol=5e-3)


def test_gradient_x_input_is_the_slope_of_growing_an_embedding(untied):
    model, table = untied
    scores = attribute(model, "abc", "de", method="gradient_x_input").scores
    for place, token in enumerate(ids_of("abc")[1:], 1):
        row, step = table.numpy()[token], 0.02
        up, down = (moved(untied, {token: row * (1 + s)}) for s in (step, -step))
        assert scores[place] == pytest.approx((up - down) / (2 * step), abs=2e-3)
    assert np.max(np.abs(scores)) > 0.05


@pytest.mark.parametrize("family", TINY)
def test_leaving_one_out_is_how_far_the_log_probability_falls(build, family):
    model = build(family)
    found = attribute(model, "When fort", "y w", method="leave_one_out")
    output = log_probability(model, "When fort", "y w")
    expected = [
        output - log_probability(model, "When fort", "y w", unknown=[place])
        for place in range(1, 10)
    ]
    np.testing.assert_allclose(found.scores, [0, *expected], atol=1e-4)


def test_an_n_gram_model_is_asked_by_leaving_one_out(build):
    found = attribute(build("ngram"), "beaut", "y")
    assert found.method == "leave_one_out"
    # It sees the last three tokens.
    assert np.all(found.scores[:-3] == 0)
    assert found.scores[-1] > 0
    with pytest.raises(ValueError, match="no gradients: use 'leave_one_out'"):
        attribute(build("ngram"), "beaut", "y", method="gradient_x_input")
    assert attribute(build("mixture"), "beaut", "y").method == "leave_one_out"


def test_without_a_target_the_likeliest_token_is_explained(build):
    model = build("ngram")
    assert attribute(model, "to the world's d").target == ("u",)
    assert attribute(model, "by the grave and thee.").target == ("</s>",)


def test_a_token_over_the_border_belongs_to_the_target(shakespeare):
    tokenizer = train_sentencepiece(
        shakespeare, vocabulary_size=340, model_type="bpe", seed=0
    )
    model = drawn(build_causal_lm("gated_conv", tokenizer, CONTEXT))
    whole = [text.decode() for text in _surfaces(tokenizer, "thine own")]
    found = attribute(model, "thine o", "wn", method="leave_one_out")
    both = [*found.tokens[1:], *found.target]
    assert "".join(both).strip() == "thine own"
    assert both == whole


def _surfaces(tokenizer, text):
    surfaces = tokenizer.token_bytes()
    return [surfaces[int(token)] for token in tokenizer.tokenize(text)]


def test_surprisal_gives_the_scores_of_the_model(build):
    model = build("lstm")
    texts = ["From fairest creatures we desire", "", "é"]
    found = surprisal(model, texts)
    assert found[1].tokens == ("</s>",)
    assert found[2].tokens == ("<0xC3>", "<0xA9>", "</s>")
    for said, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(said.log_probabilities, model.score(text))


@pytest.mark.parametrize(
    "options", [{}, {"num_key_value_heads": 1, "positions": "learned"}]
)
def test_attention_weights_are_those_of_the_layers(options):
    model = build_causal_lm(
        "transformer", ByteTokenizer(), CONTEXT, **narrow("transformer", **options)
    )
    drawn(model)
    found = attention_weights(model, "fairest")
    weights = found.weights
    assert found.tokens == ("<s>", *"fairest")
    assert weights.shape == (2, 2, 8, 8)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    assert np.all(np.triu(weights, 1) == 0)
    assert np.all(np.diagonal(weights, axis1=-2, axis2=-1) > 0)
    _assert_gives_the_outputs(model.backbone, weights)


def _assert_gives_the_outputs(backbone: TransformerBackbone, weights):
    """Weights times values, projected, are what each attention layer puts out."""
    x = backbone._embed(tf.constant([ids_of("fairest")]))
    mask, rotation = backbone._tables(x)
    for block, maps in zip(backbone.blocks, weights, strict=True):
        layer = block.attention
        normed = block.attention_norm(x)
        _, _, values = layer._project(normed, rotation)  # (1, kv heads, t, d)
        values = np.repeat(values[0], len(maps) // values.shape[1], axis=0)
        heads = np.einsum("hts,hsd->thd", maps, values).reshape(1, 8, -1)
        expected = layer(normed, mask, rotation)
        np.testing.assert_allclose(
            layer.attention_output(heads), expected, rtol=1e-4, atol=1e-5
        )
        x = block(x, mask, rotation)


def test_a_model_of_keras_hub_is_explained(gpt2_preset):
    from langzoo.models import preset_tokenizer

    model = build_causal_lm(
        "keras_hub",
        preset_tokenizer(gpt2_preset),
        CONTEXT,
        preset=gpt2_preset,
        pretrained=True,
    )
    found = attribute(model, "The statement", " is")
    difference = found.output - found.baseline
    assert abs(difference) > 0.05
    assert abs(found.residual) <= 0.01
    with pytest.raises(ValueError, match="are of a `TransformerBackbone`"):
        attention_weights(model, "The")


def test_wrong_questions_are_refused(build):
    model = build("gated_conv")
    with pytest.raises(ValueError, match="`method` must be one of"):
        attribute(model, "a", method="shap")
    with pytest.raises(ValueError, match="`target` must not be empty"):
        attribute(model, "a", "")
    with pytest.raises(ValueError, match="context of 24 tokens"):
        attribute(model, "a" * CONTEXT)
    with pytest.raises(ValueError, match="context of 24 tokens"):
        attention_weights(build("transformer"), "a" * CONTEXT)
