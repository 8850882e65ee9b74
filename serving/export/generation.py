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
    alternatives: tf.Tensor,
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
        alternatives: int32 scalar, from 1 to the vocabulary's `most_alternatives`. How
            many likely tokens are told in each token's place.
        cap: int. No row has a limit above it.
    """
    penalties = penalties.sane()
    is_penalized = penalties.is_any()
    loop = _Loop(
        model,
        vocabulary,
        prompts,
        sampling,
        penalties,
        stops,
        alternatives,
        draws=uniform_draws(sampling.seed, sampling.seed_offset, cap),
        is_penalized=is_penalized,
        is_plain=~is_penalized & ~tf.reduce_any(sampling.temperature > 0),
        prefilled=model.prefill(prompts.tokens, prompts.start),
    )
    return _continuation(vocabulary, prompts, *loop.run())


class _State(NamedTuple):
    """What the loop carries from turn to turn.

    `tokens` int32 `[b, w]`; `stopped` bool, `text` string and `cut` int32, all `[b]`;
    `notes` of every turn, and the model's cache.
    """

    tokens: tf.Tensor
    stopped: tf.Tensor
    text: tf.Tensor
    cut: tf.Tensor
    notes: _Step
    cache: Any


class _Loop(NamedTuple):
    """The loop of `generate`, and what does not change in it.

    `draws` float32 `[b, cap]`; whether a row is penalized, or none draws, bool scalars.
    """

    model: Any
    vocabulary: Vocabulary
    prompts: Prompts
    sampling: Sampling
    penalties: Penalties
    stops: StopStrings
    alternatives: tf.Tensor
    draws: tf.Tensor
    is_penalized: tf.Tensor
    is_plain: tf.Tensor
    prefilled: Any

    def run(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, _Step]:
        """Tokens, which rows stopped, where their texts are cut, and the notes."""
        prompts = self.prompts
        rows = tf.shape(prompts.lengths)
        shape = tf.concat([[prompts.steps], rows], axis=0)
        top = tf.concat([shape, [self.alternatives]], axis=0)
        state = _State(
            prompts.tokens,
            stopped=tf.zeros(rows, tf.bool),
            text=tf.fill(rows, ""),
            cut=tf.fill(rows, NO_CUT),
            notes=_Step(tf.zeros(shape), tf.zeros(top), tf.zeros(top, tf.int32)),
            cache=self.prefilled,
        )
        _, state = tf.while_loop(
            lambda position, state: tf.reduce_any(
                ~state.stopped & (position + 1 < prompts.limits)
            ),
            self._turn,
            (prompts.start, state),
            parallel_iterations=1,
        )
        return state.tokens, state.stopped, state.cut, state.notes

    def _turn(self, position: tf.Tensor, state: _State) -> tuple[tf.Tensor, _State]:
        vocabulary, prompts, tokens = self.vocabulary, self.prompts, state.tokens
        logits, _, cache = self.model.call_with_cache(
            column_of(tokens, position), state.cache, position
        )
        logits = tf.cast(logits[:, 0, :], tf.float32)  # (b, vocabulary)
        top, normalizer = vocabulary.likeliest(logits, self.alternatives)
        index, position = position - prompts.start, position + 1
        chosen = tf.cond(
            self.is_plain,
            lambda: top.ids[:, 0],
            lambda: self._choose(logits, tokens, position),
        )
        is_new = prompts.is_writing(position) & ~state.stopped
        is_end = chosen == vocabulary.end_id
        log_probability = tf.gather(logits, chosen, batch_dims=1) - normalizer
        text, cut = self.stops.grown(
            state.text,
            state.cut,
            lambda: tf.where(is_new & ~is_end, vocabulary.surface(chosen), ""),
        )
        column = tf.where(is_new, chosen, tf.gather(tokens, position, axis=1))
        return position, _State(
            with_column(tokens, position, column),
            stopped=state.stopped | (is_new & is_end) | (cut != NO_CUT),
            text=text,
            cut=cut,
            notes=state.notes.put(index, _Step(log_probability, *top)),
            cache=tf.nest.map_structure(like, cache, self.prefilled),
        )

    def _choose(
        self, logits: tf.Tensor, tokens: tf.Tensor, position: tf.Tensor
    ) -> tf.Tensor:
        """A token for each row, int32 `[b]`."""
        masked = tf.cond(
            self.is_penalized,
            lambda: self._penalized(logits, tokens, position),
            lambda: self.vocabulary.mask_unproposable(logits),
        )
        most = self.draws.shape[1] - 1
        index = tf.clip_by_value(position - self.prompts.lengths, 0, most)
        draw = tf.gather(self.draws, index, batch_dims=1)  # (b,)
        return choose_tokens(self.vocabulary, masked, self.sampling, draw)

    def _penalized(
        self, logits: tf.Tensor, tokens: tf.Tensor, end: tf.Tensor
    ) -> tf.Tensor:
        column = tf.range(tf.shape(tokens)[1])
        # What earlier requests drew of this continuation ends the prompt.
        earlier = tf.maximum(self.sampling.seed_offset, 0)
        first = self.prompts.lengths - earlier
        is_text = (column < end) & (tokens != self.vocabulary.start_id)  # (b, w)
        is_new = is_text & (column >= first[:, tf.newaxis])
        logits = self.penalties.apply(logits, tokens, is_text, is_new)
        return self.vocabulary.mask_unproposable(logits)


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
