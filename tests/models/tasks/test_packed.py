"""Rows of several documents: each is as if it were alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models.tasks.packed import PackedNetwork, document_positions
from tiny_models import VARIANTS

START, END = 2, 3
CONTEXT = 24
# Those without dropout.
APART = ["transformer", "gpt2", "llama", "transformer_sinusoidal", "rnn", "gru", "lstm"]
APART += ["gated_conv_bottleneck", "tcn_filters", "plain_gru", "own"]
APART += ["transformer_options"]
DOCUMENTS = [[START, 7, 8, 9, 10], [START], [START, 7, 8, 9, 11, 12, 13, 14, 15]]
ROW = [token for document in DOCUMENTS for token in document]
PADDED = [*ROW, *[0] * (CONTEXT - len(ROW))]
STARTS = np.cumsum([0, *map(len, DOCUMENTS)])[:-1]


def inputs_of(rows):
    token_ids = tf.constant(rows)
    return {"token_ids": token_ids, "padding_mask": token_ids > 0}


@pytest.fixture(scope="module")
def build(own_family):
    """Builds a model of a variant whose weights are large."""
    variants = {**VARIANTS, "own": (own_family, {"hidden_dim": 16})}
    return lambda variant, **options: drawn(*variants[variant], **options)


def drawn(family, sizes, **options):
    keras.utils.set_random_seed(0)
    model = models.build_causal_lm(
        family, models.ByteTokenizer(), CONTEXT, **sizes, **options
    )
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        noise = generator.normal(scale=0.2, size=weight.shape)
        weight.assign(weight + noise.astype(weight.dtype))
    return model


@pytest.fixture(scope="module", params=APART)
def model(request, build):
    return build(request.param)


@pytest.mark.parametrize("training", [False, True])
def test_the_logits_of_each_document_are_those_of_it_alone(model, training):
    network = PackedNetwork(model.backbone, START)
    # Both rows are packed, one with a piece that goes on from somewhere before.
    rows = [PADDED, [*DOCUMENTS[2][1:], *PADDED[: CONTEXT + 1 - len(DOCUMENTS[2])]]]
    logits = network(inputs_of(rows), training=training).numpy()
    for row, at in ((0, 0), (1, len(DOCUMENTS[2]) - 1)):
        for document, start in zip(DOCUMENTS, STARTS, strict=True):
            alone = model(inputs_of([document]), training=training).numpy()[0]
            packed = logits[row, at + start :][: len(document)]
            np.testing.assert_allclose(packed, alone, atol=1e-5)
    alone = model(inputs_of([DOCUMENTS[2][1:]]), training=training).numpy()[0]
    np.testing.assert_allclose(logits[1, : len(alone)], alone, atol=1e-5)


def test_without_keeping_them_apart_the_logits_are_others(model):
    alone = model(inputs_of([DOCUMENTS[2]])).numpy()[0]
    shared = model(inputs_of([PADDED])).numpy()[0, STARTS[2] :][: len(alone)]
    assert np.abs(shared - alone).max() > 1e-2


def test_a_change_of_one_document_changes_no_other(model):
    network = PackedNetwork(model.backbone, START)
    changed = [*PADDED]
    changed[2] = 99
    before, after = (
        network(inputs_of([row]), training=False).numpy()[0]
        for row in (PADDED, changed)
    )
    end = len(DOCUMENTS[0])
    assert np.abs(before[2:end] - after[2:end]).max() > 1e-3
    # One of them sums over the whole row before it takes a document's part.
    rounded = 1e-6 if model.backbone.family.name == "mingru" else 0
    np.testing.assert_allclose(after[end:], before[end:], atol=rounded, rtol=0)


def dense(gradients):
    return [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


def targets_of(document):
    return [*document[1:], END]


def loss_of(network, inputs, targets, weights):
    logits = network(inputs, training=True)
    losses = keras.ops.sparse_categorical_crossentropy(
        tf.constant(targets), logits, from_logits=True
    )
    return tf.reduce_sum(losses * weights)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_loss_and_gradients_are_the_sums_of_those_of_the_documents(model, jit_compile):
    network = PackedNetwork(model.backbone, START)
    variables = model.trainable_variables
    assert [v.path for v in network.trainable_variables] == [v.path for v in variables]
    values = [variable.value for variable in variables]

    @tf.function(jit_compile=jit_compile)
    def packed():
        targets = [t for document in DOCUMENTS for t in targets_of(document)]
        behind = [0] * (CONTEXT - len(ROW))
        weights = tf.constant([1.0] * len(ROW) + behind)
        with tf.GradientTape() as tape:
            loss = loss_of(network, inputs_of([PADDED]), [targets + behind], weights)
        return loss, [tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]

    loss, gradients = packed()
    with tf.GradientTape() as tape:
        expected_loss = sum(
            loss_of(model, inputs_of([document]), [targets_of(document)], 1.0)
            for document in DOCUMENTS
        )
    expected = dense(tape.gradient(expected_loss, values))
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for gradient, other in zip(dense(gradients), expected, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", APART)
def test_training_drops_out(build, variant):
    network = PackedNetwork(build(variant, dropout=0.5).backbone, START)
    first, second, plain = (
        network(inputs_of([PADDED]), training=training).numpy()
        for training in (True, True, False)
    )
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - plain).max() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("variant", APART)
def test_half_precision_keeps_documents_apart(build, variant, policy):
    network = PackedNetwork(build(variant, dtype=policy).backbone, START)
    changed = [99 if i == 2 else token for i, token in enumerate(PADDED)]
    before, after = (network(inputs_of([row])).numpy()[0] for row in (PADDED, changed))
    assert before.dtype == np.float32
    np.testing.assert_array_equal(
        before[len(DOCUMENTS[0]) :], after[len(DOCUMENTS[0]) :]
    )
    assert np.isfinite(before).all()


def test_positions_begin_anew_with_every_start_token():
    rows = [[7, 7, 2, 7, 2, 2], [2, 7, 7, 7, 7, 7], [7, 7, 7, 7, 7, 2]]
    assert document_positions(np.array(rows), 2).numpy().tolist() == [
        [0, 1, 0, 1, 0, 0],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 0],
    ]


def test_a_backbone_that_cannot_keep_documents_apart_is_an_error():
    backbone = models.build_causal_lm("ngram", models.ByteTokenizer(), 8).backbone
    with pytest.raises(ValueError, match="keep documents of a row apart"):
        PackedNetwork(backbone, START)
