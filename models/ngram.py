"""The n-gram language model: interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from .backbone import AnyOf, Cache, CausalBackbone, Tensor, require, token_inputs
from .causal_lm import CausalLM, CausalLMPreprocessor

# KenLM's, for an order whose counts of counts give none.
_FALLBACK_DISCOUNTS = np.array([0.5, 1.0, 1.5])
_NO_TOKEN = -1
_NO_KEY = -1
_LAST_KEY = np.iinfo(np.int64).max
# Stands for a probability of zero, so that every logarithm is finite.
_TINY = np.finfo(np.float32).tiny
_DOCUMENTS_A_CHUNK = 256


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
            context_keys=np.array([_LAST_KEY]),
            backoffs=np.ones(1),
            ngram_keys=np.array([_LAST_KEY]),
            probabilities=np.zeros(1),
            unigrams=np.full(vocabulary_size, 1 / vocabulary_size),
        )


class _Ngrams(NamedTuple):
    """The n-grams of one order: sorted keys, occurrences, those that begin a sequence.

    A unigram's key is its token.
    """

    keys: np.ndarray
    counts: np.ndarray
    beginnings: np.ndarray


def estimate_kneser_ney(
    ids: np.ndarray,
    lengths: np.ndarray,
    *,
    vocabulary_size: int,
    order: int,
    unpredictable: Collection[int] = (),
) -> tuple[KneserNeyTables, float]:
    """Interpolated modified Kneser-Ney probabilities of n-grams up to `order`.

    The first token of a sequence is context only. Below the highest order an n-gram
    counts once for every different token seen before it, and once for each time that
    it begins a sequence, where nothing is before it (as in KenLM). The three
    discounts of an order come from its counts of counts; if one of the first four is
    zero, or a discount is out of range, they are 0.5, 1 and 1.5. Unigrams are
    interpolated with the uniform distribution.

    Time and memory are those of sorting the tokens twice an order: about 60 bytes a
    token at the peak.

    Args:
        ids: integer array `(num_tokens,)`, the sequences one after another.
        lengths: integer array `(num_sequences,)`.
        vocabulary_size: int. All ids are below it.
        order: int. Tokens of the longest n-gram, at least 1.
        unpredictable: ids that have probability zero, unless they were seen after
            another token.

    Returns:
        The tables, and their cross-entropy on `ids` in nats a predicted token.

    Raises:
        ValueError: if an id is out of range, or no token follows another.

    References:
        - [Kneser and Ney, 1995](https://doi.org/10.1109/ICASSP.1995.479394)
        - [Chen and Goodman, 1999](https://doi.org/10.1006/csla.1999.0128)
        - [Heafield et al., 2013](https://aclanthology.org/P13-2121/)
    """
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
    context_keys, orders = _count(ids, lengths, vocabulary_size, order)
    suffixes = [
        _suffixes(longer.keys, shorter.keys, context_keys, vocabulary_size)
        for shorter, longer in itertools.pairwise(orders)
    ]
    counts = [
        shorter.beginnings + np.bincount(suffix, minlength=len(shorter.keys))
        for shorter, suffix in zip(orders, suffixes, strict=False)
    ] + [orders[-1].counts]
    held_back = [_discounts(c)[np.minimum(c, 3) - 1] for c in counts]

    tables = KneserNeyTables(
        np.append(context_keys, _LAST_KEY),
        *_higher_orders(orders, counts, held_back, len(context_keys), vocabulary_size),
        _unigrams(
            orders[0].keys, counts[0], held_back[0], vocabulary_size, unpredictable
        ),
    )
    return tables, _cross_entropy(tables, orders, suffixes)


def _count(
    ids: np.ndarray, lengths: np.ndarray, vocabulary_size: int, order: int
) -> tuple[np.ndarray, list[_Ngrams]]:
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
        orders.append(_Ngrams(keys, counts, beginnings))
    return np.concatenate(context_keys), orders


def _suffixes(
    longer: np.ndarray, shorter: np.ndarray, context_keys: np.ndarray, size: int
) -> np.ndarray:
    """Where in `shorter` each n-gram of `longer` is, without its first token."""
    context, last = np.divmod(longer, size)
    parent = context_keys[context - 1] // size
    return np.searchsorted(shorter, parent * size + last)


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
    orders: list[_Ngrams],
    counts: list[np.ndarray],
    held_back: list[np.ndarray],
    num_contexts: int,
    vocabulary_size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backoffs, keys and probabilities of all orders but the first."""
    none = [np.empty(0, np.int64)]
    keys = np.concatenate(none + [ngrams.keys for ngrams in orders[1:]])
    count = np.concatenate(none + counts[1:])
    discount = np.concatenate(none + held_back[1:])
    context = keys // vocabulary_size
    totals = np.bincount(context, count, minlength=num_contexts + 1)
    backoffs = np.bincount(context, discount, minlength=num_contexts + 1)
    totals[0] = backoffs[0] = 1
    probabilities = (count - discount) / totals[context]
    return (
        backoffs / totals,
        np.append(keys, _LAST_KEY),
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
    tables: KneserNeyTables, orders: list[_Ngrams], suffixes: list[np.ndarray]
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
    return float(loss / orders[0].counts.sum())


@keras.saving.register_keras_serializable(package="langzoo")
class KneserNey(keras.layers.Layer):
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
        self.supports_jit = False

    def build(self, input_shape: Any) -> None:
        self._add_tables(KneserNeyTables.uniform(self.vocabulary_size))

    @property
    def tables(self) -> KneserNeyTables:
        """The tables as NumPy arrays."""
        return KneserNeyTables(*(ops.convert_to_numpy(w) for w in self._tables))

    @tables.setter
    def tables(self, tables: KneserNeyTables) -> None:
        self._tracker.unlock()
        for weight in self._tables:
            self._untrack_variable(weight)
        self._add_tables(tables)
        self._tracker.lock()

    def _add_tables(self, tables: KneserNeyTables) -> None:
        self._tables = [
            self.add_weight(
                name=name,
                shape=table.shape,
                # Bound as a default, as initializers run when they are called.
                initializer=lambda shape, dtype, table=table: ops.convert_to_tensor(
                    table, dtype
                ),
                dtype="int64" if name.endswith("keys") else self.variable_dtype,
                trainable=False,
                autocast=False,
            )
            for name, table in zip(tables._fields, tables, strict=True)
        ]

    def save_own_variables(self, store: Any) -> None:
        for name, weight in zip(KneserNeyTables._fields, self._tables, strict=True):
            store[name] = weight

    def load_own_variables(self, store: Any) -> None:
        self.tables = KneserNeyTables(
            *(np.asarray(store[name]) for name in KneserNeyTables._fields)
        )

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
        padded = padded_on_the_left(token_ids, self.order - 1)
        columns = tf.range(length)[:, None] + tf.range(self.order - 1, 0, -1)
        return tf.gather(padded, columns, axis=1)

    def log_probabilities(self, contexts: Tensor) -> Tensor:
        """Of every token after each context.

        Args:
            contexts: int32 tensor of shape `(..., order - 1)`, see `contexts()`.

        Returns:
            A tensor of shape `(..., vocabulary_size)`, in the compute dtype.
        """
        nodes, weights = self._nodes(contexts)
        probabilities = self._probabilities(nodes, weights)
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
        nodes, weights = self._nodes(contexts)
        token = tf.cast(tf.reshape(targets, [-1]), tf.int64)
        keys = nodes * self.vocabulary_size + token[:, None]
        place, found = _find(ngram_keys, keys)
        own = tf.where(found, tf.gather(probabilities, place), 0.0)
        probability = tf.reduce_sum(own * weights[:, 1:], axis=-1)
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
        tokens = tf.cast(tokens, tf.int64)
        node, seen = tf.zeros(rows, tf.int64), tf.ones(rows, tf.bool)
        path = []
        for age in range(self.order - 1):
            key = node * self.vocabulary_size + tokens[:, age]
            seen &= tokens[:, age] != _NO_TOKEN
            place, seen = _find(context_keys, tf.where(seen, key, _NO_KEY))
            node = tf.where(seen, place + 1, 0)
            path.append(node)
        nodes = tf.stack(path, axis=-1) if path else tokens
        factors = tf.pad(
            tf.gather(backoffs, nodes), [[0, 0], [0, 1]], constant_values=1.0
        )
        return nodes, tf.math.cumprod(factors, axis=-1, reverse=True)

    def _probabilities(self, nodes: Tensor, weights: Tensor) -> Tensor:
        """Whole distributions `(N, vocabulary_size)` from what `_nodes` returned."""
        _, _, ngram_keys, probabilities, unigrams = self._tensors()
        size = self.vocabulary_size
        result = weights[:, :1] * unigrams
        if self.order == 1:
            return result
        # Every n-gram that continues a node adds to the row of that node.
        node = tf.reshape(nodes, [-1])
        begin = _lower_bound(ngram_keys, node * size)
        number = _lower_bound(ngram_keys, (node + 1) * size) - begin
        offset = tf.concat([[0], tf.cumsum(number)], axis=0)
        index = tf.range(offset[-1])
        owner = _upper_bound(offset, index) - 1
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
    return tf.pad(token_ids, [[0, 0], [width, 0]], constant_values=_NO_TOKEN)


def _find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where in sorted `keys` each of `wanted` is or would be, and whether it is."""
    place = _lower_bound(keys, wanted)
    return place, tf.equal(tf.gather(keys, place), wanted)


# `tf.searchsorted` cannot search for nothing, as an empty batch does.
def _lower_bound(keys: Tensor, wanted: Tensor) -> Tensor:
    """The first places in sorted `keys` that are not below `wanted`, int64."""
    place = tf.raw_ops.LowerBound(
        sorted_inputs=keys[None],
        values=tf.reshape(wanted, [1, -1]),
        out_type=tf.int64,
    )
    return tf.reshape(place, tf.shape(wanted))


def _upper_bound(keys: Tensor, wanted: Tensor) -> Tensor:
    """The first places in sorted `keys` that are above `wanted`, int64."""
    place = tf.raw_ops.UpperBound(
        sorted_inputs=keys[None],
        values=tf.reshape(wanted, [1, -1]),
        out_type=tf.int64,
    )
    return tf.reshape(place, tf.shape(wanted))


@keras.saving.register_keras_serializable(package="langzoo")
class NgramBackbone(CausalBackbone):
    """An n-gram model with interpolated modified Kneser-Ney smoothing.

    Its hidden states are the log-probabilities of the next token, so `hidden_dim` is
    `vocabulary_size`. It learns by counting, with `adapt()`; before that all tokens
    are equally likely. Its cache is the last `order - 1` tokens.

    Args:
        vocabulary_size: int. Number of token ids.
        order: int. Tokens of the longest n-gram: a prediction sees the `order - 1`
            tokens before. Defaults to 5.
        max_sequence_length: int. Longest input that the model is made for; nothing
            depends on it. Defaults to 128.
        dtype: string or `keras.DTypePolicy`. Of tables and outputs.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, vocabulary_size)`.

    Example:
    ```python
    backbone = NgramBackbone(vocabulary_size=260, order=3)
    backbone.adapt(np.array([2, 101, 102, 3]), lengths=np.array([4]))
    log_probabilities = backbone(
        {
            "token_ids": np.array([[2, 101]], "int32"),
            "padding_mask": np.ones((1, 2), "bool"),
        }
    )
    ```

    References:
        - [Kneser and Ney, 1995](https://doi.org/10.1109/ICASSP.1995.479394)
        - [Chen and Goodman, 1999](https://doi.org/10.1006/csla.1999.0128)
    """

    def __init__(
        self,
        vocabulary_size: int,
        order: int = 5,
        max_sequence_length: int = 128,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        require(order >= 1, "`order` must be at least 1.", order=order)

        # === Layers ===
        self.token_embedding = KneserNey(
            vocabulary_size, order, dtype=dtype, name="kneser_ney"
        )

        # === Functional Model ===
        inputs = token_inputs()
        x = self.token_embedding(inputs["token_ids"])
        super().__init__(inputs=inputs, outputs=x, dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.order = order
        self.hidden_dim = vocabulary_size
        self.max_sequence_length = max_sequence_length

    def adapt(
        self,
        ids: np.ndarray,
        lengths: np.ndarray,
        unpredictable: Collection[int] = (),
    ) -> float:
        """Learns from sequences, in place of what was learned before.

        Args:
            ids: see `estimate_kneser_ney`.
            lengths: see `estimate_kneser_ney`.
            unpredictable: see `estimate_kneser_ney`.

        Returns:
            The cross-entropy on `ids`, in nats a token.
        """
        self.token_embedding.tables, loss = estimate_kneser_ney(
            ids,
            lengths,
            vocabulary_size=self.vocabulary_size,
            order=self.order,
            unpredictable=unpredictable,
        )
        _forget_graphs(self)
        return loss

    def token_log_probabilities(self, token_ids: Tensor, target_ids: Tensor) -> Tensor:
        """Log-probabilities of the tokens that follow, in nats.

        The same numbers as in the model's output, without the rest of the vocabulary.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
            target_ids: integer tensor of that shape, the token after each position.

        Returns:
            A tensor of that shape.
        """
        contexts = self.token_embedding.contexts(token_ids)
        return self.token_embedding.target_log_probabilities(contexts, target_ids)

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """The tokens before the text, of which there are none.

        Returns:
            An int32 tensor of shape `(batch_size, order - 1)`, the newest last.
        """
        return ops.full((batch_size, self.order - 1), _NO_TOKEN, "int32")

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        tokens = ops.concatenate([cache, ops.cast(token_ids, "int32")], axis=1)[:, 1:]
        contexts = ops.flip(tokens, axis=1)[:, None]
        return self.token_embedding.log_probabilities(contexts), tokens

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        width = self.order - 1
        columns = ops.cast(length, "int32") + ops.arange(width, dtype="int32")
        padded = padded_on_the_left(ops.cast(token_ids, "int32"), width)
        return ops.take(padded, columns, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "order": self.order,
            "max_sequence_length": self.max_sequence_length,
        }


class _Sequences(NamedTuple):
    """Token ids of sequences one after another, and each sequence's length."""

    ids: np.ndarray
    lengths: np.ndarray


@keras.saving.register_keras_serializable(package="langzoo")
class NgramCausalLM(CausalLM):
    """A language model that counts n-grams.

    It is a `CausalLM` like any other, but `fit` goes over the text once, and counts.
    What is left out of the vocabulary is `<pad>` and `<s>`: all other tokens, `<unk>`
    among them, have positive probabilities that sum to one after any context. (A
    neural model's softmax gives a share to those two as well, which it learns to be
    nothing.)

    Args:
        backbone: an `NgramBackbone`.
        preprocessor: a `CausalLMPreprocessor`, or `None` if inputs are always token
            ids. Defaults to `None`.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: as those of `CausalLM`. The logits are log-probabilities.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = NgramCausalLM(
        backbone=NgramBackbone(tokenizer.vocabulary_size(), order=4),
        preprocessor=CausalLMPreprocessor(tokenizer, sequence_length=64),
    )
    model.fit(["to be, or not to be", "that is the question"])
    model.generate("to be", max_length=32)
    model.score(["to be"])  # log-probabilities of 5 bytes and `</s>`
    model.save_to_preset("to_be")
    ```
    """

    backbone_cls = AnyOf(NgramBackbone)
    preprocessor_cls = CausalLMPreprocessor

    def compile(self, *args: Any, jit_compile: Any = False, **kwargs: Any) -> None:
        """Configures generation and evaluation, see `CausalLM.compile`.

        Args:
            *args: arguments of `CausalLM.compile`.
            jit_compile: ignored, as XLA cannot compile the look-up.
            **kwargs: arguments of `CausalLM.compile`.
        """
        super().compile(*args, jit_compile=False, **kwargs)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_data: Any = None,
        shuffle: bool = True,
        sample_weight: Any = None,
    ) -> keras.callbacks.History:
        """Learns from text, in place of what was learned before.

        Args:
            x: documents or windows. Documents are strings, or integer arrays of token
                ids without `<s>` and `</s>`: any iterable of them, or a
                `tf.data.Dataset`, batched or not. They are used whole, whatever the
                context length. Windows are what the preprocessor makes: a dictionary
                of `token_ids` and `padding_mask`, or a dataset of tuples
                `(x, y, sample_weight)`; no n-gram spans two of them.
            y: the next tokens, if `x` is a dictionary.
            batch_size: int. For `validation_data` only.
            epochs: ignored; so are `verbose` and `shuffle`.
            verbose: ignored.
            callbacks: list of callbacks, for one epoch without batches.
            validation_data: a dataset or a tuple `(x, y, sample_weight)` of what
                `evaluate()` takes, for `val_loss` and the like.
            shuffle: ignored.
            sample_weight: where `y` is real, if `x` is a dictionary.

        Returns:
            A `History` of one epoch, whose `loss` is in nats a token.

        Raises:
            ValueError: if there is no token, or an id is out of range.
        """
        self._assert_compile_called("fit")
        listeners = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=self
        )
        listeners.on_train_begin()
        listeners.on_epoch_begin(0)
        sequences = _all(self._sequences(x, y, sample_weight))
        logs = {"loss": self.backbone.adapt(*sequences, self._unpredictable())}
        _forget_graphs(self)
        if validation_data is not None:
            values = keras.utils.unpack_x_y_sample_weight(validation_data)
            results = self.evaluate(
                *values[:2],
                batch_size=batch_size,
                sample_weight=values[2],
                verbose=0,
                return_dict=True,
            )
            logs |= {f"val_{name}": value for name, value in results.items()}
        listeners.on_epoch_end(0, logs)
        listeners.on_train_end(logs)
        return self.history

    def token_log_probabilities(
        self, inputs: dict[str, Tensor], target_ids: Tensor
    ) -> Tensor:
        """What the logits say of given tokens, at a cost without the vocabulary.

        Args:
            inputs: the inputs of the model; of these only `token_ids` is read.
            target_ids: integer tensor of shape `(batch_size, sequence_length)`.

        Returns:
            A float32 tensor of that shape, in nats.
        """
        token_ids = tf.convert_to_tensor(inputs["token_ids"])
        target_ids = tf.convert_to_tensor(target_ids)
        log_probabilities = self.backbone.token_log_probabilities(token_ids, target_ids)
        return ops.cast(log_probabilities, "float32")

    def _unpredictable(self) -> set[int]:
        tokenizer = self._tokenizer
        if tokenizer is None:
            return set()
        return {tokenizer.pad_token_id, tokenizer.start_token_id}

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.preprocessor, "tokenizer", None)

    def _sequences(
        self, x: Any, y: Any = None, sample_weight: Any = None
    ) -> Iterator[_Sequences]:
        """All sequences to learn from, some at a time."""
        if isinstance(x, tf.data.Dataset):
            for element in _batched(x):
                values = keras.utils.unpack_x_y_sample_weight(element)
                yield from self._sequences(*values)
        elif isinstance(x, dict):
            yield self._windows(x, y, sample_weight)
        elif isinstance(x, tf.RaggedTensor):
            ids, lengths = x.flat_values.numpy(), x.row_lengths().numpy()
            yield self._framed(_Sequences(ids, lengths))
        else:
            yield from self._documents(x.numpy() if tf.is_tensor(x) else x)

    def _documents(self, x: Iterable[Any]) -> Iterator[_Sequences]:
        require(not isinstance(x, (str, bytes)), "Give a list of strings.", x=x)
        if isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "iu":
            x = [x]
        for chunk in _chunks(x):
            is_text = isinstance(chunk[0], (str, bytes))
            yield self._framed(self._tokenized(chunk) if is_text else _joined(chunk))

    def _tokenized(self, texts: list[str | bytes]) -> _Sequences:
        require(
            self._tokenizer is not None,
            "A model without a preprocessor cannot take strings.",
            texts=texts[:1],
        )
        ids = self._tokenizer.tokenize(tf.constant(texts))
        return _Sequences(ids.flat_values.numpy(), ids.row_lengths().numpy())

    def _framed(self, documents: _Sequences) -> _Sequences:
        """Documents between `<s>` and `</s>`, if the model knows them."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            return documents
        lengths = documents.lengths + 2
        ends = np.cumsum(lengths)
        ids = np.empty(lengths.sum(), np.int32)
        is_token = np.ones(len(ids), bool)
        is_token[ends - 1] = is_token[ends - lengths] = False
        ids[is_token] = documents.ids
        ids[ends - lengths] = tokenizer.start_token_id
        ids[ends - 1] = tokenizer.end_token_id
        return _Sequences(ids, lengths)

    def _windows(self, x: dict[str, Any], y: Any, sample_weight: Any) -> _Sequences:
        """The real tokens of windows, a sequence a row, cut before each `<s>`."""
        ids, real = np.asarray(x["token_ids"]), np.asarray(x["padding_mask"])
        if y is not None:
            weight = np.ones(np.shape(y)) if sample_weight is None else sample_weight
            ids = np.concatenate([ids[:, :1], np.asarray(y)], axis=1)
            real = np.concatenate([real[:, :1], np.asarray(weight) > 0], axis=1)
        first = np.zeros(ids.shape, bool)
        first[:, 0] = True
        if self._tokenizer is not None:
            # It is never predicted, so its own weight may be zero.
            is_start = ids == self._tokenizer.start_token_id
            first, real = first | is_start, real | is_start
        number = np.cumsum(first)[real.ravel()]
        _, lengths = np.unique(number, return_counts=True)
        return _Sequences(ids[real].astype(np.int32), lengths)


def _all(parts: Iterable[_Sequences]) -> _Sequences:
    parts = list(parts)
    require(bool(parts), "There must be a document.", documents=parts)
    return _Sequences(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _forget_graphs(model: keras.Model) -> None:
    """Drops what was traced with variables that are no longer there."""
    model.predict_function = model.test_function = model.train_function = None
    if hasattr(model, "generate_function"):
        model.generate_function = None


def _batched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, with single strings in batches."""
    spec = tf.nest.flatten(dataset.element_spec)[0]
    if spec.dtype == tf.string and spec.shape.rank == 0:
        return dataset.batch(_DOCUMENTS_A_CHUNK)
    return dataset


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, _DOCUMENTS_A_CHUNK)):
        yield chunk


def _joined(documents: list[Any]) -> _Sequences:
    arrays = [np.asarray(document) for document in documents]
    for array in arrays:
        require(
            array.ndim == 1 and (array.dtype.kind in "iu" or not array.size),
            "A document must be a string or a vector of integers.",
            document=array,
        )
    lengths = np.array([len(array) for array in arrays])
    return _Sequences(np.concatenate(arrays).astype(np.int32), lengths)
