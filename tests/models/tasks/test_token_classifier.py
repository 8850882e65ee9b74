"""Taggers of words: alignment, long texts, presets, and the floor of counts."""

from __future__ import annotations

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models import zoo
from langzoo.models.families.ngram.token_classifier import TagCounts, tables_of
from langzoo.models.tasks.token_classifier import TokenClassifierPreprocessor
from langzoo.models.tasks.words import tokens_of_words, words_of
from scipy import special
from tiny_models import TINY

TAGS = ["B-PER", "O"]
TEXTS = ["Ann came home", "so did Bob", "Bob and Ann left"] * 8
NUMBERS = np.array([[0, 1, 1, -1], [1, 1, 0, -1], [0, 1, 0, 1]] * 8)


def built(family="gated_conv", sizes=None, context=24, **options):
    keras.utils.set_random_seed(0)
    return zoo.build(
        *(family, models.ByteTokenizer(), context),
        task="token_classifier",
        of_task={"labels": TAGS, **options},
        **(TINY[family] if sizes is None else sizes),
    )


@pytest.fixture(scope="module")
def tokenizers():
    texts = [*TEXTS, "naïve (x) don't"]
    return [
        models.ByteTokenizer(),
        models.train_sentencepiece(
            texts, vocabulary_size=300, model_type="bpe", seed=0
        ),
        models.train_word_piece(texts, vocabulary_size=540),
        models.word_tokenizer(["Ann", "Bob"]),
    ]


def test_words_have_the_tokens_that_they_have_in_their_text(tokenizers):
    text = tf.constant(["Bob and naïve Ann don't", "", "(x)"])
    for tokenizer in tokenizers:
        ids, sizes = tokens_of_words(tokenizer, words_of(text))
        assert ids.to_list() == tokenizer.tokenize(text).to_list()
        assert [
            sum(row) for row in sizes.to_list()
        ] == ids.row_lengths().numpy().tolist()
        assert [len(row) for row in sizes.to_list()] == [5, 0, 1]


def test_a_word_without_tokens_is_unknown(tokenizers):
    class Nothing:
        unk_token_id = 1

        def tokenize(self, text):
            return tf.RaggedTensor.from_row_lengths(
                tf.zeros([0], tf.int32), tf.zeros_like(text, tf.int64)
            )

    ids, sizes = tokens_of_words(Nothing(), words_of(tf.constant(["a b", "c"])))
    assert ids.to_list() == [[1, 1], [1]]
    assert sizes.to_list() == [[1, 1], [1]]


def test_targets_are_at_last_tokens_as_far_as_there_is_room():
    preprocessor = TokenClassifierPreprocessor(models.ByteTokenizer(), 8)
    tags = np.array([[0, 1, 1], [1, -1, -1]])
    features, targets, weights = preprocessor(["ab cd ef", "x"], tags, [1.0, 0.5])
    assert features["padding_mask"].numpy().sum(axis=1).tolist() == [8, 3]
    assert weights.numpy().tolist() == [
        [0, 0, 1, 0, 0, 1, 0, 0],
        [0, 0.5, 0, 0, 0, 0, 0, 0],
    ]
    assert targets.numpy()[0, [2, 5]].tolist() == [0, 1]
    assert targets.numpy()[1, 1] == 1


def test_a_tagger_learns_and_is_saved(tmp_path):
    model = built()
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = model.fit(TEXTS, NUMBERS, epochs=10, batch_size=8, verbose=0)
    assert history.history["accuracy"][-1] > 0.9
    tagged = model.tag(["Bob left", ""])
    assert tagged == [[("Bob", "B-PER"), ("left", "O")], []]
    model.save_to_preset(str(tmp_path))
    again = zoo.from_preset(str(tmp_path))
    assert isinstance(again, models.TokenClassifier)
    assert (again.labels, again.tag(["Bob left", ""])) == (TAGS, tagged)


def test_a_long_text_is_tagged_as_its_windows_are():
    model = built(context=16)
    text = "Ann and Bob " * 6
    tagged = model.tag(text)
    assert [word for word, _ in tagged] == text.split()
    # A word about the 32nd token is in the middle of the window from the 24th on.
    ids = [2, *model.preprocessor.tokenizer.tokenize(text.strip()), 3]
    inputs = {
        "token_ids": np.array([ids[24:40]], "int32"),
        "padding_mask": np.ones((1, 16), bool),
    }
    logits = model(inputs).numpy()[0]
    number = text[:33].count(" ") - 1
    last = len(" ".join(text.split()[: number + 1]))
    assert TAGS[logits[last - 24].argmax()] == tagged[number][1]


