"""What an export of a text classifier answers.

`contract` has a table of it; this is what does not fit in there.

A text is `<s> tokens </s>`; of one that is longer than the context the first tokens are
read. Labels that are equally likely come in the order of their names. Where a text has
one label, the probabilities of all sum to one, and its answer is the likeliest. Where
it may have several (`multi_label`), each has a probability of its own, and its answer
are those above a half.

`embed` reads a text of any length, with `<s>` and `</s>`.

`score` says how likely exactly that answer is: with several labels, that the text has
those and no others, each by itself; "" is no label.

`evaluate` reads the feature `label`. A label that the model does not know has no
probability: it is in no `nll`, and its document's answer is wrong. (With several
labels, `nll` is that of the known ones.) Calibration is that of the answer, with
several labels that of whether the text has each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ....models.tasks.windows import Chunk, Inputs, Windows, map_windows
from .. import contract
from ..document_sums import binned
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
    """The signatures of a text classifier.

    Args:
        model: a `langzoo.models.TextClassifier`.
        options: of `ExportSettings`; those of texts that are written or scored token by
            token have no effect.
    """
    given, told = embed_settings(options)
    vocabulary = Vocabulary(
        model.preprocessor.tokenizer, model.backbone.vocabulary_size
    )
    labels = _Labels(model, vocabulary)
    functions = {
        "serving_default": labels.likeliest_first(),
        "score": labels.score(),
        "classify": labels.classify(),
        **tokens(vocabulary),
        "embed": embed_signature(model, vocabulary, given, closed=True),
        "model_info": labels.info(),
        "evaluate": labels.evaluate(),
    }
    told |= {"labels": model.labels, "multi_label": model.multi_label}
    return Signatures(functions, variables_of(model), told)


class _Labels:
    """What a model says of texts.

    Args:
        model: the classifier.
        vocabulary: the model's.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._names = tf.constant(model.labels)
        self._size = len(model.labels)
        # Traced once for all signatures.
        self._logits = tf.function(
            self._logits_of,
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )

    def likeliest_first(self) -> Callable:
        """The signature `serving_default`."""

        @signature(contract.LABELS)
        def labels(text: tf.Tensor) -> dict[str, tf.Tensor]:
            label, probability = self._ranked(text)
            return {"label": label, "probability": probability}

        return labels

    def classify(self) -> Callable:
        """The signature `classify`."""

        @signature(contract.CLASSIFY)
        def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            classes, scores = self._ranked(text_of_examples(inputs))
            return {"classes": classes, "scores": scores}

        return classify

    def score(self) -> Callable:
        """The signature `score`."""

        @signature(contract.SCORE_LABEL)
        def score(text: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
            lines = tf.strings.split(label, "\n")
            lines = tf.ragged.map_flat_values(tf.strings.strip, lines)
            has, unknown = self._has(lines)
            nll = self._nll(self._logits(text), has)
            single = tf.reduce_sum(has, axis=1) == 1
            exists = (unknown == 0) & (single | self._model.multi_label)
            return {"log_probability": tf.where(exists, -nll, float("-inf"))}

        return score

    def info(self) -> Callable:
        """The signature `model_info`."""
        told = {
            "context_length": int(self._model.context_length),
            "vocabulary_size": len(self._vocabulary.tokenizer.token_bytes()),
            "label": self._model.labels,
            "multi_label": int(self._model.multi_label),
        }
        return same_of_all(contract.LABEL_INFO, told)

    def evaluate(self) -> Callable:
        """The signature `evaluate`."""

        @signature(contract.EVALUATE_LABELS)
        def evaluate(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            features = {"label": tf.io.RaggedFeature(tf.string)}
            label = tf.io.parse_example(examples, features)["label"]
            has, unknown = self._has(label)  # [b, c], [b]
            logits = self._logits(text_of_examples(examples))
            said = self._answer(logits)
            labelled = tf.reduce_any(has > 0, axis=1) | self._model.multi_label
            judged = labelled | (unknown > 0)
            right = tf.reduce_all(has == said, axis=1) & (unknown == 0)
            both = has[:, :, tf.newaxis] * said[:, tf.newaxis]  # [b, c, c]
            asked = tf.cast(judged, tf.float32)[:, tf.newaxis]
            counts = tf.stack([has, said * asked, has * said], axis=-1)  # [b, c, 3]
            return {
                "nll": tf.where(labelled, self._nll(logits, has), 0.0),
                "labelled": tf.cast(labelled, tf.int64),
                "judged": tf.cast(judged, tf.int64),
                "unknown_labels": tf.cast(unknown, tf.int64),
                "correct": tf.cast(right & judged, tf.int64),
                "by_label": tf.concat([counts, both], axis=-1),
                "calibration": self._calibration(logits, has, labelled),
            }

        return evaluate

    def _ranked(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        probabilities = self._probabilities(self._logits(text))
        probability, ids = tf.math.top_k(probabilities, self._size)
        return tf.gather(self._names, ids), probability

    def _probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        several = self._model.multi_label
        return tf.sigmoid(logits) if several else tf.nn.softmax(logits)

    def _answer(self, logits: tf.Tensor) -> tf.Tensor:
        """1 for each label that a text is said to have, else 0: float32 `[b, c]`."""
        if self._model.multi_label:
            return tf.cast(logits > 0, tf.float32)
        return tf.one_hot(tf.argmax(logits, axis=-1), self._size)

    def _nll(self, logits: tf.Tensor, has: tf.Tensor) -> tf.Tensor:
        """Nats of labels, float32 `[b]`."""
        if self._model.multi_label:
            nll = tf.nn.sigmoid_cross_entropy_with_logits(has, logits)
        else:
            nll = -tf.nn.log_softmax(logits) * has
        return tf.reduce_sum(nll, axis=1)

    def _calibration(
        self, logits: tf.Tensor, has: tf.Tensor, labelled: tf.Tensor
    ) -> tf.Tensor:
        probabilities, said = self._probabilities(logits), self._answer(logits)
        right = has == said
        if self._model.multi_label:
            confidence = tf.maximum(probabilities, 1 - probabilities)  # [b, c]
        else:
            confidence = tf.reduce_max(probabilities, axis=1, keepdims=True)  # [b, 1]
            right = tf.reduce_all(right, axis=1, keepdims=True)
        counted = tf.where(labelled)[:, 0]
        rows = tf.repeat(counted, tf.shape(confidence)[1])
        confidence, right = (
            tf.reshape(tf.gather(part, counted), [-1]) for part in (confidence, right)
        )
        return binned(confidence, right, rows, tf.size(labelled, tf.int64))

    def _has(self, label: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Which labels rows have, of strings `[b, (n)]`, but for empty ones.

        Returns:
            1 for each label that a row has, else 0, float32 `[b, c]`; and how many it
            has that are none, int32 `[b]`.
        """
        values, rows = label.flat_values, label.value_rowids()
        match = tf.cast(values[:, tf.newaxis] == self._names, tf.float32)  # [n, c]
        is_unknown = (tf.reduce_sum(match, axis=1) == 0) & (values != "")
        sums = tf.math.unsorted_segment_sum(match, rows, label.nrows())
        unknown = tf.math.unsorted_segment_sum(
            tf.cast(is_unknown, tf.int32), rows, label.nrows()
        )
        return tf.minimum(sums, 1.0), unknown

    def _logits_of(self, text: tf.Tensor) -> tf.Tensor:
        """The logits of texts of any length, in bounded memory: float32 `[b, c]`."""
        documents = self._vocabulary.documents(text)
        length = tf.minimum(documents.row_lengths(), self._model.context_length)
        begin = documents.row_starts()
        # A text is cut before its end, not after.
        last = (begin + length - 1)[:, tf.newaxis]
        ends = tf.fill([documents.nrows()], self._vocabulary.end_id)
        ids = tf.tensor_scatter_nd_update(documents.flat_values, last, ends)

        def logits(features: Inputs, chunk: Chunk) -> tuple[tf.Tensor, tf.Tensor]:
            return chunk.rows, self._model(features, training=False)

        specs = (
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None, self._size], tf.float32),
        )
        rows, found = map_windows(
            self._model, Windows(ids, begin, length), logits, specs
        )
        order = tf.math.invert_permutation(tf.cast(rows, tf.int32))
        return tf.gather(found, order)
