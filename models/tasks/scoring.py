"""Log-probabilities of documents of any length, in a graph or not, in bounded memory.

A causal model sees at most its context length L at once. A document of more than L
predictions is framed in windows that overlap: window w covers the inputs from
w * stride to w * stride + L. The first window scores all its positions, every later one
only the positions that none before it reached, so that each of those has at least
L - stride tokens of context. With stride L the windows are disjoint: cheapest, and too
pessimistic. With stride 0 they are disjoint, and the state of a recurrent model goes on
from one to the next, so that each token has all of its document before it.

The windows of a whole batch of documents are run through the model longest first and
in chunks, so that neither a long document nor a large batch makes a large tensor.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..backbone import require

Inputs = dict[str, tf.Tensor]

# Of a byte, or the end of a spelling, when all 257 are equally likely.
SYMBOL_NLL = math.log(257)

# A chunk holds at most so many input positions, and logits of at most so many bytes.
# Larger chunks made no model faster on a CPU, and mix windows of more unequal length:
# paragraphs in batches of 32 were scored 1.7 times faster than with 8192.
CHUNK_POSITIONS = 1024
CHUNK_LOGIT_BYTES = 64 * 2**20

OUTCOME_RANKS = 5
OUTCOME_SPECS = tuple(
    tf.TensorSpec([None], dtype) for dtype in (tf.float32, tf.int32, tf.float32)
)


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


def score_texts(model: Any, texts: Any, *, stride: int | None = None) -> Any:
    """Natural logarithm of the probability of every token of texts, and of `</s>`.

    The numbers are those of the signature `token_scores` of an export with that stride.
    That of `<unk>` says nothing of which piece is unknown: see `spelling_nll`.

    Args:
        model: a `CausalLM` with a preprocessor.
        texts: a string, a list of `b` strings, or a string tensor `[b]`.
        stride: int in [0, context length]. Distance between the windows in which a
            text longer than the context is scored; with 0 a recurrent model's state
            goes on. Defaults to half the context.

    Returns:
        A float32 RaggedTensor `[b, (t + 1)]`, for a single string a tensor `[t + 1]`.

    Raises:
        ValueError: if the model has no preprocessor, or the stride is out of range.
    """
    stride = checked_stride(model, stride)
    scores = ScoreFunction.of(
        model,
        "score_function",
        (stride,),
        lambda documents: token_log_probabilities(model, documents, stride=stride),
    )
    return of_texts(model, texts, scores)


def checked_stride(model: Any, stride: int | None) -> int:
    """A stride, by default half the context.

    Raises:
        ValueError: if it is out of range.
    """
    context = model.context_length
    stride = max(context // 2, 1) if stride is None else stride
    require(
        0 <= stride <= context,
        f"`stride` must be from 0 to the context length, {context}.",
        stride=stride,
    )
    return stride


def of_texts(
    model: Any, texts: Any, function: Callable[[tf.RaggedTensor], tf.RaggedTensor]
) -> Any:
    """What a function says of texts as `score_texts` takes them, given as documents.

    Raises:
        ValueError: if the model has no preprocessor.
    """
    require(
        model.preprocessor is not None,
        "A model without a preprocessor cannot take strings.",
        preprocessor=model.preprocessor,
    )
    texts = tf.convert_to_tensor(texts)
    documents = framed(model.preprocessor.tokenizer, tf.reshape(texts, [-1]))
    scores = function(documents)
    return scores if texts.shape.rank else scores[0]


_DOCUMENTS = tf.RaggedTensorSpec([None, None], tf.int32, row_splits_dtype=tf.int64)


class ScoreFunction:
    """Scores of documents by a model, traced once, for calls from Python.

    A recurrence is many times faster in a graph. The graph is that of the variables
    which the model had; LoRA, quantization and an n-gram model's `fit` bring others.

    Args:
        model: the model.
        settings: what else the graph is made by.
        scores: from documents to their scores.
        spec: of what it takes, if not of documents.
    """

    def __init__(
        self,
        model: Any,
        settings: tuple,
        scores: Callable[[Any], Any],
        spec: Any = None,
    ) -> None:
        spec = spec or _DOCUMENTS
        self._variables, self._settings = list(model.variables), settings
        self._function = tf.function(scores, input_signature=[spec], autograph=False)

    @classmethod
    def of(
        cls,
        model: Any,
        name: str,
        settings: tuple,
        scores: Callable[[Any], Any],
        spec: Any = None,
    ) -> ScoreFunction:
        """The one that a model has as an attribute, made anew where it does not fit."""
        graph = getattr(model, name, None)
        if graph is None or not graph.fits(model, settings):
            graph = cls(model, settings, scores, spec)
            setattr(model, name, graph)
        return graph

    def __call__(self, documents: Any) -> Any:
        return self._function(documents)

    def fits(self, model: Any, settings: tuple) -> bool:
        """Whether the graph is that of the model as it is now, and of the settings."""
        return (
            settings == self._settings
            and len(model.variables) == len(self._variables)
            and all(map(operator.is_, model.variables, self._variables))
        )


def is_text(x: Any) -> bool:
    """Whether `x` is a string, a list of strings, or a tensor of strings."""
    if tf.is_tensor(x):
        return x.dtype == tf.string
    first = x[0] if isinstance(x, (list, tuple, np.ndarray)) and len(x) else x
    return isinstance(first, (str, bytes))


def framed(tokenizer: Any, text: tf.Tensor) -> tf.RaggedTensor:
    """`<s>`, the ids of `text`, string `[b]`, and `</s>`: int32 `[b, (t + 2)]`."""
    ids = tf.cast(tokenizer.tokenize(text), tf.int32).with_row_splits_dtype(tf.int64)
    return framed_ids(tokenizer, ids)


def framed_ids(tokenizer: Any, ids: tf.RaggedTensor) -> tf.RaggedTensor:
    """`<s>`, ids int32 `[b, (t)]`, and `</s>`: int32 `[b, (t + 2)]`."""
    # By hand: TensorFlow's own concatenation is a tenth of the graph of an export.
    splits = ids.row_splits + 2 * tf.range(ids.nrows() + 1)
    at = tf.range(tf.size(ids.flat_values, tf.int64)) + 2 * ids.value_rowids() + 1
    start = tf.fill([ids.nrows()], int(tokenizer.start_token_id))
    flat = tf.fill([splits[-1]], int(tokenizer.end_token_id))
    flat = tf.tensor_scatter_nd_update(flat, splits[:-1, tf.newaxis], start)
    flat = tf.tensor_scatter_nd_update(flat, at[:, tf.newaxis], ids.flat_values)
    return tf.RaggedTensor.from_row_splits(flat, splits, validate=False)


def joined(first: tf.RaggedTensor, second: tf.RaggedTensor) -> tf.RaggedTensor:
    """Row by row the ids of the first, and then those of the second, int32 `[b, (t)]`.

    By hand, as TensorFlow's own concatenation is a large graph.
    """
    places = [
        tf.range(tf.size(own.flat_values, tf.int64))
        + tf.gather(before, own.value_rowids())
        for own, before in ((first, second.row_starts()), (second, first.row_limits()))
    ]
    splits = first.row_splits + second.row_splits
    values = tf.concat([first.flat_values, second.flat_values], axis=0)
    flat = tf.scatter_nd(tf.concat(places, axis=0)[:, tf.newaxis], values, splits[-1:])
    flat = tf.ensure_shape(flat, [None])
    return tf.RaggedTensor.from_row_splits(flat, splits, validate=False)


def spelling_nll(tokenizer: Any, texts: tf.Tensor) -> tf.Tensor:
    """Nats that the unknown pieces of `texts` cost beyond their tokens, float32 `[b]`.

    A model says how likely `<unk>` is, not which piece it stands for. For a code of the
    whole text, each one is followed by the bytes of its piece and an end, in the code
    that favours none of these 257 symbols. So the sum of this and of the negative
    log-probabilities is comparable between any two vocabularies; without unknown
    pieces this is 0.

    Args:
        tokenizer: a tokenizer of `langzoo.models`.
        texts: string tensor `[b]`.

    References:
        - [Mielke and Eisner, 2018](https://arxiv.org/abs/1804.08205): a word is a token
          to predict, and then to spell.
        - [Mielke et al., 2021](https://arxiv.org/abs/2112.10508): why models with
          unknown words cannot be compared otherwise.
    """
    symbols = tokenizer.unknown_symbols(texts)
    return tf.cast(tf.cast(symbols, tf.float64) * SYMBOL_NLL, tf.float32)


def token_log_probabilities(
    model: Any, documents: tf.RaggedTensor, *, stride: int
) -> tf.RaggedTensor:
    """Natural logarithm of the probability of every token but a document's first.

    Args:
        model: a `CausalLM`; its `token_log_probabilities()` gives the numbers.
        documents: int32 `[b, (t + 1)]`, each row at least 2 long: `<s> ... </s>`.
        stride: int in [0, context length]. Distance between windows.

    Returns:
        float32 `[b, (t)]`.
    """

    def log_probability(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (-tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits),)

    def score(features: Inputs, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (model.token_log_probabilities(features, targets),)

    specs = (tf.TensorSpec([None], tf.float32),)
    if stride:
        (scores,) = map_tokens(model, documents, score, specs, stride=stride)
    else:
        (scores,) = map_logits(model, documents, log_probability, specs, stride=0)
    return scores


class TokenOutcomes(NamedTuple):
    """How every token but a document's first was predicted, each `[b, (t)]`.

    `log_probability` float32, in nats; `rank` int32, how many tokens were likelier, at
    most `OUTCOME_RANKS`; of equally likely ones the lower id comes first;
    `confidence` float32, the probability of the likeliest token.
    """

    log_probability: tf.RaggedTensor
    rank: tf.RaggedTensor
    confidence: tf.RaggedTensor


def token_outcomes(
    model: Any, documents: tf.RaggedTensor, *, stride: int
) -> TokenOutcomes:
    """What `token_log_probabilities` gives, with each token's rank and the confidence.

    It needs all logits, of any family, in chunks.

    Args:
        model: a `CausalLM`.
        documents: as of `token_log_probabilities`.
        stride: likewise.
    """

    found = map_logits(model, documents, outcomes, OUTCOME_SPECS, stride=stride)
    return TokenOutcomes(*found)


def outcomes(logits: tf.Tensor, following: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The fields of `TokenOutcomes` of tokens `[c, w]`, by logits `[c, w, v]`."""
    score = -tf.nn.sparse_softmax_cross_entropy_with_logits(following, logits)
    best, ids = tf.math.top_k(logits, min(OUTCOME_RANKS, logits.shape[-1]))
    likelier = tf.cast(ids != following[..., tf.newaxis], tf.int32)  # [c, w, 5]
    rank = tf.reduce_sum(tf.math.cumprod(likelier, axis=-1), axis=-1)  # [c, w]
    at_target = tf.gather(logits, following, axis=-1, batch_dims=2)
    return score, rank, tf.exp(score + best[..., 0] - at_target)


def map_logits(
    model: Any,
    documents: tf.RaggedTensor,
    function: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]],
    specs: tuple[tf.TensorSpec, ...],
    *,
    stride: int,
) -> tuple[tf.RaggedTensor, ...]:
    """As `map_tokens`, of a function of logits, float32 `[c, w, v]`.

    Raises:
        ValueError: if the stride is 0, and the model has no state that goes on.
    """
    if stride:

        def of_inputs(features: Inputs, following: tf.Tensor) -> tuple[tf.Tensor, ...]:
            logits = model(features, training=False)  # [c, w, v]
            return function(tf.cast(logits, tf.float32), following)

        return map_tokens(model, documents, of_inputs, specs, stride=stride)

    def of_reading(reading: Reading, memory: tuple) -> tuple[tuple, tuple]:
        return function(reading.logits, reading.following), memory

    return map_in_order(model, documents, of_reading, specs, stride=0)


