"""Continuation of prompts inside a graph, with a cache and per-row settings."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from .prompts import Prompts, column_of, like, with_column
from .sampling import Penalties, Sampling, choose_tokens, uniform_draws
from .stop_strings import NO_CUT, StopStrings
from .vocabulary import Alternatives, Vocabulary


class Continuation(NamedTuple):
    """What was written; b rows, n the most new tokens of one of them.

    `text` string `[b]`, valid UTF-8. `new_tokens` int32 `[b]`: tokens that the text has
    a part of, `</s>` not among them. `stopped` bool `[b]`: by `</s>` or a stop string?
    Of each new token `ids` int32 `[b, n]`, `log_probability` float32 `[b, n]`, and what
    else was likely, `top` `[b, n, k]`; 0 behind a row's last.
    """

    text: tf.Tensor
    new_tokens: tf.Tensor
    stopped: tf.Tensor
    ids: tf.Tensor
    log_probability: tf.Tensor
    top: Alternatives


class _Step(NamedTuple):
    """What the loop notes of each position; its fields begin with `[steps, b]`."""

    log_probability: tf.Tensor
    top_log_probability: tf.Tensor
    top_ids: tf.Tensor

    def put(self, index: tf.Tensor, step: _Step) -> _Step:
        """With `step`, of one position, at an index."""
        return _Step(
            *(
                tf.tensor_scatter_nd_update(all_, [[index]], one[tf.newaxis])
                for all_, one in zip(self, step, strict=True)
            )
        )


def generate(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Prompts,
    sampling: Sampling,
    penalties: Penalties,
    stops: StopStrings,
    *,
    cap: int,
) -> Continuation:
    """Continues each prompt until `</s>`, a stop string or its limit.

    Tokens are drawn from the `MAX_CANDIDATES` likeliest, after penalties; `<pad>`,
    `<unk>` and `<s>` are never drawn. Log-probabilities are the model's own, in nats,
    of what may be proposed: before penalties, temperature and cuts.

    Args:
        model: a `CausalLM` with `prefill` and `call_with_cache`.
        vocabulary: of the model's tokenizer.
        prompts: `b` of them.
        sampling: how each row draws.
        penalties: what lowers the chances of tokens that are there already.
        stops: what ends each row.
        cap: int. No row has a limit above it.
    """
    lengths, start = prompts.lengths, prompts.start
    draws = uniform_draws(sampling.seed, sampling.seed_offset, cap)
    penalties = penalties.sane()
    is_penalized = penalties.is_any()
    is_plain = ~is_penalized & ~tf.reduce_any(sampling.temperature > 0)

    def penalized(logits: tf.Tensor, tokens: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        column = tf.range(tf.shape(tokens)[1])
        # What earlier requests drew of this continuation ends the prompt.
        earlier = tf.maximum(sampling.seed_offset, 0)
        is_text = (column < end) & (tokens != vocabulary.start_id)
        is_new = is_text & (column >= (lengths - earlier)[:, tf.newaxis])
        logits = penalties.apply(logits, tokens, is_text, is_new)
        return vocabulary.mask_unproposable(logits)

    def choose(logits: tf.Tensor, tokens: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        masked = tf.cond(
            is_penalized,
            lambda: penalized(logits, tokens, position),
            lambda: vocabulary.mask_unproposable(logits),
        )
        index = tf.clip_by_value(position - lengths, 0, cap - 1)
        draw = tf.gather(draws, index, batch_dims=1)
        return choose_tokens(vocabulary, masked, sampling, draw)

    def body(position, tokens, stopped, text, cut, notes, cache):  # type: ignore[no-untyped-def]
        logits, _, cache = model.call_with_cache(
            column_of(tokens, position), cache, position
        )
        cache = tf.nest.map_structure(like, cache, prefilled)
        logits = tf.cast(logits[:, 0, :], tf.float32)
        top, normalizer = vocabulary.likeliest(logits)
        index, position = position - start, position + 1
        chosen = tf.cond(
            is_plain,
            lambda: top.ids[:, 0],
            lambda: choose(logits, tokens, position),
        )
        is_new = prompts.is_writing(position) & ~stopped
        is_end = chosen == vocabulary.end_id
        log_probability = tf.gather(logits, chosen, batch_dims=1) - normalizer
        notes = notes.put(index, _Step(log_probability, *top))
        text, cut = stops.grown(
            text,
            cut,
            lambda: tf.where(is_new & ~is_end, vocabulary.surface(chosen), ""),
        )
        stopped |= (is_new & is_end) | (cut != NO_CUT)
        column = tf.where(is_new, chosen, tf.gather(tokens, position, axis=1))
        tokens = with_column(tokens, position, column)
        return position, tokens, stopped, text, cut, notes, cache

    rows = tf.shape(lengths)
    shape = tf.concat([[prompts.steps], rows], axis=0)
    top_shape = tf.concat([shape, [vocabulary.alternatives]], axis=0)
    notes = _Step(tf.zeros(shape), tf.zeros(top_shape), tf.zeros(top_shape, tf.int32))
    prefilled = model.prefill(prompts.tokens, start)
    _, tokens, stopped, _, cut, notes, _ = tf.while_loop(
        lambda position, tokens, stopped, *_: tf.reduce_any(
            ~stopped & (position + 1 < prompts.limits)
        ),
        body,
        (
            start,
            prompts.tokens,
            tf.zeros(rows, tf.bool),
            tf.fill(rows, ""),
            tf.fill(rows, NO_CUT),
            notes,
            prefilled,
        ),
        parallel_iterations=1,
    )
    return _continuation(vocabulary, prompts, tokens, stopped, cut, notes)


def _continuation(
    vocabulary: Vocabulary,
    prompts: Prompts,
    tokens: tf.Tensor,
    stopped: tf.Tensor,
    cut: tf.Tensor,
    notes: _Step,
) -> Continuation:
    ids = prompts.new_ids(tokens)
    text, new_tokens = vocabulary.written(ids, prompts.limits - prompts.lengths, cut)
    most = tf.reduce_max(tf.concat([new_tokens, [0]], axis=0))
    column = tf.range(most)
    is_there = column < new_tokens[:, tf.newaxis]
    step = prompts.lengths[:, tf.newaxis] + column - prompts.start - 1
    step = tf.where(is_there, step, 0)
    row = tf.broadcast_to(tf.range(tf.size(new_tokens))[:, tf.newaxis], tf.shape(step))
    index = tf.stack([step, row], axis=-1)
    noted = [
        tf.where(
            is_there if all_.shape.rank == 2 else is_there[..., tf.newaxis],
            tf.gather_nd(all_, index),
            tf.zeros([], all_.dtype),
        )
        for all_ in notes
    ]
    return Continuation(
        text,
        new_tokens,
        stopped,
        tf.where(is_there, ids[:, :most], vocabulary.pad_id),
        noted[0],
        Alternatives(noted[1], noted[2]),
    )