def test_a_backbone_of_keras_hub_serves_as_well(tmp_path):
    tokenizer = models.ByteTokenizer()
    keras.utils.set_random_seed(1)  # another than that of `built`
    backbone = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=24,
    )
    backbone.save_to_preset(str(tmp_path))
    tokenizer.save_to_preset(str(tmp_path))
    model = built("keras_hub", {"preset": str(tmp_path), "pretrained": True})
    features = model.preprocessor(TEXTS[:2])
    states = backbone({**features, "segment_ids": tf.zeros((2, 24), tf.int32)})
    expected = model.head(states["sequence_output"])
    np.testing.assert_allclose(model.predict(TEXTS[:2], verbose=0), expected, atol=1e-5)


def test_a_tagger_begins_with_what_a_language_model_has_learned(tmp_path):
    tokenizer = models.ByteTokenizer()
    learned = zoo.build("gru", tokenizer, 24, **TINY["gru"])
    learned.save_to_preset(str(tmp_path))
    keras.utils.set_random_seed(1)
    model = zoo.build(
        *("gru", tokenizer, 24, str(tmp_path)),
        task="token_classifier",
        of_task={"labels": TAGS},
        **TINY["gru"],
    )
    for found, expected in zip(
        model.backbone.get_weights(), learned.backbone.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_too_few_tags_are_refused():
    with pytest.raises(ValueError, match="at least 2 different names"):
        built(labels=["O"])


def test_the_floor_is_witten_bell_over_contexts_of_tokens():
    layer = TagCounts(vocabulary_size=9, order=2, num_tags=2)
    layer.build()
    documents = [np.array([0, 5, 6, 1]), np.array([0, 7, 6, 1]), np.array([0, 6, 1])]
    tags = [np.array(row) for row in ([-1, 0, 1, -1], [-1, 0, 0, -1], [-1, 1, -1])]
    layer.tables = tables_of(layer.count(documents, tags, most=100), strength=2.0)
    first = np.array([3.5, 2.5]) / 6  # three of tag 0, two of tag 1
    of_six = (np.array([1, 2]) + 2 * 2 * first) / (3 + 2 * 2)
    after_five = (np.array([0, 1]) + 2 * 1 * of_six) / (1 + 2 * 1)
    asked = np.array([[0, 5, 6], [0, 8, 6], [0, 5, 8]], "int32")
    found = layer(asked, np.ones((3, 3), bool)).numpy()[:, 2]
    np.testing.assert_allclose(np.exp(found), [after_five, of_six, first], rtol=1e-5)


def test_the_floor_gives_the_rarest_contexts_up():
    layer = TagCounts(vocabulary_size=9, order=1, num_tags=2)
    documents = [np.array([0, 5, 5, 6, 7, 7, 1])]
    tags = [np.array([-1, 0, 1, 0, 1, 1, -1])]
    _, kept = layer.count(documents, tags, most=2)
    assert kept.keys.tolist() == [5, 7]
    assert kept.counts.tolist() == [[1, 1], [0, 2]]


def test_the_floor_counts_and_is_saved(tmp_path):
    model = built("ngram", {"order": 3})
    history = model.fit(TEXTS, NUMBERS)
    assert history.history["loss"][0] < 0.1
    assert model.tag("so Bob left") == [("so", "O"), ("Bob", "B-PER"), ("left", "O")]
    logits = model.predict(TEXTS[:2], verbose=0)
    np.testing.assert_allclose(special.logsumexp(logits, axis=-1), 0, atol=1e-5)
    model.save_to_preset(str(tmp_path))
    again = zoo.from_preset(str(tmp_path))
    np.testing.assert_array_equal(again.predict(TEXTS[:2], verbose=0), logits)
    # The same of token ids, with tags at their places, as a pipeline gives them.
    ids = [np.array(model.preprocessor.tokenizer.tokenize(text)) for text in TEXTS]
    _, targets, weights = model.preprocessor(TEXTS, NUMBERS)
    tags = np.where(weights > 0, targets, -1)
    again.fit(
        iter(ids), [row[1 : len(i) + 1] for row, i in zip(tags, ids, strict=True)]
    )
    np.testing.assert_allclose(again.predict(TEXTS[:2], verbose=0), logits, rtol=1e-6)


def test_what_speaks_for_an_answer_is_not_told_of_taggers():
    with pytest.raises(ValueError, match="known of text classifiers"):
        models.attribute(built(), "Ann came")
