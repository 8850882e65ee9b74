"""Rows of tagged documents: a target at the last token of each word, once an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from langzoo.components.trainer.rows import tagged
from langzoo.models import ByteTokenizer
from langzoo.models.tasks.token_classifier import TokenClassifierPreprocessor
from langzoo.models.tasks.words import tokens_of_words, words_of

CONTEXT = 16
TEXTS = ["Ann saw Bob", "so", "a text that is longer than the context is"]
TAGS = [["B", "O", "B"], ["new"], ["O"] * 8 + ["B"]]
NAMES = ["B", "O"]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The rows of the texts, as they are read of what was written."""
    tokenizer = ByteTokenizer()
    ids, sizes = tokens_of_words(tokenizer, words_of(tf.constant(TEXTS)))
    features = [
        (np.array(i), np.array(s), np.array([tag.encode() for tag in t]))
        for i, s, t in zip(ids.to_list(), sizes.to_list(), TAGS, strict=True)
    ]
    labels = tagged.Labels(documents={"train": dict.fromkeys(NAMES, 1)})
    labels.write(str(tmp_path))
    monkeypatch.setattr(tagged, "read_features", lambda *_: iter(features))
    path = str(tmp_path / "train")
    tagged.write_documents(path, [], str(tmp_path), tokenizer)
    return tagged.TaggedRows(path, CONTEXT)


def read(batches):
    """Each row's tokens, without padding, and the target at each, -1 without weight."""
    found = []
    for features, targets, weights in batches:
        for ids, inside, target, weight in zip(
            features["token_ids"].numpy(),
            features["padding_mask"].numpy(),
            targets.numpy(),
            weights.numpy(),
            strict=True,
        ):
            assert not weight[~inside].any()
            if inside.any():
                own = np.where(weight > 0, target, -1)[inside]
                found.append((ids[inside].tolist(), own.tolist()))
    return found


def test_a_row_is_what_the_preprocessor_makes_of_its_text(rows):
    preprocessor = TokenClassifierPreprocessor(ByteTokenizer(), CONTEXT)
    numbers = [[0, 1, 0], [-1, -1, -1]]
    features, targets, weights = preprocessor(TEXTS[:2], np.array(numbers))
    expected = read([(features, targets, weights)])
    found = read(rows.evaluation_batches(4))
    assert all(row in found for row in expected)
    # A long text goes on in further rows.
    others = [row for row in found if row not in expected]
    ids = [
        token for row, _ in sorted(others, key=lambda it: -it[0][0]) for token in row
    ]
    assert len(others) == 3
    assert len(ids) == len(TEXTS[2]) + 2


def test_each_word_is_a_target_once_an_epoch(rows):
    steps = rows.steps_an_epoch(2)
    for epoch in range(2):
        span = {"first_step": epoch * steps, "last_step": (epoch + 1) * steps}
        found = read(rows.training_batches(2, seed=0, **span))
        numbers = [number for _, own in found for number in own if number >= 0]
        assert sorted(numbers) == [0] * 3 + [1] * 9


def test_documents_have_their_tags_at_last_tokens(rows):
    first, second, third = rows.labels
    assert first.tolist() == [-1, -1, 0, -1, -1, -1, 1, -1, -1, -1, 0]
    assert (second == -1).all()
    assert len(third) == len(TEXTS[2])
