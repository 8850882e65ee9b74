"""Stop strings: where the bytes of a growing text end before one."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

NO_CUT = -1


class StopStrings:
    """The stop strings of each row, and the search for them.

    A text ends where its first stop string is complete, and is cut before it; of those
    that are complete at the same byte, the longest counts. So the cut is the same
    however the text's bytes come in pieces.

    Args:
        strings: string `[b, s]`, any bytes; empty strings are none.
    """

    def __init__(self, strings: tf.Tensor) -> None:
        self._strings = strings
        self._lengths = tf.strings.length(strings)
        self._is_any = tf.reduce_any(self._lengths > 0)

    def grown(
        self, text: tf.Tensor, cut: tf.Tensor, piece: Callable[[], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Texts with a piece more, and where each is cut.

        Where there is no stop string at all, this costs nothing and nothing changes.

        Args:
            text: string; any shape, with one text for each of the `b` rows.
            cut: int32, as `text`: bytes before its stop string, or `NO_CUT`.
            piece: gives what comes after each text, string, as `text`.
        """

        def longer() -> tuple[tf.Tensor, tf.Tensor]:
            new = piece()
            found = self._cut(tf.reshape(text, [-1]), tf.reshape(new, [-1]))
            found = tf.reshape(found, tf.shape(cut))
            return tf.strings.join([text, new]), tf.where(cut == NO_CUT, found, cut)

        return tf.cond(self._is_any, longer, lambda: (text, cut))

    def _cut(self, text: tf.Tensor, piece: tf.Tensor) -> tf.Tensor:
        """Where texts end by a stop string that a piece of each row completes.

        Args:
            text: string `[b]`, which holds no stop string.
            piece: string `[b]`, what comes after it.

        Returns:
            int32 `[b]`: bytes of text and piece before the stop string, or `NO_CUT`.
        """
        before, added = tf.strings.length(text), tf.strings.length(piece)
        step = 1 + tf.range(tf.reduce_max(added))
        end = (before[:, tf.newaxis] + step)[:, :, tf.newaxis]  # (b, m, 1)
        begin = end - self._lengths[:, tf.newaxis, :]  # (b, m, s)
        is_inside = (step <= added[:, tf.newaxis])[:, :, tf.newaxis]
        is_possible = is_inside & (begin >= 0) & (begin < end)
        whole = tf.strings.join([text, piece])
        parts = tf.strings.substr(
            whole[:, tf.newaxis],
            _flat(tf.where(is_possible, begin, 0)),
            _flat(tf.where(is_possible, end - begin, 0)),
        )
        parts = tf.reshape(parts, tf.shape(begin))
        is_found = is_possible & (parts == self._strings[:, tf.newaxis, :])
        none = tf.int32.max
        first = tf.reduce_min(tf.where(is_found, end, none), [1, 2], keepdims=True)
        cut = tf.reduce_min(tf.where(is_found & (end == first), begin, none), [1, 2])
        return tf.where(cut == none, NO_CUT, cut)


def _flat(tensor: tf.Tensor) -> tf.Tensor:
    """`[b, m, s]` as `[b, m s]`."""
    shape = tf.shape(tensor)
    return tf.reshape(tensor, [shape[0], shape[1] * shape[2]])
