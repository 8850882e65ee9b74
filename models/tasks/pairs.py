"""Sources and targets: how token ids are framed, and log-probabilities of targets.

A source longer than the model's source context is cut: it ends in `</s>` all the same.
A target of any length is read in the windows of `windows`, each beside the whole
source.

In shapes: b pairs, s tokens of a source and t of a target as the tokenizers give them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..backbone import require
from ..encoder_decoder import TARGET
from .results import PerToken, Results, added
from .scoring import ScoreFunction, checked_stride, joined
from .windows import Chunk, Inputs, fold_windows, overlapping_windows

_IDS = tf.RaggedTensorSpec([None, None], tf.int32, row_splits_dtype=tf.int64)


def ids_of(tokenizer: Any, texts: Any) -> tf.RaggedTensor:
    """The ids of texts, string `[b]`, and no more: int32 `[b, (t)]`."""
    ids = tf.cast(tokenizer.tokenize(tf.convert_to_tensor(texts)), tf.int32)
    return ids.with_row_splits_dtype(tf.int64)


def between(
    before: tuple[int, ...], ids: tf.RaggedTensor, behind: tuple[int, ...]
) -> tf.RaggedTensor:
    """Ids int32 `[b, (t)]` with the same ones before each row, and behind."""
    count = ids.nrows()
    for others, is_first in ((before, True), (behind, False)):
        if others:
            values = tf.tile(tf.constant(others, tf.int32), [tf.cast(count, tf.int32)])
            lengths = tf.fill([count], tf.constant(len(others), tf.int64))
            rows = tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)
            ids = joined(rows, ids) if is_first else joined(ids, rows)
    return ids


def cut_to(ids: tf.RaggedTensor, length: int) -> tf.RaggedTensor:
    """The first ids of each row, at most so many."""
    lengths = tf.minimum(ids.row_lengths(), length)
    at = tf.ragged.range(ids.row_starts(), ids.row_starts() + lengths)
    values = tf.gather(ids.flat_values, at.flat_values)
    return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)


def padded(
    ids: tf.RaggedTensor, pad_id: int, width: tf.Tensor | int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Ids int32 `[b, w]` and where they are real, bool.

    By default as wide as the longest row, and one column at least.
    """
    lengths = ids.row_lengths()
    if width is None:
        width = tf.reduce_max(tf.concat([lengths, [1]], axis=0))
    width = tf.cast(width, tf.int64)
    tokens = ids.to_tensor(pad_id)[:, :width]
    room = [[0, 0], [0, width - tf.shape(tokens, tf.int64)[1]]]
    tokens = tf.pad(tokens, room, constant_values=pad_id)
    return tokens, tf.sequence_mask(lengths, width)


def map_targets(
    model: Any,
    sources: tf.RaggedTensor,
    targets: tf.RaggedTensor,
    function: Callable[[Inputs, tf.Tensor], Results],
    *specs: tf.TensorSpec,
    stride: int,
) -> list[tf.RaggedTensor]:
    """What a function says of every token of targets and of `</s>`, as `map_tokens`.

    Of what stands before a target nothing is said: it is given.

    Args:
        model: the `SeqToSeqLM` that `function` runs.
        sources: int32 `[b, (s)]`, as `framed_sources` gives them.
        targets: int32 `[b, (t + 2)]`, as `framed_targets` gives them.
        function: from inputs of the model, of `c` windows, and the tokens that follow,
            int32 `[c, w]`, to tensors `[c, w, ...]`.
        *specs: of these, as of `PerToken`.
        stride: int in [1, context length]. Distance between windows.

    Returns:
        Of each result `[b, (t + 1), ...]`.
    """
    into = PerToken(*specs)
    ids, lengths = targets.flat_values, targets.row_lengths() - 1
    windows, document, first_new = overlapping_windows(
        *(ids, targets.row_starts(), lengths),
        context=model.context_length,
        stride=stride,
    )

    def of_chunk(features: Inputs, chunk: Chunk, found: Any) -> Any:
        of = tf.gather(document, chunk.rows)  # [c]
        inputs = {f"{TARGET}_{name}": part for name, part in features.items()}
        inputs |= model.preprocessor.source_inputs(tf.gather(sources, of))
        results = function(inputs, tf.gather(ids, chunk.position + 1))  # of [c, w]
        scored = chunk.inside_from(first_new)
        return added(into, found, scored, chunk.position, of, results)

    longest = tf.reduce_max(tf.concat([sources.row_lengths(), [1]], axis=0))
    found = into.start(lengths)
    found = fold_windows(model, windows, of_chunk, found, least_width=longest)
    begun = len(model.preprocessor.target_start_ids) - 1
    parts = into.end(found, lengths)
    return [part[:, begun:] if begun else part for part in parts]


def token_log_probabilities(
    model: Any, sources: tf.RaggedTensor, targets: tf.RaggedTensor, *, stride: int
) -> tf.RaggedTensor:
    """Natural logarithm of the probability of every token of targets, and of `</s>`.

    Args:
        model: a `SeqToSeqLM`.
        sources: as of `map_targets`; likewise `targets` and `stride`.

    Returns:
        float32 `[b, (t + 1)]`.
    """

    def score(inputs: Inputs, following: tf.Tensor) -> Results:
        return (model.token_log_probabilities(inputs, following),)

    spec = tf.TensorSpec([None], tf.float32)
    (scores,) = map_targets(model, sources, targets, score, spec, stride=stride)
    return scores


def score_pairs(model: Any, sources: Any, targets: Any, stride: int | None) -> Any:
    """See `SeqToSeqLM.score`."""
    require(
        model.preprocessor is not None,
        "A model without a preprocessor cannot take strings.",
        preprocessor=model.preprocessor,
    )
    stride = checked_stride(model, stride)
    require(stride > 0, "`stride` must be above 0.", stride=stride)
    texts = [tf.convert_to_tensor(side) for side in (sources, targets)]
    require(
        texts[0].shape == texts[1].shape,
        "There must be as many sources as targets.",
        sources=texts[0].shape,
        targets=texts[1].shape,
    )
    scores = ScoreFunction.of(
        model,
        "score_function",
        (stride,),
        lambda pair: token_log_probabilities(model, *pair, stride=stride),
        (_IDS, _IDS),
    )
    flat = [tf.reshape(side, [-1]) for side in texts]
    preprocessor = model.preprocessor
    found = scores((preprocessor.source_ids(flat[0]), preprocessor.target_ids(flat[1])))
    return found if texts[0].shape.rank else found[0]
