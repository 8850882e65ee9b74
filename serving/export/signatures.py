"""The signatures of an exported causal language model, as functions of tensors.

See `export` for what each of them takes and gives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...models.tasks.scoring import (
    map_tokens,
    next_token_logits,
    token_log_probabilities,
)
from .beam_search import MAX_BEAMS, beam_search, for_beams
from .document_sums import document_sums, evaluation_sums
from .generation import generate
from .prompts import Prompts
from .sampling import Penalties, Sampling
from .stop_strings import StopStrings
from .vocabulary import Alternatives, Vocabulary, last_tokens

NEXT_TOKENS = 10
DEFAULT_NEW_TOKENS = 64
MAX_STOPS = 4


def build_signatures(
    model: Any, *, stride: int, cap: int
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """The functions that `export_causal_lm` saves, by the names of their signatures.

    Args:
        model: a `langzoo.models.CausalLM`, best a `TracedModel` of one.
        stride: see `export_causal_lm`.
        cap: the most tokens that a request may generate.
    """
    vocabulary = Vocabulary(
        model.preprocessor.tokenizer, model.backbone.vocabulary_size
    )
    score, token_scores = _scoring_signatures(model, vocabulary, stride)

    @_signature(examples=tf.string)
    def evaluate(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        texts = text_of_examples(examples)
        return evaluation_sums(model, vocabulary, texts, stride)

    return {
        "serving_default": _next_tokens_signature(model, vocabulary),
        "score": score,
        "token_scores": token_scores,
        "token_alternatives": _alternatives_signature(model, vocabulary, stride),
        "generate": _generate_signature(model, vocabulary, cap),
        "beam_search": _beam_search_signature(model, vocabulary, cap),
        "evaluate": evaluate,
    }


def _signature(**inputs: tf.DType) -> Callable[[Callable], Callable]:
    """Makes a function of rows a signature; `stop` is the only input with columns."""
    specs = [
        tf.TensorSpec([None, MAX_STOPS] if name == "stop" else [None], dtype, name)
        for name, dtype in inputs.items()
    ]
    # Nothing here is written for AutoGraph, and tracing is faster without.
    return tf.function(input_signature=specs, autograph=False)


def _next_tokens_signature(model: Any, vocabulary: Vocabulary) -> Callable:
    proposed = min(NEXT_TOKENS, sum(vocabulary.proposable))

    @_signature(text=tf.string)
    def next_tokens(text: tf.Tensor) -> dict[str, tf.Tensor]:
        # One place is left free, so that the token proposed fits into the context: the
        # first of them is what `generate` says greedily for one new token.
        sequences = last_tokens(vocabulary.sequences(text), model.context_length - 1)
        logits = vocabulary.mask_unproposable(next_token_logits(model, sequences))
        probability, ids = tf.math.top_k(tf.nn.softmax(logits), proposed)
        missing = [[0, 0], [0, NEXT_TOKENS - proposed]]
        return {
            "token": tf.pad(vocabulary.display(ids), missing, constant_values=""),
            "probability": tf.pad(probability, missing),
        }

    return next_tokens


def _scoring_signatures(
    model: Any, vocabulary: Vocabulary, stride: int
) -> tuple[Callable, Callable]:
    @_signature(text=tf.string)
    def log_probabilities(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        documents = vocabulary.documents(text)
        scores = token_log_probabilities(model, documents, stride=stride)
        return documents[:, 1:], scores

    @_signature(text=tf.string)
    def score(text: tf.Tensor) -> dict[str, tf.Tensor]:
        _, scores = log_probabilities(text)
        return document_sums(vocabulary, text, scores)

    @_signature(text=tf.string)
    def token_scores(text: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, scores = log_probabilities(text)
        tokens = tf.ragged.map_flat_values(vocabulary.display, ids)
        return {
            "token": tokens.to_tensor(""),
            "log_probability": scores.to_tensor(0.0),
            "length": tf.cast(scores.row_lengths(), tf.int32),
        }

    return score, token_scores


def _alternatives_signature(
    model: Any, vocabulary: Vocabulary, stride: int
) -> Callable:
    def likeliest(features: dict, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
        logits = tf.cast(model(features, training=False), tf.float32)
        # Of all tokens, as in `token_scores`, though only some are shown.
        normalizer = tf.reduce_logsumexp(logits, axis=-1)
        masked = vocabulary.mask_unproposable(logits)
        values, ids = tf.math.top_k(masked, vocabulary.alternatives)
        target = tf.gather(logits, targets, axis=-1, batch_dims=2)
        return target - normalizer, values - normalizer[..., tf.newaxis], ids

    specs = (
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None, vocabulary.alternatives], tf.float32),
        tf.TensorSpec([None, vocabulary.alternatives], tf.int32),
    )

    @_signature(text=tf.string)
    def token_alternatives(text: tf.Tensor) -> dict[str, tf.Tensor]:
        documents = vocabulary.documents(text)
        results = map_tokens(model, documents, likeliest, specs, stride=stride)
        scores, values, ids = results
        tokens = tf.ragged.map_flat_values(vocabulary.display, documents[:, 1:])
        length = scores.row_lengths()
        top = Alternatives(values.to_tensor(0.0), ids.to_tensor(0))
        is_there = tf.sequence_mask(length, tf.shape(top.ids)[1])
        return {
            "token": tokens.to_tensor(""),
            "log_probability": scores.to_tensor(0.0),
            "length": tf.cast(length, tf.int32),
            **_shown(vocabulary, top, is_there),
        }

    return token_alternatives


def _generate_signature(model: Any, vocabulary: Vocabulary, cap: int) -> Callable:
    limit = tf.constant([min(DEFAULT_NEW_TOKENS, cap)])
    one, nought = tf.constant([1.0]), tf.constant([0.0])
    zero = tf.constant([0])
    no_stop = tf.fill([1, MAX_STOPS], "")

    @_signature(
        prompt=tf.string,
        max_new_tokens=tf.int32,
        temperature=tf.float32,
        top_k=tf.int32,
        top_p=tf.float32,
        repetition_penalty=tf.float32,
        presence_penalty=tf.float32,
        frequency_penalty=tf.float32,
        stop=tf.string,
        seed=tf.int32,
        seed_offset=tf.int32,
    )
    def generate_text(
        prompt: tf.Tensor,
        max_new_tokens: tf.Tensor = limit,
        temperature: tf.Tensor = one,
        top_k: tf.Tensor = zero,
        top_p: tf.Tensor = one,
        repetition_penalty: tf.Tensor = one,
        presence_penalty: tf.Tensor = nought,
        frequency_penalty: tf.Tensor = nought,
        stop: tf.Tensor = no_stop,
        seed: tf.Tensor = zero,
        seed_offset: tf.Tensor = zero,
    ) -> dict[str, tf.Tensor]:
        rows = functools.partial(_rows, prompt)
        prompts = Prompts.of(
            vocabulary,
            prompt,
            rows(max_new_tokens),
            context_length=model.context_length,
            cap=cap,
        )
        settings = (temperature, top_k, top_p, seed, seed_offset)
        penalties = (repetition_penalty, presence_penalty, frequency_penalty)
        new = generate(
            model,
            vocabulary,
            prompts,
            Sampling(*map(rows, settings)),
            Penalties(*map(rows, penalties)),
            StopStrings(rows(stop)),
            cap=cap,
        )
        is_there = tf.sequence_mask(new.new_tokens, tf.shape(new.ids)[1])
        return {
            "text": new.text,
            "new_tokens": new.new_tokens,
            "finish_reason": _finish_reason(new.stopped),
            "prompt_tokens": prompts.read,
            "token": tf.where(is_there, vocabulary.display(new.ids), ""),
            "log_probability": new.log_probability,
            **_shown(vocabulary, new.top, is_there),
        }

    return generate_text


def _beam_search_signature(model: Any, vocabulary: Vocabulary, cap: int) -> Callable:
    limit = tf.constant([min(DEFAULT_NEW_TOKENS, cap)])
    beams, one = tf.constant([MAX_BEAMS]), tf.constant([1.0])
    no_stop = tf.fill([1, MAX_STOPS], "")

    @_signature(
        prompt=tf.string,
        max_new_tokens=tf.int32,
        num_beams=tf.int32,
        length_penalty=tf.float32,
        stop=tf.string,
    )
    def search(
        prompt: tf.Tensor,
        max_new_tokens: tf.Tensor = limit,
        num_beams: tf.Tensor = beams,
        length_penalty: tf.Tensor = one,
        stop: tf.Tensor = no_stop,
    ) -> dict[str, tf.Tensor]:
        rows = functools.partial(_rows, prompt)
        prompts = Prompts.of(
            vocabulary,
            prompt,
            rows(max_new_tokens),
            context_length=model.context_length,
            cap=cap,
        )
        found = beam_search(
            model,
            vocabulary,
            prompts,
            rows(num_beams),
            rows(length_penalty),
            for_beams(rows(stop)),
        )
        is_there = found.log_probability > float("-inf")
        return {
            "text": found.text,
            "log_probability": found.log_probability,
            "score": found.score,
            "new_tokens": found.new_tokens,
            "finish_reason": tf.where(is_there, _finish_reason(found.stopped), ""),
        }

    return search


def _rows(prompt: tf.Tensor, setting: tf.Tensor) -> tf.Tensor:
    """A setting, of one row or of all, as that of each prompt."""
    return tf.broadcast_to(setting, [tf.size(prompt), *setting.shape[1:]])


def _finish_reason(stopped: tf.Tensor) -> tf.Tensor:
    return tf.where(stopped, "stop", "length")


def _shown(
    vocabulary: Vocabulary, top: Alternatives, is_there: tf.Tensor
) -> dict[str, tf.Tensor]:
    token, log_probability = vocabulary.shown(top, is_there)
    return {"top_token": token, "top_log_probability": log_probability}


def text_of_examples(examples: tf.Tensor) -> tf.Tensor:
    """The feature `text` of serialized `tf.train.Example`s, string `[b]`.

    A missing feature is an empty text; several values are joined.
    """
    features = {"text": tf.io.RaggedFeature(tf.string)}
    parsed = tf.io.parse_example(examples, features)
    return tf.strings.reduce_join(parsed["text"], axis=-1)
