"""What an export of a masked language model answers.

`contract` has a table of it; this is what does not fit in there.

A text for `fill_mask` has the mask, as `mask` says it, wherever a piece is missing.
Where the vocabulary's words begin with their space, a space before a mask is the
piece's. All masks of a text are hidden at once; log-probabilities are the model's own,
in nats, of which only those of pieces that a text can have are told.

`score` and `token_scores` hide one token after the other, and so take as many readings
as a text has tokens: `models.tasks.pseudo_scoring`. `evaluate` hides 15 % of a document
at once: `models.tasks.hiding`.

`embed` reads a text as `score` does, with `<s>` and `</s>`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ....models.tasks import hiding
from ....models.tasks.both_ways import map_asked
from ....models.tasks.pseudo_scoring import token_log_probabilities
from ....models.tasks.scoring import (
    OUTCOME_SPECS,
    framed_ids,
    joined,
    outcomes,
)
from .. import contract
from ..document_sums import document_sums, outcome_sums, told_sums, total
from ..settings import ExportSettings
from ..traced_model import variables_of
from ..vocabulary import Alternatives, Vocabulary, asked_alternatives
from . import Signatures
from .common import (
    embed_signature,
    model_info,
    scored_tokens,
    shown,
    text_of_examples,
    tokens,
    told,
)
from .rows import signature


def build(
    model: Any,
    *,
    stride: int | None = None,
    max_new_tokens: None = None,
    **embed: Any,
) -> Signatures:
    """The signatures of a masked language model.

    Args:
        model: a `langzoo.models.MaskedLM`.
        stride: int in [1, context length]. Distance between the windows in which a
            document longer than the context is read. Defaults to half the context.
        max_new_tokens: `None`, as nothing is generated.
        **embed: `embed_pooling` and `embed_normalize` of `ExportSettings`.
    """
    del max_new_tokens
    given = ExportSettings(score_stride=stride, **embed)
    stride, _ = given.lengths(int(model.context_length))
    tokenizer = model.preprocessor.tokenizer
    vocabulary = Vocabulary(
        tokenizer, model.backbone.vocabulary_size, int(tokenizer.mask_token_id)
    )
    functions = {
        **_filling(model, vocabulary, stride),
        **_scoring(model, vocabulary, stride),
        **tokens(vocabulary),
        "embed": embed_signature(model, vocabulary, given, closed=True),
        "model_info": model_info(model, vocabulary, 0),
        "evaluate": _evaluate(model, vocabulary, stride),
    }
    options = {"stride": stride}
    options |= given.model_dump(include={"embed_pooling", "embed_normalize"})
    return Signatures(functions, variables_of(model), options)


def _filling(model: Any, vocabulary: Vocabulary, stride: int) -> dict[str, Callable]:
    most = vocabulary.most_alternatives
    mask = vocabulary.tokenizer.mask_token
    specs = (
        tf.TensorSpec([None, most], tf.float32),
        tf.TensorSpec([None, most], tf.int32),
    )

    def likeliest(logits: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        values, ids = tf.math.top_k(vocabulary.mask_unproposable(logits), most)
        return values - tf.reduce_logsumexp(logits, axis=-1, keepdims=True), ids

    def filled(text: tf.Tensor, count: Any) -> tuple[dict[str, tf.Tensor], ...]:
        documents = _with_masks(vocabulary.tokenizer, text)
        is_mask = documents == int(vocabulary.tokenizer.mask_token_id)
        flat = is_mask.flat_values
        found = map_asked(model, documents, flat, likeliest, specs, stride=stride)
        masks = tf.reduce_sum(tf.cast(is_mask, tf.int64), axis=1)
        values, ids = (
            tf.RaggedTensor.from_row_lengths(part, masks, validate=False).to_tensor()
            for part in found
        )
        is_there = tf.sequence_mask(masks, tf.shape(ids)[1])
        top = shown(vocabulary, Alternatives(values, ids), is_there, count)
        said = {
            "masks": tf.cast(masks, tf.int32),
            "mask": tf.fill([tf.size(text)], mask),
        }
        return said, top

    @signature(contract.FILL)
    def fill(text: tf.Tensor) -> dict[str, tf.Tensor]:
        said, top = filled(text, contract.ALTERNATIVES)
        return said | top

    @signature(contract.FILL_MASK)
    def fill_mask(text: tf.Tensor, alternatives: tf.Tensor) -> dict[str, tf.Tensor]:
        said, top = filled(text, asked_alternatives(alternatives))
        return said | told(alternatives, top)

    return {"serving_default": fill, "fill_mask": fill_mask}


def _with_masks(tokenizer: Any, text: tf.Tensor) -> tf.RaggedTensor:
    """Documents of texts in which the mask's name stands for its id."""
    parts = tf.strings.split(text, tokenizer.mask_token)
    last = parts.row_limits() - 1
    count = tf.size(parts.flat_values, tf.int64)
    is_followed = tf.tensor_scatter_nd_update(
        tf.ones([count], tf.bool), last[:, tf.newaxis], tf.zeros_like(last, tf.bool)
    )
    flat = parts.flat_values
    if any(len(piece) > 1 and piece[:1] == b" " for piece in tokenizer.token_bytes()):
        shorter = tf.strings.regex_replace(flat, " $", "")
        flat = tf.where(is_followed, shorter, flat)
    ids = tf.cast(tokenizer.tokenize(flat), tf.int32).with_row_splits_dtype(tf.int64)
    lengths = tf.cast(is_followed, tf.int64)
    masks = tf.fill([tf.reduce_sum(lengths)], int(tokenizer.mask_token_id))
    masks = tf.RaggedTensor.from_row_lengths(masks, lengths, validate=False)
    ids = joined(ids, masks)
    splits = tf.gather(ids.row_splits, parts.row_splits)
    whole = tf.RaggedTensor.from_row_splits(ids.flat_values, splits, validate=False)
    return framed_ids(tokenizer, whole)


