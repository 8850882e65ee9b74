"""The options of the zoo's networks are what they say, by hand."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models.families.network import (
    EmbeddingDropout,
    NgramEmbedding,
    ResidualScale,
)
from langzoo.models.families.transformer.attention import (
    CausalMask,
    SelfAttention,
    ValueEmbedding,
)
from langzoo.models.learning.recipe import COMMON
from langzoo.models.tasks.stateful import StatefulNetwork
from tiny_models import VARIANTS

FIRST, SECOND = 1_000_003, 1_000_003**2 % (2**31 - 1)
NEW = {
    "ngram_embeddings",
    "ngram_buckets",
    "ngram_dropout",
    "embedding_dropout",
    "logit_softcap",
    "residual_scales",
    "qk_norm",
    "value_embeddings",
    "attention_dropout",
}


def make(variant, **others):
    family, sizes = VARIANTS[variant]
    keras.utils.set_random_seed(0)
    return models.build_causal_lm(
        family, models.ByteTokenizer(), 24, **{**sizes, **others}
    )


def inputs_of(token_ids):
    return {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids, "bool")}


IDS = np.random.default_rng(0).integers(4, 260, (2, 24)).astype("int32")


# --- Embeddings of n-grams ---


def test_rows_of_n_grams_are_a_hash_of_their_tokens():
    layer = NgramEmbedding(3, 10, 4, stddev=1.0)
    pairs, triples = layer.rows(tf.constant([[5, 7, 9]]), None, None)
    # Tokens count from one; zero is none.
    assert pairs.numpy().tolist() == [
        [6 % 10, (8 + 6 * FIRST) % 10, (10 + 8 * FIRST) % 10]
    ]
    expected = [6, 8 + 6 * FIRST, 10 + 8 * FIRST + 6 * SECOND]
    assert triples.numpy().tolist() == [[10 + code % 10 for code in expected]]


def test_n_grams_go_on_from_recent_tokens_and_not_across_documents():
    layer = NgramEmbedding(3, 1000, 4, stddev=1.0)
    whole = layer(tf.constant([[5, 7, 9, 11, 13]]))
    after = layer(tf.constant([[9, 11, 13]]), tf.constant([[6, 8]]))
    np.testing.assert_array_equal(after, whole[:, 2:])
    packed = layer(
        tf.constant([[5, 7, 9, 11, 13]]), None, tf.constant([[0, 1, 0, 1, 2]])
    )
    alone = layer(tf.constant([[9, 11, 13]]))
    np.testing.assert_array_equal(packed[:, :2], whole[:, :2])
    np.testing.assert_array_equal(packed[:, 2:], alone)
    assert np.abs(packed[:, 2:] - whole[:, 2:]).max() > 0.1


def test_an_embedding_is_the_sum_of_its_n_grams():
    layer = NgramEmbedding(4, 50, 3, stddev=1.0)
    token_ids = tf.constant([[5, 7, 9, 11]])
    found = layer(token_ids).numpy()[0]
    rows = np.stack(layer.rows(token_ids, None, None), axis=-1)[0]  # (T, 3)
    table = layer.table.embeddings.numpy()
    np.testing.assert_allclose(found, table[rows].sum(axis=1), atol=1e-6)
    # Of three lengths, each in rows of its own.
    assert (rows // 50).tolist() == [[0, 1, 2]] * 4


def test_the_hash_spreads_the_pairs_of_a_vocabulary():
    layer = NgramEmbedding(2, 8192, 4, stddev=1.0)
    pairs = np.stack(np.meshgrid(np.arange(65), np.arange(65)), -1).reshape(-1, 2)
    rows = layer.rows(tf.constant(pairs, tf.int32), None, None)[0][:, 1].numpy()
    # Drawn at random, 4,225 would be in 3,300 of the rows.
    assert len(np.unique(rows)) > 3000


def test_a_carried_state_holds_the_tokens_of_n_grams():
    model = make("plain_gru")
    expected = model(inputs_of(IDS)).numpy()
    network = StatefulNetwork(model.backbone, batch_size=2)
    halves = [network(inputs_of(half)) for half in np.split(IDS, 2, axis=1)]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), expected, atol=1e-5)
    network.reset_state()
    again = network(inputs_of(IDS[:, :12]))
    np.testing.assert_allclose(again, expected[:, :12], atol=1e-5)


def test_a_text_beyond_the_context_is_scored_with_all_n_grams():
    model, text = make("plain_gru"), "To be, or not to be, that is the question"
    ids = np.array([[2, *text.encode(), 3]])
    ids[0, 1:-1] += 4
    logits = tf.nn.log_softmax(model(inputs_of(ids[:, :-1]))[0]).numpy()
    expected = logits[np.arange(len(text) + 1), ids[0, 1:]]
    np.testing.assert_allclose(model.score(text, stride=0), expected, atol=1e-4)


# --- Logits ---


def test_a_softcap_bends_the_logits():
    free, capped = make("transformer"), make("transformer", logit_softcap=0.05)
    logits = free(inputs_of(IDS)).numpy()
    assert np.abs(logits).max() > 0.05
    expected = 0.05 * np.tanh(logits / 0.05)
    np.testing.assert_allclose(capped(inputs_of(IDS)), expected, atol=1e-6)


# --- The residual stream ---


def test_a_residual_scale_is_its_formula_and_at_first_the_stream():
    layer = ResidualScale()
    x, first = np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])
    np.testing.assert_array_equal(layer(x, first), x)
    layer.scale.assign([0.5, 0.25])
    np.testing.assert_array_equal(layer(x, first), [[3.0, 6.0]])


@pytest.mark.parametrize("variant", ["transformer", "gated_conv"])
def test_every_block_reads_the_scaled_stream(variant):
    plain, scaled = make(variant), make(variant, residual_scales=True)
    expected = plain(inputs_of(IDS))
    np.testing.assert_allclose(scaled(inputs_of(IDS)), expected, atol=1e-6)
    # A second block that reads the embeddings alone is as one without the first.
    scaled.backbone.scale_layers[1].scale.assign([0.0, 1.0])
    alone = make(variant, num_layers=1)
    for ours, theirs in [
        (alone.backbone.token_embedding, scaled.backbone.token_embedding),
        (alone.backbone.blocks[0], scaled.backbone.blocks[1]),
    ]:
        ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(scaled(inputs_of(IDS)), alone(inputs_of(IDS)), atol=1e-6)


def test_no_scale_decays():
    optimizer = COMMON.make_optimizer(10)
    model = make("transformer_options")
    optimizer.build(model.trainable_variables)
    spared = {
        weight.path
        for weight in model.trainable_variables
        if not optimizer._use_weight_decay(weight)
    }
    assert {"residual_scale_0/scale", "value_embedding_1/scale"} <= spared
    assert any(path.endswith("query_key_norm/scale") for path in spared)
    assert any("table" in path for path in spared)  # which learns by rows


# --- Attention ---


def attention(**options):
    layer = SelfAttention(2, 1, stddev=0.5, **options)
    layer.build((1, 3, 8))
    return layer


def test_queries_and_keys_have_length_one_times_their_gains():
    x = np.random.default_rng(1).normal(size=(1, 3, 8)).astype("float32")
    layer = attention(qk_norm=1e-6)
    gain = np.array([1.0, 2.0, 3.0, 4.0], "float32")
    layer.query_key_norm.scale.assign(gain)
    qkv = np.reshape(x @ layer.query_key_value.kernel.numpy(), (3, 4, 4))
    query, key = qkv[:, :2], qkv[:, 2]  # (T, H, D), (T, D)

    def normed(y):
        return gain * y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True) + 1e-6)

    scores = np.einsum("thd,sd->hts", normed(query), normed(key)) / 2
    scores = np.where(np.tri(3, dtype=bool), scores, -np.inf)
    powers = np.exp(scores)
    expected = powers / powers.sum(axis=-1, keepdims=True)
    found = layer.attention_weights(x, CausalMask()(x))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_values_have_embeddings_of_their_tokens_added():
    embedding = ValueEmbedding(9, 1, 4, stddev=1.0)
    token_ids = np.array([[3, 8, 3]])
    embedding(token_ids)
    embedding.scale.assign([[0.5]])
    added = embedding(token_ids)
    table = embedding.table.embeddings.numpy()
    np.testing.assert_allclose(added[0, :, 0], 0.5 * table[[3, 8, 3]], atol=1e-6)
    # The first position sees itself alone: its value, for both heads.
    x = np.random.default_rng(1).normal(size=(1, 3, 8)).astype("float32")
    layer = attention()
    value = (x[0, 0] @ layer.query_key_value.kernel.numpy())[12:] + 0.5 * table[3]
    expected = np.tile(value, 2) @ layer.attention_output.kernel.numpy()
    found = layer(x, CausalMask()(x), None, added)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_the_last_blocks_have_value_embeddings():
    backbone = make("transformer", num_layers=3, value_embeddings=2).backbone
    names = [layer.name for layer in backbone.value_embedding_layers]
    assert names == ["value_embedding_1", "value_embedding_2"]
    with pytest.raises(ValueError, match="value_embeddings 3 must be at most num_lay"):
        make("transformer", num_layers=2, value_embeddings=3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dropout": 0.3}, 0.3),
        ({"dropout": 0.3, "attention_dropout": 0.0}, 0.0),
        ({"attention_dropout": 0.2}, 0.2),
    ],
)
def test_attention_has_its_own_dropout_where_one_is_given(options, expected):
    block = make("transformer", **options).backbone.blocks[0]
    assert block.attention.dropout == expected
    assert block.dropout == options.get("dropout", 0.0)


# --- Dropout of whole tokens ---


def test_a_token_is_dropped_wherever_it_stands_and_others_make_up_for_it():
    layer = EmbeddingDropout(50, rate=0.4, seed=0)
    token_ids = np.random.default_rng(0).integers(0, 50, (8, 100))
    embeddings = np.random.default_rng(1).normal(size=(8, 100, 3)).astype("float32")
    scale = layer(embeddings, token_ids, training=True) / embeddings
    by_token = [np.unique(np.round(scale[token_ids == i], 4)) for i in range(50)]
    assert all(len(values) == 1 for values in by_token)
    dropped = np.mean([values[0] == 0 for values in by_token])
    assert 0.2 < dropped < 0.6
    kept = [values[0] for values in by_token if values[0]]
    np.testing.assert_allclose(kept, 1 / 0.6, rtol=1e-3)
    # Others the next time, and none without training.
    again = layer(embeddings, token_ids, training=True) / embeddings
    assert not np.array_equal(again, scale)
    np.testing.assert_array_equal(layer(embeddings, token_ids), embeddings)


def test_whole_n_grams_are_dropped_in_training():
    layer = NgramEmbedding(3, 64, 8, rate=0.5, seed=0)
    layer.build()
    rows = layer.rows(IDS, None, None)
    pairs, triples = (np.asarray(layer.table(row)) for row in rows)
    np.testing.assert_allclose(layer(IDS), pairs + triples, atol=1e-6)
    found = np.asarray(layer(IDS, training=True))
    sums = [np.zeros_like(pairs), 2 * pairs, 2 * triples, 2 * (pairs + triples)]
    distances = np.stack([np.abs(found - one).max(axis=-1) for one in sums])
    np.testing.assert_allclose(distances.min(axis=0), 0, atol=1e-6)
    assert set(distances.argmin(axis=0).ravel()) == {0, 1, 2, 3}
    assert not np.array_equal(layer(IDS, training=True), found)
    assert NgramEmbedding.from_config(layer.get_config()).rate == 0.5


@pytest.mark.parametrize(
    "dropout",
    [{"embedding_dropout": 0.5}, {"ngram_embeddings": 2, "ngram_dropout": 0.5}],
)
@pytest.mark.parametrize("variant", ["transformer", "tcn", "lstm"])
def test_every_network_drops_tokens_and_n_grams_in_training(variant, dropout):
    model = make(variant, **dropout)
    outputs = [model(inputs_of(IDS), training=True).numpy() for _ in range(2)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    plain = make(variant, **{**dropout, list(dropout)[-1]: 0.0})
    weights = [weight.numpy() for weight in model.trainable_weights]
    for weight, value in zip(plain.trainable_weights, weights, strict=True):
        weight.assign(value)
    np.testing.assert_array_equal(model(inputs_of(IDS)), plain(inputs_of(IDS)))


# --- Together ---


@pytest.mark.parametrize("variant", ["transformer", "gated_conv", "lstm"])
def test_a_preset_from_before_the_options_loads_as_it_was(variant, tmp_path):
    model = make(variant)
    config = model.backbone.get_config()
    old = {name: value for name, value in config.items() if name not in NEW}
    assert type(model.backbone).from_config(old).get_config() == config
    model.save_to_preset(str(tmp_path))
    names = [weight.path for weight in model.backbone.weights]
    assert not any(
        new in name for new in ("ngram", "scale_", "value_emb") for name in names
    )
    loaded = keras_hub.models.CausalLM.from_preset(str(tmp_path))
    np.testing.assert_array_equal(loaded(inputs_of(IDS)), model(inputs_of(IDS)))


@pytest.mark.usefixtures("no_collections")
def test_a_model_with_all_options_is_quantized_and_adapted():
    model = make("transformer_options")
    expected = model(inputs_of(IDS)).numpy()
    model.quantize("int8")
    found = model(inputs_of(IDS)).numpy()
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    model = make("transformer_options")
    model.backbone.enable_lora(2)
    assert len(model.trainable_weights) == 4
    np.testing.assert_allclose(model(inputs_of(IDS)), expected, atol=1e-6)


def test_all_options_go_with_half_precision():
    model, half = (
        make("transformer_options", dtype=dtype)
        for dtype in ("float32", "mixed_bfloat16")
    )
    logits = half(inputs_of(IDS))
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, model(inputs_of(IDS)), atol=0.02)


@pytest.mark.parametrize("variant", ["transformer_options", "plain_gru"])
def test_gradients_by_all_embeddings_sum_to_the_difference(variant):
    model = make(variant)
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        noise = generator.normal(scale=0.1, size=weight.shape)
        weight.assign_add(noise.astype("float32"))
    found = models.attribute(model, "From fair", "est", tolerance=1e-3)
    difference = found.output - found.baseline
    assert abs(difference) > 0.02
    assert abs(found.residual) <= 1.1e-3 * max(1, abs(difference))
