"""Scores with a cache over the text so far, in a graph or not, in bounded memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from ..in_order import Reading, has_hidden_states, map_in_order
from ..results import PerToken
from .settings import LARGEST_CACHE, NeuralCache

_EMPTY = -1  # no token's id


class CacheInputs(NamedTuple):
    """Those of `NeuralCache`, one a document, each `[b]`: int32, float32, float32."""

    size: tf.Tensor
    theta: tf.Tensor
    weight: tf.Tensor

    @classmethod
    def of(cls, settings: NeuralCache, rows: tf.Tensor) -> CacheInputs:
        """The same for all documents."""
        values = (settings.size, settings.theta, settings.weight)
        return cls(*(tf.fill([rows], value) for value in values))

    def sensible(self) -> CacheInputs:
        """The same, where what means nothing, such as NaN, is 0."""
        is_theta = (self.theta >= 0) & (self.theta < float("inf"))
        is_weight = (self.weight >= 0) & (self.weight < 1)
        return CacheInputs(
            size=tf.clip_by_value(self.size, 0, LARGEST_CACHE),
            theta=tf.where(is_theta, self.theta, 0.0),
            weight=tf.where(is_weight, self.weight, 0.0),
        )


class _Memory(NamedTuple):
    """The cache of some documents, the newest last.

    `keys` float32 `[c, s, d]`, of length 1, are the hidden states; `tokens` int32
    `[c, s]` are what followed each.
    """

    keys: tf.Tensor
    tokens: tf.Tensor

    def with_more(self, keys: tf.Tensor, tokens: tf.Tensor) -> _Memory:
        return _Memory(
            tf.concat([self.keys, keys], axis=1),
            tf.concat([self.tokens, tokens], axis=1),
        )

    def last(self, slots: tf.Tensor) -> _Memory:
        first = tf.shape(self.tokens)[1] - slots
        return _Memory(self.keys[:, first:], self.tokens[:, first:])


def cached_log_probabilities(
    model: Any, documents: tf.RaggedTensor, cache: CacheInputs, *, stride: int
) -> tf.RaggedTensor:
    """As `token_log_probabilities`, of the model's distribution and the cache's.

    Of token i they say (1 - weight) p(i) + weight c(i), where c is the softmax, over
    the last `size` tokens before it, of theta times the cosine of the hidden state that
    predicted the token and the one that predicts i, added up over those tokens that are
    i. The first token of a document has no cache.

    Args:
        model: a `CausalLM`.
        documents: int32 `[b, (t + 1)]`, each row at least 2 long: `<s> ... </s>`.
        cache: settings of each document.
        stride: as of `token_log_probabilities`.

    Returns:
        float32 `[b, (t)]`.
    """
    cache = cache.sensible()
    # Of no document it would be the lowest number there is.
    largest = tf.cast(tf.maximum(tf.reduce_max(cache.size), 0), tf.int64)
    by_likeness = has_hidden_states(model)
    width = model.backbone.hidden_dim if by_likeness else 1

    def empty(rows: tf.Tensor, longest: tf.Tensor) -> _Memory:
        slots = tf.cast(tf.clip_by_value(longest, 0, largest), tf.int32)
        return _Memory(tf.zeros([rows, slots, width]), tf.fill([rows, slots], _EMPTY))

    def score(
        reading: Reading, memory: _Memory
    ) -> tuple[tuple[tf.Tensor, ...], _Memory]:
        targets = reading.following  # [c, n]
        own = -tf.nn.sparse_softmax_cross_entropy_with_logits(targets, reading.logits)
        states = tf.cast(reading.hidden_states, tf.float32)  # [c, n, d]
        keys = tf.ones_like(states[..., :1])
        if by_likeness:
            keys = tf.math.l2_normalize(states, axis=-1)
        known = memory.with_more(keys, targets)
        settings = CacheInputs(*(tf.gather(part, reading.rows) for part in cache))
        slots = tf.shape(memory.tokens)[1]
        mixed = _mixed(own, keys, known, targets, slots, settings)
        return (mixed,), known.last(slots)

    into = PerToken(tf.TensorSpec([None], tf.float32))
    (scores,) = map_in_order(model, documents, score, into, stride=stride, memory=empty)
    return scores


def _mixed(
    own: tf.Tensor,
    keys: tf.Tensor,
    known: _Memory,
    targets: tf.Tensor,
    slots: tf.Tensor,
    settings: CacheInputs,
) -> tf.Tensor:
    """The logarithm of both distributions' mixture at the targets, `[c, n]`."""
    place = tf.range(tf.shape(known.tokens)[1])  # [s + n]
    query = (slots + tf.range(tf.shape(targets)[1]))[:, tf.newaxis]  # [n, 1]
    size = settings.size[:, tf.newaxis, tf.newaxis]  # [c, 1, 1]
    # A token is in the cache once it is scored.
    is_held = (place < query) & (place >= query - size)  # [c, n, s + n]
    is_held &= known.tokens[:, tf.newaxis] != _EMPTY
    likeness = tf.matmul(keys, known.keys, transpose_b=True)  # [c, n, s + n]
    scaled = likeness * settings.theta[:, tf.newaxis, tf.newaxis]
    counts = tf.nn.softmax(tf.where(is_held, scaled, scaled.dtype.min))
    is_target = known.tokens[:, tf.newaxis] == targets[..., tf.newaxis]
    share = tf.reduce_sum(tf.where(is_held & is_target, counts, 0.0), axis=-1)
    has_some = tf.reduce_any(is_held, axis=-1)
    weight = tf.where(has_some, settings.weight[:, tf.newaxis], 0.0)  # [c, n]
    parts = [own + tf.math.log1p(-weight), tf.math.log(weight * share)]
    return tf.reduce_logsumexp(tf.stack(parts), axis=0)
