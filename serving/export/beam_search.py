"""Beam search inside a graph: the likeliest continuations of each prompt, with a cache.

Each row has up to `MAX_BEAMS` beams. A step scores every token after each open beam,
and keeps the best of these and of the beams that have ended, as many as the row asked
for. A score is the sum of log-probabilities over length ** length penalty, so that
beams of unequal length compete as they are ranked in the end. A beam ends at `</s>`, at
a stop string or at the row's limit. With one beam this is greedy generation.

References:
    - [Wu et al., 2016](https://arxiv.org/abs/1609.08144), section 7, for the score
      (with the length itself, as Hugging Face has it)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from .contract import MAX_BEAMS
from .prompts import Prompts, column_of, like, with_column
from .stop_strings import NO_CUT, StopStrings
from .vocabulary import Vocabulary

# Beyond, a power of the length leaves the range of floats.
_MAX_LENGTH_PENALTY = 8.0
_NEVER = float("-inf")


class Beams(NamedTuple):
    """What was found, best first; every field has shape `[b, MAX_BEAMS]`.

    `text` string, valid UTF-8. `log_probability` float32: the sum over the tokens, in
    nats, `</s>` and those of a stop string among them. `score` float32: that over
    their number ** length penalty. `new_tokens` int32: tokens that the text has a part
    of. `stopped` bool: by `</s>` or a stop string? Where there are fewer beams, these
    two numbers are -inf and the text is empty.
    """

    text: tf.Tensor
    log_probability: tf.Tensor
    score: tf.Tensor
    new_tokens: tf.Tensor
    stopped: tf.Tensor


class _Search(NamedTuple):
    """The beams while they grow: tokens `[b, k, w]`, all else `[b, k]`."""

    tokens: tf.Tensor
    log_probability: tf.Tensor
    length: tf.Tensor
    is_open: tf.Tensor
    text: tf.Tensor
    cut: tf.Tensor

    def picked(self, parent: tf.Tensor) -> _Search:
        """The beams of the indexes int32 `[b, k]`."""
        return _Search(*(tf.gather(field, parent, batch_dims=1) for field in self))


def beam_search(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Prompts,
    num_beams: tf.Tensor,
    length_penalty: tf.Tensor,
    stops: StopStrings,
) -> Beams:
    """Searches the likeliest continuations of each prompt.

    Args:
        model: a `CausalLM` with `prefill` and `call_with_cache`.
        vocabulary: of the model's tokenizer.
        prompts: `b` of them.
        num_beams: int32 `[b]`, clipped to [1, `MAX_BEAMS`].
        length_penalty: float32 `[b]`. 0 ranks by probability alone; larger values
            favour longer texts. Clipped to [-8, 8]; 1 where it is not a number.
        stops: of all beams of all rows, `[b * MAX_BEAMS, s]`: see `for_beams`.
    """
    is_number = ~tf.math.is_nan(length_penalty)
    power = tf.where(is_number, length_penalty, 1.0)[:, tf.newaxis]
    power = tf.clip_by_value(power, -_MAX_LENGTH_PENALTY, _MAX_LENGTH_PENALTY)
    is_wanted = tf.range(MAX_BEAMS) < tf.maximum(num_beams, 1)[:, tf.newaxis]
    first = tf.nest.map_structure(
        lambda tensor: tf.repeat(tensor, MAX_BEAMS, axis=0),
        model.prefill(prompts.tokens, prompts.start),
    )
    loop = _Loop(model, vocabulary, prompts, power, is_wanted, stops, first)
    search = loop.run()
    room = (prompts.limits - prompts.lengths)[:, tf.newaxis]
    text, new_tokens = vocabulary.written(
        prompts.new_ids(search.tokens), room, search.cut
    )
    is_there = search.log_probability > _NEVER
    return Beams(
        text=tf.where(is_there, text, ""),
        log_probability=search.log_probability,
        score=search.log_probability / loop.weight(search.length),
        new_tokens=tf.where(is_there, new_tokens, 0),
        stopped=is_there & ~search.is_open,
    )


class _Loop(NamedTuple):
    """The loop of `beam_search`, and what does not change in it.

    `power` float32 `[b, 1]`, of the length; `is_wanted` bool `[b, k]`; the `first`
    cache, of prompts alone.
    """

    model: Any
    vocabulary: Vocabulary
    prompts: Prompts
    power: tf.Tensor
    is_wanted: tf.Tensor
    stops: StopStrings
    first: Any

    def weight(self, length: tf.Tensor) -> tf.Tensor:
        """What sums of so many log-probabilities are divided by, float32 `[b, k]`."""
        return tf.cast(tf.maximum(length, 1), tf.float32) ** self.power

    def run(self) -> _Search:
        """The beams when all have ended."""
        limits = self.prompts.limits[:, tf.newaxis]
        _, search, _ = tf.while_loop(
            lambda position, search, *_: tf.reduce_any(
                search.is_open & (position + 1 < limits)
            ),
            self._turn,
            (self.prompts.start, _begin(self.prompts), self.first),
            parallel_iterations=1,
        )
        return search

    def _turn(
        self, position: tf.Tensor, search: _Search, cache: Any
    ) -> tuple[tf.Tensor, _Search, Any]:
        vocabulary, prompts = self.vocabulary, self.prompts
        rows = tf.size(prompts.lengths)
        column = column_of(for_model(search.tokens), position)
        logits, _, cache = self.model.call_with_cache(column, cache, position)
        position += 1
        following, ids = _likeliest(vocabulary, logits, rows)  # (b, k, m)
        grows = search.is_open & prompts.is_writing(position)[:, tf.newaxis]  # (b, k)
        length = search.length + tf.cast(grows, tf.int32)
        parent, rank, total = _best(search, following, grows, self.weight(length))
        search = search._replace(length=length).picked(parent)
        grew = tf.gather(grows, parent, batch_dims=1)
        ids = tf.gather(ids, parent, batch_dims=1)
        ids = tf.gather(ids, rank, batch_dims=2)  # (b, k)
        total = tf.where(self.is_wanted, total, _NEVER)
        is_end = grew & (ids == vocabulary.end_id)
        text, cut = self.stops.grown(
            search.text,
            search.cut,
            lambda: tf.where(grew & ~is_end, vocabulary.surface(ids), ""),
        )
        kept = tf.gather(search.tokens, position, axis=2)
        search = _Search(
            with_column(search.tokens, position, tf.where(grew, ids, kept)),
            total,
            search.length,
            search.is_open & ~is_end & (cut == NO_CUT) & (total > _NEVER),
            text,
            cut,
        )
        row = tf.range(rows)[:, tf.newaxis] * MAX_BEAMS
        origin = tf.reshape(row + parent, [-1])  # (b k,)
        cache = tf.nest.map_structure(
            lambda new, old: like(tf.gather(new, origin), old), cache, self.first
        )
        return position, search, cache


def for_model(tensor: tf.Tensor) -> tf.Tensor:
    """`[b, k, n]` as `[b k, n]`, the rows that a model sees."""
    shape = tf.shape(tensor)
    return tf.reshape(tensor, [shape[0] * shape[1], shape[2]])


def for_beams(stop: tf.Tensor) -> StopStrings:
    """The stop strings `[b, s]` of rows, as those of their beams."""
    return StopStrings(tf.repeat(stop, MAX_BEAMS, axis=0))


def _begin(prompts: Prompts) -> _Search:
    """One beam a row: the prompt."""
    tokens = tf.repeat(prompts.tokens[:, tf.newaxis], MAX_BEAMS, axis=1)
    shape = tf.stack([tf.size(prompts.lengths), MAX_BEAMS])
    is_first = tf.broadcast_to(tf.range(MAX_BEAMS) == 0, shape)
    return _Search(
        tokens,
        tf.where(is_first, 0.0, _NEVER),
        tf.zeros(shape, tf.int32),
        is_first,
        tf.fill(shape, ""),
        tf.fill(shape, NO_CUT),
    )


def _likeliest(
    vocabulary: Vocabulary, logits: tf.Tensor, rows: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Log-probabilities and ids `[b, k, m]` of the m likeliest tokens after each beam.

    As many as there are beams: no more of one beam can be among the best of all.
    """
    count = min(MAX_BEAMS, sum(vocabulary.proposable))
    top, _ = vocabulary.likeliest(tf.cast(logits[:, 0, :], tf.float32), count)
    shape = [rows, MAX_BEAMS, count]
    return tf.reshape(top.log_probability, shape), tf.reshape(top.ids, shape)


def _best(
    search: _Search, following: tf.Tensor, grows: tf.Tensor, weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best of all beams that grow by a token, and of the others as they are.

    Best by log-probability over `weight`, float32 `[b, k]`.

    Returns:
        For each place, all `[b, k]`: the beam, which of its tokens, and the sum of
        log-probabilities.
    """
    count = following.shape[-1]
    total = search.log_probability[..., tf.newaxis]
    stays = tf.where(tf.range(count) == 0, total, _NEVER)
    total = tf.where(grows[..., tf.newaxis], total + following, stays)
    flat = [tf.shape(total)[0], MAX_BEAMS * count]
    scores = tf.reshape(total / weight[..., tf.newaxis], flat)
    _, index = tf.math.top_k(scores, MAX_BEAMS)
    total = tf.gather(tf.reshape(total, flat), index, batch_dims=1)
    return index // count, index % count, total
