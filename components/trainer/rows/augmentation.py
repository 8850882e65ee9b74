"""Augmentation: noise on what a model reads in training, not on what it predicts."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ...errors import InputError
from .windows import TokenStream


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Which input tokens are hidden from the model: `<unk>` is read in their place.

    Never `<s>`, `</s>` and padding, never a target, never in evaluation or export. Each
    step draws anew. With both kinds a token is hidden if either hides it.

    Attributes:
        token_dropout: Share of the input tokens hidden one by one (blank noising).
        span_masking: Share of the input tokens hidden in spans.
        span_length: Tokens in a span. Spans may overlap, and then make a longer one.

    References:
        - [Bowman et al., 2015](https://arxiv.org/abs/1511.06349) (word dropout)
        - [Xie et al., 2017](https://arxiv.org/abs/1703.02573) (blank noising)
        - [Joshi et al., 2019](https://arxiv.org/abs/1907.10529) (spans; there of
          lengths drawn from a geometric distribution, 3.8 tokens on average)
    """

    token_dropout: float = 0.0
    span_masking: float = 0.0
    span_length: int = 3

    def __bool__(self) -> bool:
        return self.token_dropout > 0 or self.span_masking > 0

    def hidden(self, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws which places of an array `[b, t]` are hidden.

        Args:
            shape: int32 `[2]`, b and t.
            seed: int64 `[2]`; it decides the draw.

        Returns:
            bool `[b, t]`.
        """
        seeds = tf.random.split(seed, 2)
        alone = tf.random.stateless_uniform(shape, seeds[0]) < self.token_dropout
        # A place is in as many spans as can begin at it or just before it, each with
        # the same probability; of none it is with that of `1 - span_masking`.
        length = self.span_length
        rate = 1 - (1 - self.span_masking) ** (1 / length)
        wider = (shape[0], shape[1] + length - 1)
        begins = tf.random.stateless_uniform(wider, seeds[1]) < rate
        begun = tf.cumsum(tf.cast(begins, tf.int32), axis=1)
        begun = tf.pad(begun, [[0, 0], [1, 0]])
        return alone | (begun[:, length:] > begun[:, :-length])


NO_AUGMENTATION = Augmentation()


def augmented(
    batches: tf.data.Dataset,
    stream: TokenStream,
    augmentation: Augmentation,
    *,
    seed: int,
    first_step: int,
) -> tf.data.Dataset:
    """Hides input tokens of batches; which of a step's is decided by seed and step.

    Args:
        batches: Of `stream`, from `first_step` on.
        stream: It knows the special tokens.
        augmentation: What to hide.
        seed: Of the noise.
        first_step: Step of the first batch.

    Raises:
        InputError: If something shall be hidden and the tokenizer has no token for it.
    """
    if not augmentation:
        return batches
    if stream.unk_id in (None, stream.start_id, stream.end_id):
        raise InputError(
            "trainer.augmentation needs a tokenizer with an <unk> token of its own: "
            "set token_dropout and span_masking to 0, or take another tokenizer.type"
        )

    def hide(
        step: tf.Tensor, batch: tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        features, targets, weights = batch
        ids = features["token_ids"]
        draw = tf.stack([tf.constant(seed, tf.int64), step])
        hidden = augmentation.hidden(tf.shape(ids), draw)
        hidden &= features["padding_mask"]
        hidden &= (ids != stream.start_id) & (ids != stream.end_id)
        noisy = tf.where(hidden, tf.constant(stream.unk_id, ids.dtype), ids)
        return {**features, "token_ids": noisy}, targets, weights

    return batches.enumerate(first_step).map(hide).prefetch(tf.data.AUTOTUNE)