class Reading(NamedTuple):
    """The new columns of a window of some documents, as `map_in_order` reads them.

    `rows` int64 `[c]` are the documents; `following` int32 `[c, n]` the tokens to
    predict; `hidden_states` `[c, n, d]`, or what stands for them where a family has
    none, and float32 `logits` `[c, n, v]` are the model's.
    """

    rows: tf.Tensor
    following: tf.Tensor
    hidden_states: tf.Tensor
    logits: tf.Tensor


def map_in_order(
    model: Any,
    documents: tf.RaggedTensor,
    function: Callable[[Reading, Any], tuple[tuple[tf.Tensor, ...], Any]],
    specs: tuple[tf.TensorSpec, ...],
    *,
    stride: int,
    memory: Callable[[tf.Tensor, tf.Tensor], Any] = lambda rows, longest: (),
) -> tuple[tf.RaggedTensor, ...]:
    """What a function says of every token, which remembers the document so far.

    The windows are those of `map_tokens`; with stride 0 the model's state goes on from
    one to the next.

    Args:
        model: as of `map_tokens`; likewise `documents`, `specs` and `stride`.
        function: from a `Reading` and the memory of its documents to tensors
            `[c, n, ...]` and the next memory.
        memory: the one before any token, a nest of tensors `[c, ...]`, given c and the
            length of the longest of these documents.

    Raises:
        ValueError: if the stride is 0, and the model has no state that goes on.
    """
    require(
        stride > 0 or hasattr(model.backbone, "call_with_state"),
        "A stride of 0 is for recurrent models, whose state goes on.",
        backbone=model.backbone.name,
    )
    reader = _InOrder(model, documents, function, stride, memory)
    count = tf.size(reader.lengths)
    specs = (tf.TensorSpec([None], tf.int64), *specs)

    def body(
        first: tf.Tensor, at: tf.Tensor, step: tf.Tensor, carried: Any, arrays: tuple
    ) -> tuple:
        following, carried, results = reader.read(first, at, carried)
        written = tuple(
            array.write(step, result)
            for array, result in zip(arrays, results, strict=True)
        )
        return *following, step + 1, carried, written

    # Of no document, but with room for those that there are: sizes that are not known.
    empty = reader.fresh(tf.constant(0), tf.reduce_max(reader.lengths))
    arrays = _arrays(specs)
    rows_unknown = tf.nest.map_structure(
        lambda tensor: tf.TensorShape([None, *tensor.shape[1:]]), empty
    )
    scalars, of_arrays = [tf.TensorShape([])] * 3, [tf.TensorShape(None)] * len(arrays)
    *_, arrays = tf.while_loop(
        lambda first, *_: first < count,
        body,
        (0, tf.constant(0, tf.int64), 0, empty, arrays),
        shape_invariants=(*scalars, rows_unknown, tuple(of_arrays)),
        parallel_iterations=1,
    )
    return _by_document(_concatenated(arrays, specs), reader.lengths)


