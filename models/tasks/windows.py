"""Windows of documents, run through a model in chunks of bounded size.

A sequence of more than the context length L is framed in windows that overlap: window w
covers the inputs from w * stride to w * stride + L. The first window tells of all its
positions, every later one only of those that none before it reached, so that each of
those has at least L - stride tokens of context. With stride L the windows are disjoint:
cheapest, and too pessimistic.

The windows of a whole batch of documents are run through the model longest first and
in chunks, so that neither a long document nor a large batch makes a large tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from .results import Into, Listed, Results, added

Inputs = dict[str, tf.Tensor]

# A chunk holds at most so many input positions, and logits of at most so many bytes.
# Larger chunks made no model faster on a CPU, and mix windows of more unequal length:
# paragraphs in batches of 32 were scored 1.7 times faster than with 8192.
CHUNK_POSITIONS = 1024
CHUNK_LOGIT_BYTES = 64 * 2**20


class Windows(NamedTuple):
    """Pieces of one flat row of ids: where each begins and its length, int64 `[n]`."""

    ids: tf.Tensor
    begin: tf.Tensor
    length: tf.Tensor


class Chunk(NamedTuple):
    """Some windows, as the model sees them: right-padded to one width `w`.

    `rows` int64 `[c]` are their indexes; `position` int64 `[c, w]` indexes the flat ids
    (repeating the last one where padded); `inside` bool `[c, w]` is false where padded.
    """

    rows: tf.Tensor
    position: tf.Tensor
    inside: tf.Tensor

    def inside_from(self, first: tf.Tensor) -> tf.Tensor:
        """What is inside from `first` on, int64 `[n]` of all windows: bool `[c, w]`."""
        column = tf.range(tf.shape(self.position, tf.int64)[1])
        return self.inside & (column >= tf.gather(first, self.rows)[:, tf.newaxis])


def map_tokens(
    model: Any,
    documents: tf.RaggedTensor,
    function: Callable[[Inputs, tf.Tensor], Results],
    into: Into,
    *,
    stride: int,
) -> Any:
    """What a function says of every token but a document's first.

    Args:
        model: the `CausalLM` that `function` runs.
        documents: int32 `[b, (t + 1)]`, each row at least 2 long: `<s> ... </s>`.
        function: from inputs of the model, each `[c, w]`, and the tokens that follow,
            int32 `[c, w]`, to tensors `[c, w, ...]`.
        into: what becomes of these.
        stride: int in [1, context length]. Distance between windows.
    """
    ids, lengths = documents.flat_values, documents.row_lengths() - 1
    windows, document, first_new = overlapping_windows(
        ids,
        documents.row_starts(),
        lengths,
        context=model.context_length,
        stride=stride,
    )

    def of_chunk(features: Inputs, chunk: Chunk, found: Any) -> Any:
        following = tf.gather(ids, chunk.position + 1)  # [c, w]
        results = function(features, following)
        scored = chunk.inside_from(first_new)  # [c, w]
        of = tf.gather(document, chunk.rows)  # [c]
        return added(into, found, scored, chunk.position, of, results)

    found = fold_windows(model, windows, of_chunk, into.start(lengths))
    return into.end(found, lengths)


def overlapping_windows(
    ids: tf.Tensor,
    starts: tf.Tensor,
    lengths: tf.Tensor,
    *,
    context: int,
    stride: int,
) -> tuple[Windows, tf.Tensor, tf.Tensor]:
    """Windows of sequences in one flat row of ids, as the module's text has them.

    Returns:
        The windows, of which sequence each is, int64 `[n]`, and the first position in
        each that none before it has reached, int64 `[n]`.
    """
    overhang = tf.maximum(lengths - context, 0)
    counts = 1 + (overhang + stride - 1) // stride
    sequence = tf.repeat(tf.range(tf.size(lengths, tf.int64)), counts)
    index = tf.ragged.range(counts).flat_values
    offset = index * stride
    windows = Windows(
        ids=ids,
        begin=tf.gather(starts, sequence) + offset,
        length=tf.minimum(tf.gather(lengths, sequence) - offset, context),
    )
    first_new = tf.where(index == 0, tf.zeros_like(index), context - stride)
    return windows, sequence, first_new


def map_windows(
    model: Any,
    windows: Windows,
    function: Callable[[Inputs, Chunk], Results],
    specs: tuple[tf.TensorSpec, ...],
) -> Results:
    """Calls `function` on windows in chunks, and concatenates what it returns.

    Args:
        model: the `CausalLM` that `function` runs.
        windows: the windows; they may overlap.
        function: from inputs of the model, each `[c, w]`, and their `Chunk` to tensors
            that match `specs`.
        specs: shapes and dtypes of the results, the first dimension unknown.
    """
    listed = Listed(specs)
    found = fold_windows(
        model,
        windows,
        lambda features, chunk, found: listed.add(found, function(features, chunk)),
        listed.start(),
    )
    return listed.end(found)


def fold_windows(
    model: Any,
    windows: Windows,
    function: Callable[[Inputs, Chunk, Any], Any],
    start: Any,
    least_width: tf.Tensor | int = 0,
) -> Any:
    """Calls `function` on windows in chunks, one after the other.

    Args:
        model: as of `map_windows`; likewise `windows`.
        function: from inputs of the model, their `Chunk`, and what those before it have
            come to, a nest of tensors, to what they come to with it.
        start: that before any chunk.
        least_width: int64 scalar tensor or int. Chunks are as small as those of windows
            of so many tokens, for what there is beside these. Defaults to 0.
    """
    order = tf.argsort(windows.length, direction="DESCENDING", stable=True)
    count = tf.size(order)

    def body(start: tf.Tensor, found: Any) -> tuple[tf.Tensor, Any]:
        width = windows.length[order[start]]
        widest = tf.maximum(width, tf.cast(least_width, width.dtype))
        stop = tf.minimum(start + rows_in_chunk(model, widest), count)
        rows = tf.cast(order[start:stop], tf.int64)
        chunk = chunk_of(windows, rows, width)
        return stop, function(inputs_of(model, windows.ids, chunk), chunk, found)

    _, found = tf.while_loop(
        lambda start, _: start < count,
        body,
        (0, start),
        parallel_iterations=1,  # more would hold several chunks' logits at a time
    )
    return found


def rows_in_chunk(model: Any, width: tf.Tensor) -> tf.Tensor:
    position_bytes = 4 * model.backbone.vocabulary_size
    positions = min(CHUNK_POSITIONS, CHUNK_LOGIT_BYTES // position_bytes)
    return tf.cast(tf.maximum(positions // width, 1), tf.int32)


def chunk_of(windows: Windows, rows: tf.Tensor, width: tf.Tensor) -> Chunk:
    column = tf.range(width)  # [w]
    length = tf.gather(windows.length, rows)[:, tf.newaxis]  # [c, 1]
    begin = tf.gather(windows.begin, rows)[:, tf.newaxis]  # [c, 1]
    return Chunk(rows, begin + tf.minimum(column, length - 1), column < length)


def inputs_of(model: Any, ids: tf.Tensor, chunk: Chunk) -> Inputs:
    pad_id = model.preprocessor.tokenizer.pad_token_id
    tokens = tf.gather(ids, chunk.position)  # [c, w]
    tokens = tf.where(chunk.inside, tokens, pad_id)
    return {"token_ids": tokens, "padding_mask": chunk.inside}
