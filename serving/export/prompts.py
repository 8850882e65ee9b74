"""A batch of prompts of unequal length, with room for what is written after them.

All rows of a batch share one position. Prompts are padded on the right; a loop starts
at the end of the shortest, and a row whose prompt goes on is fed its own tokens until
its prompt ends, as in KerasHub.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .vocabulary import Vocabulary, last_tokens


class Prompts(NamedTuple):
    """Prompts as a generating loop needs them.

    `tokens` int32 `[b, w]`: the prompts, padded. `lengths` int32 `[b]`: where each
    row's new tokens begin. `limits` int32 `[b]`: where they end at the latest. `start`
    int32 scalar: the position that the loop reads first. `read` int32 `[b]`: how many
    tokens were kept of each prompt, `<s>` before a text not counted.
    """

    tokens: tf.Tensor
    lengths: tf.Tensor
    limits: tf.Tensor
    start: tf.Tensor
    read: tf.Tensor

    @classmethod
    def of(
        cls,
        vocabulary: Vocabulary,
        text: tf.Tensor,
        ids: tf.Tensor,
        max_new_tokens: tf.Tensor,
        *,
        context_length: int,
        cap: int,
    ) -> Prompts:
        """Reads texts; each keeps the last tokens that leave room in the context.

        Args:
            vocabulary: of the model's tokenizer.
            text: string `[b]`.
            ids: string `[b]`, in decimal; where there are any, in place of the text.
            max_new_tokens: int32 `[b]`, clipped to [0, cap].
            context_length: of the model; more than `cap`.
            cap: the most tokens that a row may get.
        """
        max_new_tokens = tf.clip_by_value(max_new_tokens, 0, cap)
        sequences = vocabulary.prompts(text, ids)
        prompts = last_tokens(sequences, context_length - max_new_tokens)
        limits = tf.cast(prompts.row_lengths(), tf.int32) + max_new_tokens
        return cls.until(limits, vocabulary, prompts, vocabulary.said(sequences, ids))

    @classmethod
    def until(
        cls,
        limits: tf.Tensor,
        vocabulary: Vocabulary,
        prompts: tf.RaggedTensor,
        said: tf.Tensor,
    ) -> Prompts:
        """Takes ids as they are.

        Args:
            limits: see above.
            vocabulary: of the model's tokenizer.
            prompts: int32 `[b, (t)]`, each with an id at least and none too long.
            said: int32 `[b]`. How many tokens they are, if none was left out.
        """
        lengths = tf.cast(prompts.row_lengths(), tf.int32)
        # The 1 stands in for the lengths of an empty batch.
        width = tf.reduce_max(tf.concat([limits, [1]], axis=0))
        start = tf.reduce_min(tf.concat([lengths, [width]], axis=0)) - 1
        tokens = prompts.to_tensor(vocabulary.pad_id)
        room = [[0, 0], [0, width - tf.shape(tokens)[1]]]
        tokens = tf.pad(tokens, room, constant_values=vocabulary.pad_id)
        return cls(tokens, lengths, limits, start, tf.minimum(said, lengths))

    @property
    def steps(self) -> tf.Tensor:
        """The most turns of the loop, int32 scalar."""
        return tf.shape(self.tokens)[1] - 1 - self.start

    def is_writing(self, position: tf.Tensor) -> tf.Tensor:
        """Which rows have a new token at a position, bool `[b]`."""
        return (position >= self.lengths) & (position < self.limits)

    def new_ids(self, tokens: tf.Tensor) -> tf.Tensor:
        """What stands in `[b, ..., w]` behind the prompts: `[b, ..., most]`.

        Rows with less room repeat their last column.
        """
        most = tf.reduce_max(tf.concat([self.limits - self.lengths, [0]], axis=0))
        column = self.lengths[:, tf.newaxis] + tf.range(most)
        column = tf.minimum(column, tf.shape(tokens)[-1] - 1)
        if tokens.shape.rank == 3:
            beams = tf.shape(tokens)[1]
            column = tf.repeat(column[:, tf.newaxis], beams, axis=1)
        return tf.gather(tokens, column, axis=-1, batch_dims=tokens.shape.rank - 1)


def with_column(tokens: tf.Tensor, position: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    """`tokens` `[..., w]` with `column` `[...]` at `position`."""
    here = tf.range(tf.shape(tokens)[-1]) == position
    return tf.where(here, column[..., tf.newaxis], tokens)


def column_of(tokens: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Column `position` of `[r, w]`, int32 `[r, 1]`, the 1 known to the graph."""
    return tf.gather(tokens, position, axis=1)[:, tf.newaxis]


def like(tensor: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """`tensor` with the static shape of `other`.

    A loop wants static shapes that stay, and Keras's ops lose some.
    """
    return tf.ensure_shape(tensor, other.shape)