class _InOrder:
    """Reads documents chunk after chunk, and a chunk's windows one after the other.

    See `map_in_order` for the arguments. What is carried from window to window is the
    model's state and the memory.
    """

    def __init__(
        self,
        model: Any,
        documents: tf.RaggedTensor,
        function: Callable[[Reading, Any], tuple[tuple[tf.Tensor, ...], Any]],
        stride: int,
        memory: Callable[[tf.Tensor, tf.Tensor], Any],
    ) -> None:
        self._model, self._stride = model, stride
        self._function, self._memory = function, memory
        self._ids, self._starts = documents.flat_values, documents.row_starts()
        self.lengths = documents.row_lengths() - 1
        self._order = tf.argsort(self.lengths, direction="DESCENDING", stable=True)

    def fresh(self, rows: tf.Tensor, longest: tf.Tensor) -> tuple[Any, Any]:
        """What is carried before any token of so many documents."""
        state = () if self._stride else self._model.backbone.empty_cache(rows)
        carried = (state, self._memory(rows, longest))
        return tf.nest.map_structure(tf.convert_to_tensor, carried)

    def read(
        self, first: tf.Tensor, at: tf.Tensor, carried: tuple[Any, Any]
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[Any, Any], tuple[tf.Tensor, ...]]:
        """Reads the window at token `at` of a chunk, the first in it being `first`.

        Returns:
            The next of both, what is carried there, and of each new token its position
            and the results.
        """
        context, stride = self._model.context_length, self._stride
        longest = self.lengths[self._order[first]]
        number = _rows_in_chunk(self._model, tf.minimum(longest, context))
        last = tf.minimum(first + number, tf.size(self._order))
        state, remembered = tf.cond(
            at == 0, lambda: self.fresh(last - first, longest), lambda: carried
        )
        width = tf.minimum(longest - at, context)
        # Of a document that has ended before, its last token is read.
        windows = Windows(self._ids, self._starts + at, self.lengths - at)
        chunk = _chunk(windows, self._order[first:last], width)
        seen = tf.where(at == 0, 0, context - stride) if stride else 0
        reading, state = self._reading(chunk, state, seen)
        results, remembered = self._function(reading, remembered)
        position, inside = chunk.position[:, seen:], chunk.inside[:, seen:]
        is_read = at + width >= longest
        following = (
            tf.where(is_read, last, first),
            tf.where(is_read, tf.zeros_like(at), at + (stride or width)),
        )
        told = tuple(result[inside] for result in (position, *results))
        return following, (state, remembered), told

    def _reading(
        self, chunk: Chunk, state: Any, seen: tf.Tensor | int
    ) -> tuple[Reading, Any]:
        """What the model says of a chunk but for the first columns, and its state."""
        model, backbone = self._model, self._model.backbone
        features = _inputs(model, self._ids, chunk)
        if not self._stride:
            tokens = features["token_ids"]
            hidden, state = backbone.call_with_state(tokens, state, training=False)
            logits = backbone.logits(hidden)
        elif has_hidden_states(model):
            hidden = backbone(features, training=False)
            logits = backbone.logits(hidden)
        else:
            hidden = logits = model(features, training=False)
        following = tf.gather(self._ids, chunk.position + 1)
        parts = (following, hidden, tf.cast(logits, tf.float32))
        return Reading(chunk.rows, *(part[:, seen:] for part in parts)), state


