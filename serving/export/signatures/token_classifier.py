"""What an export of a tagger of words answers.

`contract` has a table of it; this is what does not fit in there.

The words of a text are what stands between white space (of ASCII), and each has a tag,
the likeliest. A text of more tokens than the context is read in windows that overlap,
and each word is told by the window that its last token is most in the middle of.

`evaluate` reads the feature `tag`, a value for each word; a word beyond them has none,
and does not count. A tag that the model does not know has no probability: it is in no
`nll`, and its word's answer is wrong, and so is the span. What a span is, says `spans`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ....models.tasks.tagging import span_types
from ....models.tasks.token_classifier import logits_of_words
from .. import contract
from ..document_sums import binned
from ..spans import spans_of
from ..traced_model import variables_of
from ..vocabulary import Vocabulary
from . import Signatures
from .common import (
    embed_settings,
    embed_signature,
    same_of_all,
    text_of_examples,
    tokens,
)
from .rows import signature


def build(model: Any, **options: Any) -> Signatures:
    """The signatures of a tagger of words.

    Args:
        model: a `langzoo.models.TokenClassifier`.
        options: of `ExportSettings`; those of texts that are written or scored token by
            token have no effect.
    """
    given, told = embed_settings(options)
    vocabulary = Vocabulary(
        model.preprocessor.tokenizer, model.backbone.vocabulary_size
    )
    tags = _Tags(model)
    info = {
        "context_length": int(model.context_length),
        "vocabulary_size": len(vocabulary.tokenizer.token_bytes()),
        "tag": model.labels,
    }
    functions = {
        "serving_default": tags.likeliest(),
        "score": tags.score(),
        **tokens(vocabulary),
        "embed": embed_signature(model, vocabulary, given),
        "model_info": same_of_all(contract.TAG_INFO, info),
        "evaluate": tags.evaluate(),
    }
    return Signatures(functions, variables_of(model), {**told, "labels": model.labels})


class _Tags:
    """What a model says of texts, by word.

    Args:
        model: the tagger.
    """

    def __init__(self, model: Any) -> None:
        self._names = tf.constant(model.labels)
        self._types = tf.constant(span_types(model.labels), tf.string)
        self._size = len(model.labels)
        # Traced once for all signatures.
        self._logits = tf.function(
            lambda text: logits_of_words(model, text),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )

    def likeliest(self) -> Callable:
        """The signature `serving_default`."""

        @signature(contract.TAGS)
        def tags(text: tf.Tensor) -> dict[str, tf.Tensor]:
            words, logits = self._logits(text)
            tag = words.with_flat_values(self._said(logits))
            probability = tf.reduce_max(tf.nn.softmax(logits), axis=-1)
            return {
                "word": words.to_tensor(""),
                "tag": tag.to_tensor(""),
                "probability": words.with_flat_values(probability).to_tensor(0.0),
                "length": tf.cast(words.row_lengths(), tf.int32),
            }

        return tags

    def score(self) -> Callable:
        """The signature `score`."""

        @signature(contract.SCORE_TAGS)
        def score(text: tf.Tensor, tag: tf.Tensor) -> dict[str, tf.Tensor]:
            words, logits = self._logits(text)
            given = tf.strings.split(tag).with_row_splits_dtype(tf.int64)
            number = self._number(_of_words(given, words))
            nll = _sum(self._nll(logits, number), words)
            unknown = _sum(tf.cast(number < 0, tf.int64), words)
            exists = (unknown == 0) & (given.row_lengths() == words.row_lengths())
            return {"log_probability": tf.where(exists, -nll, float("-inf"))}

        return score

    def evaluate(self) -> Callable:
        """The signature `evaluate`."""

        @signature(contract.EVALUATE_TAGS)
        def evaluate(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            words, logits = self._logits(text_of_examples(examples))
            features = {
                "tag": tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64)
            }
            tag = _of_words(tf.io.parse_example(examples, features)["tag"], words)
            number, said = self._number(tag), tf.argmax(logits, axis=-1)
            is_known, is_tagged = number >= 0, tag != ""
            right = number == said
            counts = {
                "labelled": is_known,
                "judged": is_tagged,
                "unknown_labels": is_tagged & ~is_known,
                "correct": right,
            }
            known = tf.where(is_known)[:, 0]
            confidence = tf.reduce_max(tf.nn.softmax(logits), axis=-1)
            row = words.value_rowids()
            confidence, hits, row = (
                tf.gather(part, known) for part in (confidence, right, row)
            )
            return {
                "nll": _sum(self._nll(logits, number), words),
                **{k: _sum(tf.cast(v, tf.int64), words) for k, v in counts.items()},
                "by_label": self._by_label(words, number, said, is_tagged),
                **self._spans(words, tag, self._said(logits)),
                "calibration": binned(confidence, hits, row, words.nrows()),
            }

        return evaluate

    def _said(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._names, tf.argmax(logits, axis=-1))

    def _number(self, tag: tf.Tensor) -> tf.Tensor:
        """The numbers of tags `[n]`, -1 for those that there are not: int64 `[n]`."""
        match = tf.cast(tag[:, tf.newaxis] == self._names, tf.int64)  # [n, c]
        return tf.reduce_sum(match * tf.range(1, self._size + 1, dtype=tf.int64), 1) - 1

    def _nll(self, logits: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Nats of words' tags, 0 of those without a number: float32 `[n]`."""
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.maximum(number, 0), logits
        )
        return tf.where(number >= 0, nll, 0.0)

    def _by_label(
        self,
        words: tf.RaggedTensor,
        number: tf.Tensor,
        said: tf.Tensor,
        is_tagged: tf.Tensor,
    ) -> tf.Tensor:
        size, rows = self._size, words.nrows()

        def count(index: tf.Tensor, counted: tf.Tensor, number: int) -> tf.Tensor:
            index = words.value_rowids() * number + index
            ones = tf.cast(counted, tf.float32)
            sums = tf.math.unsorted_segment_sum(ones, index, rows * number)
            return tf.reshape(sums, [rows, -1, size])

        pair = tf.maximum(number, 0) * size + said
        both = count(pair, number >= 0, size * size)  # [b, c, c]
        of_each = [
            tf.reduce_sum(both, axis=2),
            count(said, is_tagged, size)[:, 0],
            tf.linalg.diag_part(both),
        ]
        return tf.concat([tf.stack(of_each, axis=-1), both], axis=-1)

    def _spans(
        self, words: tf.RaggedTensor, tag: tf.Tensor, said: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        row = words.value_rowids()
        is_tagged = tag != ""
        own, told = (
            spans_of(tf.where(is_tagged, tags, "O"), row) for tags in (tag, said)
        )
        names = ("spans", "said_spans", "right_spans")
        found = {
            name: _sum(tf.cast(is_one, tf.int64), words)
            for name, is_one in zip(
                names, (own.begins, told.begins, told.which_are(own)), strict=True
            )
        }
        by_type = [
            self._by_type(words, spans.type, is_one)
            for spans, is_one in (
                (own, own.begins),
                (told, told.begins),
                (told, told.which_are(own)),
            )
        ]
        return {**found, "by_span": tf.stack(by_type, axis=-1)}

    def _by_type(
        self, words: tf.RaggedTensor, kind: tf.Tensor, is_one: tf.Tensor
    ) -> tf.Tensor:
        """How many spans each type has, float32 `[b, s]`."""
        at = tf.where(is_one)[:, 0]
        match = tf.gather(kind, at)[:, tf.newaxis] == self._types
        return tf.math.unsorted_segment_sum(
            tf.cast(match, tf.float32),
            tf.gather(words.value_rowids(), at),
            words.nrows(),
        )


def _of_words(values: tf.RaggedTensor, words: tf.RaggedTensor) -> tf.Tensor:
    """The values of words, string `[n]`, "" where there are too few."""
    padded = tf.pad(values.to_tensor(""), [[0, 0], [0, 1]])
    row = words.value_rowids()
    place = tf.range(tf.size(row, tf.int64)) - tf.gather(words.row_starts(), row)
    place = tf.minimum(place, tf.shape(padded, tf.int64)[1] - 1)
    return tf.gather_nd(padded, tf.stack([row, place], axis=1))


def _sum(values: tf.Tensor, words: tf.RaggedTensor) -> tf.Tensor:
    """Sums over the words of each text, of the values' dtype: `[b]`."""
    # A long text's float32 sum would lose digits that a gate compares.
    exact = tf.cast(values, tf.float64) if values.dtype.is_floating else values
    row = words.value_rowids()
    sums = tf.math.unsorted_segment_sum(exact, row, words.nrows())
    return tf.cast(sums, values.dtype)
