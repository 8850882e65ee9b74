"""Continuation of prompts inside a graph, with a cache and per-row sampling settings.

All rows of a batch share one position. Prompts of unequal length are padded on the
right; the loop starts at the end of the shortest, and a row whose prompt goes on is fed
its own tokens until its prompt ends, as in KerasHub.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from .vocabulary import Vocabulary, last_tokens

# Sorting a whole vocabulary at every step costs more than a small model's own step, so
# tokens are drawn from so many of the likeliest.
MAX_CANDIDATES = 256
# Below this a temperature is as good as zero, and a division by it could overflow.
_MIN_TEMPERATURE = 1e-6


class Sampling(NamedTuple):
    """How each row draws its tokens; every field has shape `[b]`.

    `temperature` float32: 0 or less (or not a number) means the likeliest token.
    `top_k` int32: draw from the k likeliest; 0 or less means all candidates.
    `top_p` float32: draw from the fewest tokens whose probabilities, after temperature
    and `top_k`, sum to at least p; 1 or more (or not a number) means all candidates.
    `seed` int32: a row's text depends on its seed and its prompt, and on nothing else.
    """

    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    seed: tf.Tensor


class Continuation(NamedTuple):
    """New ids int32 `[b, (n)]`, without `</s>`, and bool `[b]`: was `</s>` drawn?"""

    ids: tf.RaggedTensor
    stopped: tf.Tensor


def generate(
    model: Any,
    vocabulary: Vocabulary,
    prompts: tf.RaggedTensor,
    max_new_tokens: tf.Tensor,
    sampling: Sampling,
    *,
    cap: int,
) -> Continuation:
    """Continues each prompt until `</s>` or `max_new_tokens` tokens.

    A prompt keeps its last (context length - its `max_new_tokens`) tokens, so that all
    of the text fits into the model's context. Tokens are drawn from the
    `MAX_CANDIDATES` likeliest; `<pad>`, `<unk>` and `<s>` are never drawn.

    Args:
        model: a `CausalLM` with `context_length`, `prefill` and `call_with_cache`.
        vocabulary: of the model's tokenizer.
        prompts: int32 `[b, (t)]`, each row at least 1 long.
        max_new_tokens: int32 `[b]`, clipped to [0, cap].
        sampling: how each row draws.
        cap: int in [1, context length).
    """
    max_new_tokens = tf.clip_by_value(max_new_tokens, 0, cap)
    prompts = last_tokens(prompts, model.context_length - max_new_tokens)
    lengths = tf.cast(prompts.row_lengths(), tf.int32)
    limits = lengths + max_new_tokens
    # The 1 stands in for the lengths of an empty batch.
    width = tf.reduce_max(tf.concat([limits, [1]], axis=0))
    start = tf.reduce_min(tf.concat([lengths, [width]], axis=0)) - 1
    tokens = prompts.to_tensor(vocabulary.pad_id)
    tokens = tf.pad(
        tokens,
        [[0, 0], [0, width - tf.shape(tokens)[1]]],
        constant_values=vocabulary.pad_id,
    )
    draws = _uniform(sampling.seed, cap)

    def is_open(position: tf.Tensor, stopped: tf.Tensor) -> tf.Tensor:
        return ~stopped & (position < limits)

    def body(position, tokens, stopped, cache):  # type: ignore[no-untyped-def]
        logits, _, cache = model.call_with_cache(
            tokens[:, position : position + 1], cache, position
        )
        # The loop wants static shapes that stay, and Keras's ops lose some.
        cache = tf.nest.map_structure(_like, cache, prefilled)
        position += 1
        draw = tf.gather(
            draws, tf.clip_by_value(position - lengths, 0, cap - 1), batch_dims=1
        )
        logits = tf.cast(logits[:, 0, :], tf.float32)
        chosen = choose_tokens(vocabulary, logits, sampling, draw)
        is_new = is_open(position, stopped) & (position >= lengths)
        column = tf.where(is_new, chosen, tokens[:, position])
        stopped |= is_new & (chosen == vocabulary.end_id)
        return position, _with_column(tokens, position, column), stopped, cache

    prefilled = model.prefill(tokens, start)
    _, tokens, stopped, _ = tf.while_loop(
        lambda position, tokens, stopped, cache: tf.reduce_any(
            is_open(position + 1, stopped)
        ),
        body,
        (start, tokens, tf.zeros_like(lengths, tf.bool), prefilled),
        parallel_iterations=1,
    )
    column = tf.range(width)
    is_new = (column >= lengths[:, tf.newaxis]) & (column < limits[:, tf.newaxis])
    is_text = (tokens != vocabulary.end_id) & (tokens != vocabulary.pad_id)
    return Continuation(tf.ragged.boolean_mask(tokens, is_new & is_text), stopped)


def choose_tokens(
    vocabulary: Vocabulary, logits: tf.Tensor, sampling: Sampling, draw: tf.Tensor
) -> tf.Tensor:
    """One token a row, by inverting the candidates' cumulative distribution.

    Args:
        vocabulary: says which tokens may be chosen.
        logits: float32 `[b, vocabulary]`.
        sampling: how each row chooses.
        draw: float32 `[b]`, uniform in [0, 1).

    Returns:
        int32 `[b]`.
    """
    count = min(MAX_CANDIDATES, sum(vocabulary.proposable))
    values, candidates = tf.math.top_k(vocabulary.mask_unproposable(logits), count)
    rank = tf.range(count)
    top_k = tf.where(sampling.top_k > 0, sampling.top_k, count)[:, tf.newaxis]
    top_p = tf.where(sampling.top_p < 1, sampling.top_p, 2.0)[:, tf.newaxis]
    temperature = tf.maximum(sampling.temperature, _MIN_TEMPERATURE)[:, tf.newaxis]

    scaled = (values - values[:, :1]) / temperature
    weights = tf.nn.softmax(tf.where(rank < top_k, scaled, scaled.dtype.min))
    before = tf.cumsum(weights, axis=-1, exclusive=True)
    weights = tf.where((before < top_p) | (rank == 0), weights, 0)
    cumulative = tf.cumsum(weights, axis=-1)
    threshold = draw[:, tf.newaxis] * cumulative[:, -1:]
    drawn = tf.reduce_sum(tf.cast(cumulative <= threshold, tf.int32), axis=-1)
    choice = tf.where(sampling.temperature > 0, drawn, 0)
    return tf.gather(candidates, choice, batch_dims=1)


def _uniform(seed: tf.Tensor, count: int) -> tf.Tensor:
    """float32 `[b, count]` in [0, 1); a row depends on its seed alone."""

    def row(seed: tf.Tensor) -> tf.Tensor:
        # A named algorithm, because the default one depends on the device.
        return tf.random.stateless_uniform([count], tf.stack([seed, 0]), alg="philox")

    return tf.map_fn(row, seed, fn_output_signature=tf.TensorSpec([count], tf.float32))


def _like(tensor: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """`tensor` with the static shape of `other`."""
    return tf.ensure_shape(tensor, other.shape)


def _with_column(
    tokens: tf.Tensor, position: tf.Tensor, column: tf.Tensor
) -> tf.Tensor:
    """`tokens` `[b, w]` with `column` `[b]` at `position`."""
    here = tf.range(tf.shape(tokens)[1]) == position
    return tf.where(here, column[:, tf.newaxis], tokens)