def has_hidden_states(model: Any) -> bool:
    """Whether likeness of the backbone's outputs is likeness of contexts."""
    family = getattr(model.backbone, "family", None)
    return family is not None and bool(family.has_hidden_states)


def map_tokens(
    model: Any,
    documents: tf.RaggedTensor,
    function: Callable[[Inputs, tf.Tensor], tuple[tf.Tensor, ...]],
    specs: tuple[tf.TensorSpec, ...],
    *,
    stride: int,
) -> tuple[tf.RaggedTensor, ...]:
    """What a function says of every token but a document's first.

    Args:
        model: the `CausalLM` that `function` runs.
        documents: int32 `[b, (t + 1)]`, each row at least 2 long: `<s> ... </s>`.
        function: from inputs of the model, each `[c, w]`, and the tokens that follow,
            int32 `[c, w]`, to tensors `[c, w, ...]`.
        specs: shapes `[None, ...]` and dtypes of these for each token.
        stride: int in [1, context length]. Distance between windows.

    Returns:
        `[b, (t), ...]` for each tensor of `function`.
    """
    ids, lengths = documents.flat_values, documents.row_lengths() - 1
    windows, _, first_new = overlapping_windows(
        ids,
        documents.row_starts(),
        lengths,
        context=model.context_length,
        stride=stride,
    )

    def of_chunk(features: Inputs, chunk: Chunk) -> tuple[tf.Tensor, ...]:
        following = tf.gather(ids, chunk.position + 1)  # [c, w]
        results = function(features, following)
        scored = chunk.inside_from(first_new)  # [c, w]
        return chunk.position[scored], *(result[scored] for result in results)

    position_spec = tf.TensorSpec([None], tf.int64)
    results = map_windows(model, windows, of_chunk, (position_spec, *specs))
    return _by_document(results, lengths)


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


