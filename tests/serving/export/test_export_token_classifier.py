"""Exports of taggers answer as their Keras models do, and count spans as seqeval."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models import zoo
from langzoo.models.tasks.tagging import span_types
from langzoo.serving.export import saved_model
from langzoo.serving.export.spans import spans_of
from scipy import special
from serialized import example
from tiny_models import TINY

TAGS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
CONTEXT = 16
TEXTS = [
    "",
    "Ann saw Bob",
    "né  x\ty",
    "a text that is longer than the context is",
    "b",
]


def chunks(tags):
    """The spans of tags, after seqeval's documentation: type, first and last word."""
    found, begin, before = set(), 0, ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        part, _, kind = tag.partition("-")
        ends = before[0] in "ES" or part in "BSO" or before[1] != kind
        if before[0] != "O" and ends:
            found.add((before[1], begin, place - 1))
        begins = part in "BS" or before[0] in "ESO" or before[1] != kind
        if part != "O" and begins:
            begin = place
        before = part, kind
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Makes a model, the one of a kind, and its signatures; the first is checked."""
    found = {}

    def export(family):
        keras.utils.set_random_seed(0)
        model = zoo.build(
            *(family, models.ByteTokenizer(), CONTEXT),
            task="token_classifier",
            of_task={"labels": TAGS},
            **TINY[family],
        )
        if family == "ngram":
            model.fit(["Ann saw Bob", "so did b x y"] * 3, [[1, 4, 1, 3, -1]] * 6)
        else:
            model.head.set_weights([w * 9 for w in model.head.get_weights()])
        folder = str(tmp_path_factory.mktemp("export") / "model")
        saved_model.export(model, folder, task="token_classifier")
        return model, tf.saved_model.load(folder).signatures

    def get(family="gated_conv"):
        if family not in found:
            found[family] = export(family)
            patch.setattr(saved_model, "check_export", lambda _: None)
        return found[family]

    with pytest.MonkeyPatch.context() as patch:
        yield get


def logits_of(model, text):
    """Those of the words of a text that the context holds, by the Keras model."""
    logits = model.predict([text], verbose=0)[0]
    sizes = [
        len(word.encode()) + (number > 0) for number, word in enumerate(text.split())
    ]
    return logits[np.cumsum(sizes, dtype=int)]


@pytest.mark.parametrize("family", ["gated_conv", "ngram"])
def test_words_have_the_tags_of_the_model(exported, family):
    model, signatures = exported(family)
    told = signatures["serving_default"](text=tf.constant(TEXTS))
    told = {name: tensor.numpy() for name, tensor in told.items()}
    assert told["length"].tolist() == [len(text.split()) for text in TEXTS]
    for number, (text, tagged) in enumerate(zip(TEXTS, model.tag(TEXTS), strict=True)):
        words = text.split()
        found = told["word"][number, : len(words)]
        assert [word.decode() for word in found] == words
        found = told["tag"][number, : len(words)].astype(str)
        assert [tag for _, tag in tagged] == found.tolist()
        if 0 < len(text) < CONTEXT - 1:
            expected = special.softmax(logits_of(model, text), axis=-1)
            assert [TAGS[i] for i in expected.argmax(axis=-1)] == found.tolist()
            np.testing.assert_allclose(
                told["probability"][number, : len(words)],
                expected.max(axis=-1),
                atol=1e-5,
            )


def test_a_score_is_of_a_tag_for_each_word(exported):
    model, signatures = exported()
    logs = special.log_softmax(logits_of(model, "Ann saw Bob"), axis=-1)
    asked = ["B-PER O B-LOC", "B-PER O", "B-PER O X", " O  O O "]
    found = signatures["score"](
        text=tf.constant(["Ann saw Bob"] * 4), tag=tf.constant(asked)
    )["log_probability"]
    expected = [
        logs[[0, 1, 2], [1, 4, 0]].sum(),
        -np.inf,
        -np.inf,
        logs[:, 4].sum(),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sums_are_those_of_the_words_in_any_batch(exported):
    model, signatures = exported()
    tags = [[], ["B-PER", "O", "B-NEW"], ["O", "B-LOC", "I-LOC"], ["O"] * 9, []]
    examples = [
        example(text=[text], tag=own) for text, own in zip(TEXTS, tags, strict=True)
    ]
    together = signatures["evaluate"](examples=tf.constant(examples))
    alone = [signatures["evaluate"](examples=tf.constant([one])) for one in examples]
    for name, tensor in together.items():
        np.testing.assert_allclose(
            tensor, np.concatenate([one[name] for one in alone]), rtol=1e-5, atol=1e-6
        )
    told = {name: tensor.numpy() for name, tensor in together.items()}
    assert told["judged"].tolist() == [0, 3, 3, 9, 0]
    assert told["labelled"].tolist() == [0, 2, 3, 9, 0]
    assert told["unknown_labels"].tolist() == [0, 1, 0, 0, 0]
    for number in (1, 2):
        logits = logits_of(model, TEXTS[number])
        own, said = np.array(tags[number]), np.array(TAGS)[logits.argmax(axis=-1)]
        known = np.isin(own, TAGS)
        numbers = [TAGS.index(tag) for tag in own[known]]
        logs = special.log_softmax(logits[known], axis=-1)
        nll = -logs[np.arange(len(numbers)), numbers].sum()
        assert told["nll"][number] == pytest.approx(nll, rel=1e-5)
        assert told["correct"][number] == (own == said).sum()
        by_label = told["by_label"][number]
        has, is_said = (
            np.array([[tag == t for t in TAGS] for tag in of]) for of in (own, said)
        )
        np.testing.assert_array_equal(by_label[:, 0], has.sum(axis=0))
        np.testing.assert_array_equal(by_label[:, 1], is_said.sum(axis=0))
        np.testing.assert_array_equal(by_label[:, 2], (has & is_said).sum(axis=0))
        np.testing.assert_array_equal(
            by_label[:, 3:], has.T.astype(int) @ is_said.astype(int)
        )
        assert told["spans"][number] == len(chunks(own))
        assert told["said_spans"][number] == len(chunks(said))
        assert told["right_spans"][number] == len(chunks(own) & chunks(said))
        assert told["by_span"][number, :, 0].tolist() == [
            sum(kind == of for kind, *_ in chunks(own)) for of in ("LOC", "PER")
        ]
        assert told["calibration"][number, :, 0].sum() == known.sum()


def test_spans_are_those_of_seqeval():
    generator = np.random.default_rng(0)
    known = ["O", *(f"{part}-{kind}" for part in "BIES" for kind in ("X", "Y-Z"))]
    rows = [generator.choice(known, size) for size in generator.integers(1, 12, 200)]
    spans = spans_of(
        tf.constant(np.concatenate(rows)),
        tf.constant(np.repeat(np.arange(200), [len(row) for row in rows])),
    )
    begin = 0
    for row in rows:
        of_row = slice(begin, begin + len(row))
        kinds, last = spans.type[of_row].numpy(), spans.last[of_row].numpy()
        found = {
            (kinds[i].decode(), i, last[i] - begin) for i in np.flatnonzero(last >= 0)
        }
        assert found == chunks(row)
        begin += len(row)


def test_the_example_of_seqeval_has_its_figure():
    # https://github.com/chakki-works/seqeval#usage: an F1 of 0.5.
    has = ["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O", "B-PER", "I-PER", "O"]
    said = [
        "O",
        "O",
        "B-MISC",
        "I-MISC",
        "I-MISC",
        "I-MISC",
        "O",
        "B-PER",
        "I-PER",
        "O",
    ]
    row = tf.constant([0] * 7 + [1] * 3, tf.int64)
    own, told = (spans_of(tf.constant(tags), row) for tags in (has, said))
    counts = [
        int(np.sum(part)) for part in (own.begins, told.begins, told.which_are(own))
    ]
    assert counts == [2, 2, 1]


def test_tags_of_other_forms_are_spans_of_a_word():
    assert span_types(["NOUN", "B-PER", "I-PER", "O", "B", "-LRB-", "Q-A"]) == [
        *("-LRB-", "A", "NOUN", "PER", "_"),
    ]
    tags = tf.constant(["NOUN", "NOUN", "O", "B", "I"])
    spans = spans_of(tags, tf.zeros([5], tf.int64))
    assert spans.last.numpy().tolist() == [0, 1, -1, 4, -1]
