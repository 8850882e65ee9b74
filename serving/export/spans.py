"""Spans of words, as their tags say: by the definition of the package seqeval."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from ...models.tasks.tagging import NO_TYPE, WITH_PREFIX


class Spans(NamedTuple):
    """The spans of words, all `[n]`: a type, and the last word of the span that begins
    there, -1 where none does."""

    type: tf.Tensor
    last: tf.Tensor

    @property
    def begins(self) -> tf.Tensor:
        """Where one does, bool `[n]`."""
        return self.last >= 0

    def which_are(self, others: Spans) -> tf.Tensor:
        """Where a span begins that is one of the others, too, bool `[n]`."""
        alike = (self.last == others.last) & (self.type == others.type)
        return self.begins & alike


def spans_of(tag: tf.Tensor, row: tf.Tensor) -> Spans:
    """The spans that words make.

    A span begins with B or S, behind E, S or O, and where the type is another one; it
    ends before the next, and before O. See `tagging.span_types` for the rest.

    Args:
        tag: string `[n]`, none of them empty.
        row: int64 `[n]`. Which text each word is of.

    References:
        - [seqeval](https://github.com/chakki-works/seqeval), `get_entities`
    """
    inside = tag != "O"
    has_prefix = tf.strings.regex_full_match(tag, WITH_PREFIX)
    part = tf.where(has_prefix, tf.strings.substr(tag, 0, 1), "S")
    kind = tf.where(has_prefix, tf.strings.regex_replace(tag, "^[A-Z]-?", ""), tag)
    kind = tf.where(kind == "", NO_TYPE, kind)
    alone = (part == "E") | (part == "S") | ~inside
    goes_on = (row[1:] == row[:-1]) & (kind[1:] == kind[:-1]) & ~alone[:-1]
    goes_on &= inside[1:] & (part[1:] != "B") & (part[1:] != "S")
    edge = tf.zeros([tf.minimum(tf.size(tag), 1)], tf.bool)
    begins = inside & ~tf.concat([edge, goes_on], axis=0)
    ends = inside & ~tf.concat([goes_on, edge], axis=0)
    # They do not overlap, so that both are in one order.
    first, last = tf.where(begins), tf.where(ends)[:, 0]
    none = tf.fill([tf.size(tag)], tf.constant(-1, tf.int64))
    return Spans(kind, tf.tensor_scatter_nd_update(none, first, last))