def _by_document(
    results: tuple[tf.Tensor, ...], lengths: tf.Tensor
) -> tuple[tf.RaggedTensor, ...]:
    """Puts positions, and what is of each, in order, and cuts them by document."""
    # Every position is in there once, but the last of each document.
    position, *others = results
    order = tf.argsort(position)
    return tuple(
        tf.RaggedTensor.from_row_lengths(tf.gather(r, order), lengths, validate=False)
        for r in others
    )


def next_token_logits(model: Any, sequences: tf.RaggedTensor) -> tf.Tensor:
    """Logits of the token after each sequence.

    Args:
        model: a `CausalLM` with `context_length`.
        sequences: int32 `[b, (t)]`, with t from 1 to the context length.

    Returns:
        float32 `[b, vocabulary]`.
    """
    lengths = sequences.row_lengths()
    windows = Windows(sequences.flat_values, sequences.row_starts(), lengths)

    def last(features: Inputs, chunk: Chunk) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.cast(model(features, training=False), tf.float32)  # [c, w, v]
        at = tf.gather(lengths, chunk.rows) - 1
        return chunk.rows, tf.gather(logits, at, axis=1, batch_dims=1)

    vocabulary = model.backbone.vocabulary_size
    specs = (
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, vocabulary], tf.float32),
    )
    rows, logits = map_windows(model, windows, last, specs)
    return tf.gather(logits, tf.argsort(rows))


