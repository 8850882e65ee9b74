"""The n-gram language model: interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ...backbone import Tensor, require
from .counting import PART, Ngrams, count_in_parts, suffixes_of
from .family import NgramSettings
from .tables import LAST_KEY, TableLayer, find, lower_bound, upper_bound

# KenLM's, for an order whose counts of counts give none.
_FALLBACK_DISCOUNTS = np.array([0.5, 1.0, 1.5])
NO_TOKEN = -1
"""Stands before the beginning of a text."""
_NO_KEY = -1
# Stands for a probability of zero, so that every logarithm is finite.
_TINY = np.finfo(np.float32).tiny


class KneserNeyTables(NamedTuple):
    """A Kneser-Ney model as five arrays.

    Contexts are the nodes of a trie: a context's parent is the context without its
    oldest token. Node 0 is the empty context, and node `i + 1` the context with the
    key `context_keys[i] = parent * vocabulary_size + oldest token`. An n-gram of two
    or more tokens has the key `context * vocabulary_size + last token`. Keys are
    exact, sorted, and end with one that is larger than any, so that a binary search
    always finds a place.

    With n the longest seen context that a history ends with, the probability of a
    token w is `p(w | n) = probabilities[n w] + backoffs[n] * p(w | parent of n)`, and
    `unigrams[w]` after the empty context.

    Attributes:
        context_keys: int64 `(num_contexts + 1,)`.
        backoffs: float `(num_contexts + 1,)`, by node; 1 for the empty context.
        ngram_keys: int64 `(num_ngrams + 1,)`.
        probabilities: float `(num_ngrams + 1,)`. Discounted relative frequencies.
        unigrams: float `(vocabulary_size,)`. They sum to one.
    """

    context_keys: np.ndarray
    backoffs: np.ndarray
    ngram_keys: np.ndarray
    probabilities: np.ndarray
    unigrams: np.ndarray

    @classmethod
    def uniform(cls, vocabulary_size: int) -> KneserNeyTables:
        """The model that has seen nothing."""
        return cls(
            context_keys=np.array([LAST_KEY]),
            backoffs=np.ones(1),
            ngram_keys=np.array([LAST_KEY]),
            probabilities=np.zeros(1),
            unigrams=np.full(vocabulary_size, 1 / vocabulary_size),
        )


def estimate_kneser_ney(
    ids: np.ndarray,
    lengths: np.ndarray,
    *,
    vocabulary_size: int,
    order: int,
    unpredictable: Collection[int] = (),
    most: int = NgramSettings.model_fields["max_ngrams"].default,
) -> tuple[KneserNeyTables, float]:
    """Interpolated modified Kneser-Ney probabilities of n-grams up to `order`.

    The first token of a sequence is context only. Below the highest order an n-gram
    counts once for every different token seen before it, and once for each time that
    it begins a sequence, where nothing is before it (as in KenLM). The three
    discounts of an order come from its counts of counts; if one of the first four is
    zero, or a discount is out of range, they are 0.5, 1 and 1.5. Unigrams are
    interpolated with the uniform distribution. Where an order has more n-grams than
    may be held, or contexts, the rarest half gives way, and its mass goes to shorter
    contexts: so memory does not grow with the text.

    Args:
        ids: integer array `(num_tokens,)`, the sequences one after another; it may lie
            on disk, as a `numpy.memmap`.
        lengths: integer array `(num_sequences,)`.
        vocabulary_size: int. All ids are below it.
        order: int. Tokens of the longest n-gram, at least 1.
        unpredictable: ids that have probability zero, unless they were seen after
            another token.
        most: int. N-grams of an order that are held. Defaults to the setting's.

    Returns:
        The tables, and their cross-entropy in nats on the tokens of kept n-grams.

    Raises:
        ValueError: if an id is out of range, or no token follows another.

    References:
        - [Kneser and Ney, 1995](https://doi.org/10.1109/ICASSP.1995.479394)
        - [Chen and Goodman, 1999](https://doi.org/10.1006/csla.1999.0128)
        - [Heafield et al., 2013](https://aclanthology.org/P13-2121/)
    """
    _require_sequences(ids, lengths, vocabulary_size)
    sizes = {"vocabulary_size": vocabulary_size, "order": order}
    context_keys, orders, lost = _counted(ids, lengths, most, **sizes)
    suffixes = [
        suffixes_of(longer.keys, shorter.keys, context_keys, vocabulary_size)[0]
        for shorter, longer in itertools.pairwise(orders)
    ]
    counts = [*map(_continuations, orders, orders[1:], suffixes), orders[-1].counts]
    held_back = [_discounts(c)[np.minimum(c, 3) - 1] for c in counts]

    tables = KneserNeyTables(
        np.append(context_keys, LAST_KEY),
        *_higher_orders(orders, counts, held_back, lost, vocabulary_size),
        _unigrams(
            orders[0].keys, counts[0], held_back[0], vocabulary_size, unpredictable
        ),
    )
    return tables, _cross_entropy(tables, orders, suffixes)


def _counted(
    ids: np.ndarray, lengths: np.ndarray, most: int, **sizes: int
) -> tuple[np.ndarray, list[Ngrams], np.ndarray]:
    """See `count_in_parts`; a short text is counted at once, which is faster."""
    if len(ids) > 2 * PART:
        return count_in_parts(ids, lengths, **sizes, most=most)
    context_keys, orders = _count(np.asarray(ids), lengths, **sizes)
    return context_keys, orders, np.zeros(len(context_keys) + 1, np.int64)


def _require_sequences(
    ids: np.ndarray, lengths: np.ndarray, vocabulary_size: int
) -> None:
    require(
        bool(np.any(np.asarray(lengths) > 1)),
        "There must be a sequence of at least two tokens.",
        num_tokens=len(ids),
    )
    lowest, highest = int(np.min(ids)), int(np.max(ids))
    require(
        lowest >= 0 and highest < vocabulary_size,
        f"Token ids must be in range [0, {vocabulary_size - 1}].",
        lowest=lowest,
        highest=highest,
    )


def _count(
    ids: np.ndarray, lengths: np.ndarray, *, vocabulary_size: int, order: int
) -> tuple[np.ndarray, list[Ngrams]]:
    """The keys of all contexts, and the n-grams of each order."""
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(len(ids)) - first
    at = np.flatnonzero(position)  # where a token is predicted
    node = np.zeros(len(at), np.int64)
    context_keys = [np.empty(0, np.int64)]
    orders = []
    num_nodes = 1
    for context_length in range(order):
        if context_length:
            inside = position[at] >= context_length
            at, node = at[inside], node[inside]
            keys, index = np.unique(
                node * vocabulary_size + ids[at - context_length], return_inverse=True
            )
            context_keys.append(keys)
            node = num_nodes + index
            num_nodes += len(keys)
        ngrams = node * vocabulary_size + ids[at]
        keys, counts = np.unique(ngrams, return_counts=True)
        begins = np.searchsorted(keys, ngrams[position[at] == context_length])
        beginnings = np.bincount(begins, minlength=len(keys))
        orders.append(Ngrams(keys, counts, beginnings))
    return np.concatenate(context_keys), orders


def _continuations(shorter: Ngrams, longer: Ngrams, suffix: np.ndarray) -> np.ndarray:
    """How many tokens were seen before each n-gram, or that nothing was.

    Of longer n-grams that are not kept each occurrence is taken for another token's.
    """
    size = len(shorter.keys)
    kept = np.bincount(suffix, longer.counts, minlength=size).astype(np.int64)
    missing = shorter.counts - shorter.beginnings - kept
    distinct = np.bincount(suffix, minlength=size)
    return np.maximum(shorter.beginnings + distinct + missing, 1)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of one, of two, and of three or more."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5]
    if min(n1, n2, n3, n4) == 0:
        return _FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    discounts = np.array(
        [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    )
    in_range = (discounts > 0) & (discounts <= [1, 2, 3])
    return discounts if in_range.all() else _FALLBACK_DISCOUNTS


def _higher_orders(
    orders: list[Ngrams],
    counts: list[np.ndarray],
    held_back: list[np.ndarray],
    lost: np.ndarray,
    vocabulary_size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backoffs, keys and probabilities of all orders but the first."""
    none = [np.empty(0, np.int64)]
    keys = np.concatenate(none + [ngrams.keys for ngrams in orders[1:]])
    count = np.concatenate(none + counts[1:])
    discount = np.concatenate(none + held_back[1:])
    context = keys // vocabulary_size
    lost = np.maximum(lost, 0)
    totals = np.bincount(context, count, minlength=len(lost)) + lost
    backoffs = np.bincount(context, discount, minlength=len(lost)) + lost
    totals[0] = backoffs[0] = 1
    probabilities = (count - discount) / totals[context]
    return (
        backoffs / totals,
        np.append(keys, LAST_KEY),
        np.append(probabilities, 0.0),
    )


def _unigrams(
    tokens: np.ndarray,
    counts: np.ndarray,
    held_back: np.ndarray,
    vocabulary_size: int,
    unpredictable: Collection[int],
) -> np.ndarray:
    uniform = np.ones(vocabulary_size)
    uniform[list(unpredictable)] = 0
    uniform[tokens] = 1
    unigrams = held_back.sum() * uniform / uniform.sum()
    unigrams[tokens] += counts - held_back
    return unigrams / counts.sum()


def _cross_entropy(
    tables: KneserNeyTables, orders: list[Ngrams], suffixes: list[np.ndarray]
) -> float:
    """Mean loss on the n-grams that were counted, in nats a token."""
    probability = tables.unigrams[orders[0].keys]
    # A token early in its sequence is the last of a shorter n-gram that begins it.
    occurrences = [ngrams.beginnings for ngrams in orders[:-1]] + [orders[-1].counts]
    loss = -np.dot(occurrences[0], np.log(probability))
    offset = 0
    for ngrams, suffix, times in zip(
        orders[1:], suffixes, occurrences[1:], strict=True
    ):
        context = ngrams.keys // len(tables.unigrams)
        own = tables.probabilities[offset : offset + len(ngrams.keys)]
        probability = own + tables.backoffs[context] * probability[suffix]
        loss -= np.dot(times, np.log(probability))
        offset += len(ngrams.keys)
    return float(loss / sum(times.sum() for times in occurrences))


@keras.saving.register_keras_serializable(package="langzoo")
class KneserNey(TableLayer):
    """Log-probabilities of the next token, looked up in Kneser-Ney tables.

    It stands where other backbones have their token embedding: `layer(token_ids)` is
    already the distribution of the next token, so `layer(outputs, reverse=True)` gives
    back what it is given. A probability of zero is shown as `log(1.2e-38)`.

    The tables are weights that no gradient changes, and their sizes are those of the
    data. In a half-precision policy they are stored, and the outputs are returned, in
    half precision; in between all is float32. XLA cannot compile the layer, as the
    number of n-grams that follow a context is known only when it is looked up.

    Args:
        vocabulary_size: int. Number of token ids.
        order: int. Tokens of the longest n-gram.

    Call arguments:
        inputs: int32 tensor of shape `(batch_size, sequence_length)`, or with
            `reverse` a float tensor.
        reverse: bool. Whether `inputs` are outputs of the layer. Defaults to `False`.

    Returns:
        A float tensor of shape `(batch_size, sequence_length, vocabulary_size)`.
    """

    def __init__(self, vocabulary_size: int, order: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.order = order

    def empty_tables(self) -> KneserNeyTables:
        return KneserNeyTables.uniform(self.vocabulary_size)

    def call(self, inputs: Tensor, reverse: bool = False) -> Tensor:
        return inputs if reverse else self.log_probabilities(self.contexts(inputs))

    def contexts(self, token_ids: Tensor) -> Tensor:
        """The last tokens at every position, the newest first.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.

        Returns:
            An int32 tensor of shape `(batch_size, sequence_length, order - 1)`; -1
            where the sequence had not begun.
        """
        length = tf.shape(token_ids)[1]
        padded = padded_on_the_left(token_ids, self.order - 1)  # (B, order - 1 + T)
        # (T, order - 1)
        columns = tf.range(length)[:, None] + tf.range(self.order - 1, 0, -1)
        return tf.gather(padded, columns, axis=1)  # (B, T, order - 1)

    def log_probabilities(self, contexts: Tensor) -> Tensor:
        """Of every token after each context.

        Args:
            contexts: int32 tensor of shape `(..., order - 1)`, see `contexts()`.

        Returns:
            A tensor of shape `(..., vocabulary_size)`, in the compute dtype.
        """
        nodes, weights = self._nodes(contexts)  # (N, order - 1), (N, order)
        probabilities = self._probabilities(nodes, weights)  # (N, V)
        shape = tf.concat([tf.shape(contexts)[:-1], [self.vocabulary_size]], axis=0)
        return tf.reshape(self._log(probabilities), shape)

    def target_log_probabilities(self, contexts: Tensor, targets: Tensor) -> Tensor:
        """Of one token after each context, without the rest of the vocabulary.

        Args:
            contexts: int32 tensor of shape `(..., order - 1)`, see `contexts()`.
            targets: integer tensor of shape `(...)`.

        Returns:
            A tensor of shape `(...)`, in the compute dtype.
        """
        _, _, ngram_keys, probabilities, unigrams = self._tensors()
        nodes, weights = self._nodes(contexts)  # (N, order - 1), (N, order)
        token = tf.cast(tf.reshape(targets, [-1]), tf.int64)  # (N,)
        keys = nodes * self.vocabulary_size + token[:, None]  # (N, order - 1)
        place, found = find(ngram_keys, keys)
        own = tf.where(found, tf.gather(probabilities, place), 0.0)
        probability = tf.reduce_sum(own * weights[:, 1:], axis=-1)  # (N,)
        probability += weights[:, 0] * tf.gather(unigrams, token)
        return tf.reshape(self._log(probability), tf.shape(targets))

    def _nodes(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Trie nodes of `N` contexts, `(..., order - 1)`, and what each order is worth.

        Returns:
            The nodes int64 `(N, order - 1)`, shortest context first, 0 where a
            context was not seen; and float32 `(N, order)`, what the probabilities of
            each order, unigrams first, are multiplied by.
        """
        context_keys, backoffs, *_ = self._tensors()
        rows = tf.reduce_prod(tf.shape(contexts)[:-1], keepdims=True)
        width = [self.order - 1]
        tokens = tf.reshape(contexts, tf.concat([rows, width], axis=0))
        tokens = tf.cast(tokens, tf.int64)  # (N, order - 1)
        node, seen = tf.zeros(rows, tf.int64), tf.ones(rows, tf.bool)
        path = []
        for age in range(self.order - 1):
            key = node * self.vocabulary_size + tokens[:, age]  # (N,)
            seen &= tokens[:, age] != NO_TOKEN
            place, seen = find(context_keys, tf.where(seen, key, _NO_KEY))
            node = tf.where(seen, place + 1, 0)
            path.append(node)
        nodes = tf.stack(path, axis=-1) if path else tokens  # (N, order - 1)
        factors = tf.pad(
            tf.gather(backoffs, nodes), [[0, 0], [0, 1]], constant_values=1.0
        )
        return nodes, tf.math.cumprod(factors, axis=-1, reverse=True)

    def _probabilities(self, nodes: Tensor, weights: Tensor) -> Tensor:
        """Whole distributions `(N, vocabulary_size)` from what `_nodes` returned."""
        _, _, ngram_keys, probabilities, unigrams = self._tensors()
        size = self.vocabulary_size
        result = weights[:, :1] * unigrams  # (N, V)
        if self.order == 1:
            return result
        # Every n-gram that continues a node adds to the row of that node.
        node = tf.reshape(nodes, [-1])  # (N * (order - 1),)
        begin = lower_bound(ngram_keys, node * size)
        number = lower_bound(ngram_keys, (node + 1) * size) - begin
        offset = tf.concat([[0], tf.cumsum(number)], axis=0)
        index = tf.range(offset[-1])  # (M,), an n-gram each, as what follows
        owner = upper_bound(offset, index) - 1
        ngram = index + tf.gather(begin - offset[:-1], owner)
        token = tf.gather(ngram_keys, ngram) - tf.gather(node, owner) * size
        row = owner // (self.order - 1)
        weight = tf.gather(tf.reshape(weights[:, 1:], [-1]), owner)
        flat = tf.tensor_scatter_nd_add(
            tf.reshape(result, [-1]),
            (row * size + token)[:, None],
            tf.gather(probabilities, ngram) * weight,
        )
        return tf.reshape(flat, tf.shape(result))

    def _tensors(self) -> list[Tensor]:
        """The tables, with numbers that are not keys in float32."""
        tensors = [tf.convert_to_tensor(weight) for weight in self._tables]
        return [t if t.dtype == tf.int64 else tf.cast(t, tf.float32) for t in tensors]

    def _log(self, probabilities: Tensor) -> Tensor:
        # In float32 the last bit of a logarithm depends on the place in the tensor, and
        # tokens that are equally likely would be ranked by it.
        log = tf.math.log(tf.cast(tf.maximum(probabilities, _TINY), tf.float64))
        return tf.cast(log, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "order": self.order,
        }


def padded_on_the_left(token_ids: Tensor, width: int) -> Tensor:
    """`token_ids` `(B, T)` after `width` columns of -1, which is no token."""
    return tf.pad(token_ids, [[0, 0], [width, 0]], constant_values=NO_TOKEN)
