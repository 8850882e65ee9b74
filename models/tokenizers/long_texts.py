"""Long texts in pieces, so that what is made of one at a time stays small."""

from __future__ import annotations

import tensorflow as tf

from .base import LastingOp, Tensor

PIECE_BYTES = 1 << 16
"""From this size on a text is cut, at the next end of a line."""


def cut_at_lines(texts: Tensor) -> tf.RaggedTensor:
    r"""Cuts texts behind ends of lines, `"\n"`.

    Args:
        texts: string `(n,)`.

    Returns:
        The pieces, string `(n, None)`, that joined are the texts. All of a text but its
        last have about `PIECE_BYTES`, or a line of more.
    """
    lines = tf.strings.split(texts, "\n")
    rows = lines.value_rowids()
    is_last = tf.not_equal(rows, tf.concat([rows[1:], [-1]], 0))
    values = tf.strings.join([lines.values, tf.where(is_last, "", "\n")])
    begins = tf.cumsum(tf.cast(tf.strings.length(values), tf.int64), exclusive=True)
    starts = begins - tf.gather(begins, tf.gather(lines.row_splits, rows))
    # A line begins a piece where it is the first of its text to reach another multiple.
    places = tf.stack([rows, starts // PIECE_BYTES], 1)
    begins_piece = tf.reduce_any(places != tf.concat([[[-1, 0]], places[:-1]], 0), 1)
    rows = tf.boolean_mask(rows, begins_piece)
    pieces = tf.strings.unsorted_segment_join(
        values, tf.cumsum(tf.cast(begins_piece, tf.int64)) - 1, tf.size(rows, tf.int64)
    )
    return tf.RaggedTensor.from_value_rowids(
        pieces, rows, lines.nrows(), validate=False
    )


class LineByLineOp(LastingOp):
    r"""A TF Text tokenizer of which no token goes on behind the end of a line.

    It takes texts in pieces: SentencePiece holds 150 bytes for each that it cuts.
    """

    def tokenize(self, inputs: Tensor) -> tf.RaggedTensor:
        if inputs.shape.rank != 1:
            return super().tokenize(inputs)
        pieces = cut_at_lines(inputs)
        return _of_texts(pieces, super().tokenize(pieces.values))

    def tokenize_with_offsets(
        self, inputs: Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Offsets are those in a piece."""
        pieces = cut_at_lines(inputs)
        found = super().tokenize_with_offsets(pieces.values)
        ids, starts, ends = (_of_texts(pieces, of_pieces) for of_pieces in found)
        return ids, starts, ends


def _of_texts(pieces: tf.RaggedTensor, tokens: tf.RaggedTensor) -> tf.RaggedTensor:
    """What is in texts, `(n, None)`, from what is in their pieces, `(pieces, None)`."""
    return tf.RaggedTensor.from_row_splits(
        tokens.values, tf.gather(tokens.row_splits, pieces.row_splits), validate=False
    )