def map_windows(
    model: Any,
    windows: Windows,
    function: Callable[[Inputs, Chunk], tuple[tf.Tensor, ...]],
    specs: tuple[tf.TensorSpec, ...],
) -> tuple[tf.Tensor, ...]:
    """Calls `function` on windows in chunks, and concatenates what it returns.

    Args:
        model: the `CausalLM` that `function` runs.
        windows: the windows; they may overlap.
        function: from inputs of the model, each `[c, w]`, and their `Chunk` to tensors
            that match `specs`.
        specs: shapes and dtypes of the results, the first dimension unknown.
    """
    order = tf.argsort(windows.length, direction="DESCENDING", stable=True)
    count = tf.size(order)
    arrays = _arrays(specs)

    def body(start: tf.Tensor, step: tf.Tensor, arrays: tuple) -> tuple:
        width = windows.length[order[start]]
        stop = tf.minimum(start + _rows_in_chunk(model, width), count)
        rows = tf.cast(order[start:stop], tf.int64)
        chunk = _chunk(windows, rows, width)
        results = function(_inputs(model, windows.ids, chunk), chunk)
        written = tuple(
            array.write(step, result)
            for array, result in zip(arrays, results, strict=True)
        )
        return stop, step + 1, written

    _, _, arrays = tf.while_loop(
        lambda start, *_: start < count,
        body,
        (0, 0, arrays),
        parallel_iterations=1,  # more would hold several chunks' logits at a time
    )
    return _concatenated(arrays, specs)


def _arrays(specs: tuple[tf.TensorSpec, ...]) -> tuple[tf.TensorArray, ...]:
    return tuple(
        tf.TensorArray(
            spec.dtype,
            size=0,
            dynamic_size=True,
            infer_shape=False,
            element_shape=spec.shape,
        )
        for spec in specs
    )


def _concatenated(
    arrays: tuple[tf.TensorArray, ...], specs: tuple[tf.TensorSpec, ...]
) -> tuple[tf.Tensor, ...]:
    return tuple(
        tf.ensure_shape(array.concat(), spec.shape)
        for array, spec in zip(arrays, specs, strict=True)
    )


def _rows_in_chunk(model: Any, width: tf.Tensor) -> tf.Tensor:
    position_bytes = 4 * model.backbone.vocabulary_size
    positions = min(CHUNK_POSITIONS, CHUNK_LOGIT_BYTES // position_bytes)
    return tf.cast(tf.maximum(positions // width, 1), tf.int32)


def _chunk(windows: Windows, rows: tf.Tensor, width: tf.Tensor) -> Chunk:
    column = tf.range(width)  # [w]
    length = tf.gather(windows.length, rows)[:, tf.newaxis]  # [c, 1]
    begin = tf.gather(windows.begin, rows)[:, tf.newaxis]  # [c, 1]
    return Chunk(rows, begin + tf.minimum(column, length - 1), column < length)


def _inputs(model: Any, ids: tf.Tensor, chunk: Chunk) -> Inputs:
    pad_id = model.preprocessor.tokenizer.pad_token_id
    tokens = tf.gather(ids, chunk.position)  # [c, w]
    tokens = tf.where(chunk.inside, tokens, pad_id)
    return {"token_ids": tokens, "padding_mask": chunk.inside}
