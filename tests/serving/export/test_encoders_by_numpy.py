"""What models on an encoder say of a thousand texts: exports, Keras and NumPy agree."""

from __future__ import annotations

from typing import Any

import hugging_face_bert as bert
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import from_hugging_face
from langzoo.models.tasks import hiding
from langzoo.models.tasks.scoring import framed
from langzoo.serving.export import saved_model
from langzoo.serving.export.checks import example_of
from scipy import special
from threadpoolctl import threadpool_limits
from unchecked import exports

CONTEXT = 160
PIECES = len(bert.PIECES)
CONFIG = {**bert.CONFIG, "vocab_size": PIECES, "max_position_embeddings": CONTEXT}
LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def texts(paragraphs: list[str]) -> list[str]:
    """The paragraphs in letters that there are pieces of, but for some words."""
    known = str.maketrans("nopqrstuvwxyz.,`'\"*()_:", "abcdefghijklm          ")
    return [text.lower().translate(known) for text in paragraphs]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return bert.tensors(CONFIG)


@pytest.fixture
def exported(weights, tmp_path):
    """A model of a task with an encoder of these weights, and one of its signatures.

    Its own layer, if it has one, gets a kernel and what `bias_of` says of that.
    """

    def export(
        task: str, name: str, bias_of: Any = None, **of_task: Any
    ) -> tuple[Any, Any]:
        folder = bert.save(tmp_path, weights, CONFIG)
        model = from_hugging_face(folder, task=task, of_task=of_task)
        if bias_of:
            kernel = 100 * np.random.default_rng(0).normal(size=(16, len(LABELS)))
            model.head.set_weights([kernel, bias_of(model, kernel)])
        with exports([name, "classify"]):
            saved_model.export(model, f"{tmp_path}/1", task=task)
        return model, tf.saved_model.load(f"{tmp_path}/1").signatures[name]

    return export


def documents_of(model, texts):
    """Ids of each text between `[CLS]` and `[SEP]`, none of them too long."""
    tokenizer = model.preprocessor.tokenizer
    found = framed(tokenizer, tf.constant(texts)).to_list()
    assert len(found) == 1000
    assert sum(tokenizer.unk_token_id in ids for ids in found) < 900
    assert max(map(len, found)) <= CONTEXT
    return [np.array(ids) for ids in found]


@pytest.fixture
def states(weights):
    """Hidden states of ids, by BERT's formulas."""
    with threadpool_limits(1):  # Threads wait longer than such products take.
        yield lambda ids: bert.states(weights, ids, CONFIG)


def test_probabilities_of_labels(exported, texts, states):
    pooled = []

    def centred(model, kernel):
        pooled[:] = [states(ids).mean(axis=0) for ids in documents_of(model, texts)]
        return -np.mean(pooled, axis=0) @ kernel

    model, labels = exported(
        "text_classifier", "serving_default", centred, labels=LABELS
    )
    kernel, bias = model.head.get_weights()
    expected = special.softmax(pooled @ kernel + bias, axis=1)
    assert np.std(expected, axis=0).min() > 0.05
    by_keras = special.softmax(model.predict(texts, verbose=0), axis=1)
    told = labels(text=tf.constant(texts))
    order = np.argsort(told["label"].numpy().astype(str), axis=1)
    by_export = np.take_along_axis(told["probability"].numpy(), order, axis=1)
    np.testing.assert_allclose(by_keras, expected, atol=1e-4)
    np.testing.assert_allclose(by_export, expected, atol=1e-4)


def test_tags_of_words(exported, texts, states):
    zeros = np.zeros(len(LABELS))
    model, tags_of = exported(
        "token_classifier", "serving_default", lambda *_: zeros, labels=LABELS
    )
    kernel, bias = model.head.get_weights()
    tokenizer = model.preprocessor.tokenizer
    told = tags_of(text=tf.constant(texts))
    by_keras = model.tag(texts)
    start, end = tokenizer.start_token_id, tokenizer.end_token_id
    for row, text in enumerate(texts):
        pieces = tokenizer(text.split())
        ids = np.array([start, *(token for word in pieces for token in word), end])
        last = np.cumsum([len(word) for word in pieces])
        expected = special.softmax(states(ids)[last] @ kernel + bias, axis=1)
        found = told["probability"][row, : len(pieces)]
        np.testing.assert_allclose(found, expected.max(axis=1), atol=1e-4)
        tags = [LABELS[number] for number in expected.argmax(axis=1)]
        assert [tag.decode() for tag in told["tag"][row, : len(tags)].numpy()] == tags
        assert by_keras[row] == list(zip(text.split(), tags, strict=True))


def test_hidden_tokens(exported, texts, weights, states):
    model, evaluate = exported("masked_lm", "evaluate")
    tokenizer = model.preprocessor.tokenizer
    documents = documents_of(model, texts)
    hidden = hiding.of_evaluation(
        tf.ragged.constant(documents, tf.int32, row_splits_dtype=tf.int64),
        tf.constant(texts),
        hiding.ordinary(tokenizer),
    )
    nll, by_keras = np.zeros(1000), np.zeros(1000)
    for row, ids in enumerate(documents):
        places = hidden.positions[row].numpy()[hidden.is_there[row].numpy()]
        asked = ids.copy()
        asked[places] = tokenizer.mask_token_id
        logits = bert.logits(weights, states(asked)[places], CONFIG)
        logs = special.log_softmax(logits, axis=1)
        nll[row] = -logs[np.arange(len(places)), ids[places]].sum()
        documents[row] = asked, places, ids[places]
    rows = np.full((1000, CONTEXT), tokenizer.pad_token_id, np.int32)
    for row, (asked, _, _) in enumerate(documents):
        rows[row, : len(asked)] = asked
    inside = np.arange(CONTEXT) < np.array([[len(asked)] for asked, *_ in documents])
    found = model.hidden_states({"token_ids": rows, "padding_mask": inside})
    for row, (_, places, targets) in enumerate(documents):
        logs = tf.nn.log_softmax(model.logits(found[row].numpy()[places])).numpy()
        by_keras[row] = -logs[np.arange(len(places)), targets].sum()
    told = evaluate(examples=tf.constant([example_of(text) for text in texts]))
    np.testing.assert_array_equal(told["tokens"], [len(it[1]) for it in documents])
    np.testing.assert_allclose(by_keras, nll, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(told["nll"], nll, rtol=1e-4, atol=1e-4)
