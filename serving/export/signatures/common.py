"""What exports of several tasks answer alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ....models.tasks.embedding import embed_sequences
from .. import contract
from ..beam_search import Beams
from ..generation import Continuation
from ..settings import ExportSettings
from ..vocabulary import Alternatives, Vocabulary, asked_alternatives
from .rows import signature


def tokens(vocabulary: Vocabulary) -> dict[str, Callable]:
    """The signatures `tokenize` and `detokenize`."""

    @signature(contract.TOKENIZE)
    def tokenize(text: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = vocabulary.documents(text)[:, 1:-1]
        length = tf.cast(ids.row_lengths(), tf.int32)
        return {"token_id": ids.to_tensor(0), "length": length}

    @signature(contract.DETOKENIZE)
    def detokenize(token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = vocabulary.written_ids(token_ids)
        shown = tf.ragged.map_flat_values(vocabulary.display, ids)
        return {
            "text": vocabulary.named(ids),
            "token": shown.to_tensor(""),
            "length": tf.cast(ids.row_lengths(), tf.int32),
        }

    return {"tokenize": tokenize, "detokenize": detokenize}


def embed_settings(options: dict[str, Any]) -> tuple[ExportSettings, dict[str, Any]]:
    """Of an export's options those of `embed`, which alone classifiers have.

    Returns:
        The settings, and what is noted of them in the export.
    """
    own = {"embed_pooling", "embed_normalize"}
    given = ExportSettings(**{k: v for k, v in options.items() if k in own})
    return given, given.model_dump(include=own)


def embed_signature(
    model: Any, vocabulary: Vocabulary, settings: ExportSettings, closed: bool = False
) -> Callable:
    """The signature `embed`; where a text is `closed`, `</s>` is of it, too."""

    @signature(contract.EMBED)
    def embed(text: tf.Tensor, token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        sequences = vocabulary.prompts(text, token_ids)
        count = vocabulary.said(sequences, token_ids)
        if closed:
            sequences = vocabulary.closed(sequences, token_ids)
        embedding = embed_sequences(model, sequences, settings.embed_pooling)
        if settings.embed_normalize:
            embedding = tf.math.l2_normalize(embedding, axis=-1)
        return {"embedding": embedding, "tokens": count}

    return embed


def model_info(
    model: Any,
    vocabulary: Vocabulary,
    cap: int,
    of: contract.Signature = contract.MODEL_INFO,
    **more: int,
) -> Callable:
    """The signature `model_info`, where a request is given at most `cap` tokens."""
    told = {
        "context_length": int(model.context_length),
        "max_new_tokens": cap,
        "vocabulary_size": len(vocabulary.tokenizer.token_bytes()),
        "special_id": vocabulary.special_ids,
        "special_token": vocabulary.special_tokens,
        **more,
    }

    return same_of_all(of, told)


def same_of_all(of: contract.Signature, told: dict[str, Any]) -> Callable:
    """A signature that says the same of every text."""

    @signature(of)
    def info(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            name: tf.repeat(tf.constant([value]), tf.size(text), axis=0)
            for name, value in told.items()
        }

    return info


def scored_tokens(
    vocabulary: Vocabulary, ids: tf.RaggedTensor, scores: tf.RaggedTensor
) -> dict[str, tf.Tensor]:
    """The outputs of `token_scores`."""
    return {
        "token": tf.ragged.map_flat_values(vocabulary.display, ids).to_tensor(""),
        "log_probability": scores.to_tensor(0.0),
        "length": tf.cast(scores.row_lengths(), tf.int32),
    }


def text_of_examples(examples: tf.Tensor, feature: str = "text") -> tf.Tensor:
    """A feature of serialized `tf.train.Example`s, string `[b]`.

    A missing feature is an empty text; several values are joined.
    """
    parsed = tf.io.parse_example(examples, {feature: tf.io.RaggedFeature(tf.string)})
    return tf.strings.reduce_join(parsed[feature], axis=-1)


def shown(
    vocabulary: Vocabulary,
    top: Alternatives,
    is_there: tf.Tensor,
    count: int | tf.Tensor,
) -> dict[str, tf.Tensor]:
    """The outputs that tell what is likeliest in places; see `Vocabulary.shown`."""
    token, log_probability = vocabulary.shown(top, is_there, count)
    return {"top_token": token, "top_log_probability": log_probability}


def generated(
    vocabulary: Vocabulary, new: Continuation, alternatives: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """What `generate` says of what was written.

    Args:
        vocabulary: of its tokens.
        new: what was written, b rows.
        alternatives: int32 `[b]`. How many likely tokens each row is told in each
            token's place; without, none is told.
    """
    is_there = tf.sequence_mask(new.new_tokens, tf.shape(new.ids)[1])
    found = {
        "text": new.text,
        "new_tokens": new.new_tokens,
        "finish_reason": _finish_reason(new.stopped),
        "token_id": tf.where(is_there, new.ids, 0),
        "token": tf.where(is_there, vocabulary.display(new.ids), ""),
        "log_probability": new.log_probability,
    }
    if alternatives is None:
        return found
    count = asked_alternatives(alternatives)
    return found | told(alternatives, shown(vocabulary, new.top, is_there, count))


def told_beams(found: Beams) -> dict[str, tf.Tensor]:
    """What `beam_search` says of what was found."""
    is_there = found.log_probability > float("-inf")
    return {
        "text": found.text,
        "log_probability": found.log_probability,
        "score": found.score,
        "new_tokens": found.new_tokens,
        "finish_reason": tf.where(is_there, _finish_reason(found.stopped), ""),
    }


def _finish_reason(stopped: tf.Tensor) -> tf.Tensor:
    return tf.where(stopped, "stop", "length")


def told(alternatives: tf.Tensor, top: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The likeliest tokens as far as each row asks for them: "" and -inf behind."""
    count = tf.shape(top["top_token"])[2]
    is_asked = tf.range(count) < alternatives[:, tf.newaxis, tf.newaxis]
    unasked = {"top_token": "", "top_log_probability": float("-inf")}
    return {
        name: tf.where(is_asked, top[name], value) for name, value in unasked.items()
    }
