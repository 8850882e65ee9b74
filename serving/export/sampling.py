"""How the next token of each row is chosen from its logits."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .vocabulary import Vocabulary

# Sorting a whole vocabulary at every step costs more than a small model's own step, so
# tokens are drawn from so many of the likeliest.
MAX_CANDIDATES = 256
# Below this a temperature is as good as zero, and a division by it could overflow.
_MIN_TEMPERATURE = 1e-6
# No penalty moves a logit further, so that what may not be proposed stays below.
_MOST = 1e30
_PHILOX = 1
# The numbers that Philox draws at one value of its counter.
_PHILOX_BLOCK = 4


class Penalties(NamedTuple):
    """What lowers the logits of tokens that are there already; each field is `[b]`.

    `repetition` float32: a token of prompt or continuation has its logit divided by it
    if that is positive, else multiplied. 1, or what is not a positive finite number,
    means no change. `presence` float32: taken from the logit of every token of the
    continuation; `frequency` float32: for each time that it occurs there. 0, or what is
    not finite, means no change.

    References:
        - [Keskar et al., 2019](https://arxiv.org/abs/1909.05858), as Hugging Face's
          `RepetitionPenaltyLogitsProcessor` does it
        - [OpenAI's formula](https://platform.openai.com/docs/api-reference) of presence
          and frequency penalties
    """

    repetition: tf.Tensor
    presence: tf.Tensor
    frequency: tf.Tensor

    def sane(self) -> Penalties:
        """Without the values that mean nothing."""
        is_factor = tf.math.is_finite(self.repetition) & (self.repetition > 0)
        return Penalties(
            tf.where(is_factor, self.repetition, 1.0),
            tf.where(tf.math.is_finite(self.presence), self.presence, 0.0),
            tf.where(tf.math.is_finite(self.frequency), self.frequency, 0.0),
        )

    def is_any(self) -> tf.Tensor:
        """Whether a row has one, bool scalar."""
        return tf.reduce_any(
            (self.repetition != 1) | (self.presence != 0) | (self.frequency != 0)
        )

    def apply(
        self,
        logits: tf.Tensor,
        tokens: tf.Tensor,
        is_text: tf.Tensor,
        is_new: tf.Tensor,
    ) -> tf.Tensor:
        """The logits float32 `[b, vocabulary]`, lowered.

        Args:
            logits: float32 `[b, vocabulary]`.
            tokens: int32 `[b, w]`.
            is_text: bool `[b, w]`. Which tokens are of prompt or continuation.
            is_new: bool `[b, w]`. Which are of the continuation.
        """
        size = tf.shape(logits)
        seen, new = (_counts(tokens, where, size) for where in (is_text, is_new))
        factor = self.repetition[:, tf.newaxis]
        repeated = tf.where(logits > 0, logits / factor, logits * factor)
        logits = tf.where(seen > 0, repeated, logits)
        presence = self.presence[:, tf.newaxis] * tf.cast(new > 0, tf.float32)
        logits -= presence + self.frequency[:, tf.newaxis] * new
        return tf.clip_by_value(logits, -_MOST, _MOST)


class Sampling(NamedTuple):
    """How each row draws its tokens; every field has shape `[b]`.

    `temperature` float32: 0 or less (or not a number) means the likeliest token.
    `top_k` int32: draw from the k likeliest; 0 or less means all candidates.
    `top_p` float32: draw from the fewest tokens whose probabilities, after temperature
    and `top_k`, sum to at least p; 1 or more (or not a number) means all candidates.
    `seed` int32: a row's text depends on its seed and its prompt, and on nothing else.
    `seed_offset` int32: how many numbers of the seed's sequence earlier requests used.
    """

    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    seed: tf.Tensor
    seed_offset: tf.Tensor


def choose_tokens(
    vocabulary: Vocabulary, logits: tf.Tensor, sampling: Sampling, draw: tf.Tensor
) -> tf.Tensor:
    """One token a row, by inverting the candidates' cumulative distribution.

    Args:
        vocabulary: says how many tokens may be chosen.
        logits: float32 `[b, vocabulary]`, masked by `vocabulary`.
        sampling: how each row chooses.
        draw: float32 `[b]`, uniform in [0, 1).

    Returns:
        int32 `[b]`.
    """
    count = min(MAX_CANDIDATES, sum(vocabulary.proposable))
    values, candidates = tf.math.top_k(logits, count)
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


def uniform_draws(seed: tf.Tensor, offset: tf.Tensor, count: int) -> tf.Tensor:
    """float32 `[b, count]` in [0, 1); a row depends on its seed and offset alone.

    Number `offset + i` of the sequence of a seed, which is that of
    `tf.random.stateless_uniform` with Philox and the seed `(seed, 0)`.
    """
    offset = tf.cast(tf.maximum(offset, 0), tf.int64)

    def row(seed_and_offset: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        seed, offset = seed_and_offset
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.stack([seed, 0]))
        blocks = tf.cast(offset // _PHILOX_BLOCK, tf.uint64)
        # A named algorithm, because the default one depends on the device.
        numbers = tf.raw_ops.StatelessRandomUniformV2(
            shape=[count + _PHILOX_BLOCK - 1],
            key=key,
            counter=counter + tf.stack([blocks, tf.zeros_like(blocks)]),
            alg=_PHILOX,
        )
        first = tf.cast(offset % _PHILOX_BLOCK, tf.int32)
        return tf.ensure_shape(numbers[first : first + count], [count])

    return tf.map_fn(
        row,
        (seed, offset),
        fn_output_signature=tf.TensorSpec([count], tf.float32),
    )


def _counts(tokens: tf.Tensor, counted: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """How often each token occurs in each row, float32 `[b, vocabulary]`."""
    rows = tf.broadcast_to(tf.range(size[0])[:, tf.newaxis], tf.shape(tokens))
    index = tf.stack([rows, tokens], axis=-1)
    return tf.scatter_nd(index, tf.cast(counted, tf.float32), size)
