"""Log-probabilities of documents of any length, in a graph or not, in bounded memory.

A causal model sees at most its context length at once: a longer document is read in the
windows of `windows`. With stride 0 they are disjoint, and the state of a recurrent
model goes on from one to the next: each token has all of its document before it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..backbone import require
from .in_order import Reading, map_in_order
from .results import Into, PerToken, Results
from .windows import Chunk, Inputs, Windows, map_tokens, map_windows

# Of a byte, or the end of a spelling, when all 257 are equally likely.
SYMBOL_NLL = math.log(257)

OUTCOME_RANKS = 5
OUTCOME_SPECS = tuple(
    tf.TensorSpec([None], dtype) for dtype in (tf.float32, tf.int32, tf.float32)
)


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
    # By hand: TensorFlow's own concatenation is a tenth of the graph of an export, and
    # takes many times the memory of a long text.
    splits = ids.row_splits + 2 * tf.range(ids.nrows() + 1)
    steps = tf.ones([tf.size(ids.flat_values) + 1], tf.int32)
    others = ids.row_splits[1:-1, tf.newaxis]  # of which each begins two later
    twos = tf.fill([tf.size(others)], 2)
    at = tf.cumsum(tf.tensor_scatter_nd_add(steps, others, twos))[:-1]
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

    def log_probability(logits: tf.Tensor, targets: tf.Tensor) -> Results:
        return (-tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits),)

    def score(features: Inputs, targets: tf.Tensor) -> Results:
        return (model.token_log_probabilities(features, targets),)

    into = PerToken(tf.TensorSpec([None], tf.float32))
    if stride:
        (scores,) = map_tokens(model, documents, score, into, stride=stride)
    else:
        (scores,) = map_logits(model, documents, log_probability, into, stride=0)
    return scores


def outcomes(logits: tf.Tensor, following: tf.Tensor) -> Results:
    """How tokens `[c, w]` were predicted, by logits `[c, w, v]`.

    Returns:
        Each `[c, w]`: float32, the log-probability in nats; int32, how many tokens were
        likelier, at most `OUTCOME_RANKS` (of equally likely ones the lower id comes
        first); float32, the probability of the likeliest token.
    """
    score = -tf.nn.sparse_softmax_cross_entropy_with_logits(following, logits)
    best, ids = tf.math.top_k(logits, min(OUTCOME_RANKS, logits.shape[-1]))
    likelier = tf.cast(ids != following[..., tf.newaxis], tf.int32)  # [c, w, 5]
    rank = tf.reduce_sum(tf.math.cumprod(likelier, axis=-1), axis=-1)  # [c, w]
    at_target = tf.gather(logits, following, axis=-1, batch_dims=2)
    return score, rank, tf.exp(score + best[..., 0] - at_target)


def map_logits(
    model: Any,
    documents: tf.RaggedTensor,
    function: Callable[[tf.Tensor, tf.Tensor], Results],
    into: Into,
    *,
    stride: int,
) -> Any:
    """As `map_tokens`, of a function of logits, float32 `[c, w, v]`.

    Raises:
        ValueError: if the stride is 0, and the model has no state that goes on.
    """
    if stride:

        def of_inputs(features: Inputs, following: tf.Tensor) -> Results:
            logits = model(features, training=False)  # [c, w, v]
            return function(tf.cast(logits, tf.float32), following)

        return map_tokens(model, documents, of_inputs, into, stride=stride)

    def of_reading(reading: Reading, memory: tuple) -> tuple[Results, tuple]:
        return function(reading.logits, reading.following), memory

    return map_in_order(model, documents, of_reading, into, stride=0)


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