def _scoring(model: Any, vocabulary: Vocabulary, stride: int) -> dict[str, Callable]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def log_probabilities(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        documents = vocabulary.documents(text)
        scores = token_log_probabilities(model, documents, stride=stride)
        return documents[:, 1:-1], scores

    @signature(contract.PSEUDO_SCORE)
    def score(text: tf.Tensor) -> dict[str, tf.Tensor]:
        _, scores = log_probabilities(text)
        sums = document_sums(vocabulary, text, *total(scores))
        return {"pseudo_nll": sums.pop("nll"), **sums}

    @signature(contract.PSEUDO_TOKEN_SCORES)
    def token_scores(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return scored_tokens(vocabulary, *log_probabilities(text))

    return {"score": score, "token_scores": token_scores}


def _evaluate(model: Any, vocabulary: Vocabulary, stride: int) -> Callable:
    is_ordinary = hiding.ordinary(vocabulary.tokenizer)
    mask_id = int(vocabulary.tokenizer.mask_token_id)

    @signature(contract.MASKED_EVALUATE)
    def evaluate(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        text = text_of_examples(examples)
        documents = vocabulary.documents(text)
        ids = documents.flat_values
        hidden = hiding.of_evaluation(documents, text, is_ordinary)
        at = documents.row_starts()[:, tf.newaxis] + tf.cast(hidden.positions, tf.int64)
        at = at[hidden.is_there][:, tf.newaxis]
        ones = tf.ones([tf.size(at)], tf.int32)
        is_hidden = tf.scatter_nd(at, ones, tf.shape(ids, tf.int64)) > 0

        def of_tokens(logits: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, ...]:
            target = tf.gather(ids, place)
            rows = outcomes(logits[tf.newaxis], target[tf.newaxis])
            return tuple(row[0] for row in rows)

        found = map_asked(
            model,
            documents.with_flat_values(tf.where(is_hidden, mask_id, ids)),
            is_hidden,
            of_tokens,
            OUTCOME_SPECS,
            stride=stride,
        )
        count = tf.reduce_sum(tf.cast(hidden.is_there, tf.int64), axis=1)
        rows = tf.repeat(tf.range(documents.nrows()), count)
        sums = outcome_sums(found, rows, documents.nrows())
        return told_sums(vocabulary, text, documents, sums, count)

    return evaluate
