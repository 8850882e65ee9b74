"""Counting n-grams of a text of any length, in memory that is bounded.

The text may lie on disk. It is read part by part, twice for each order: for the
contexts, and for the n-grams behind them. Where there are more of them than may be
held, the rarest give way, and what they had in a context goes to shorter ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

PART = 2**20
"""Tokens of a part. A text of two is counted at once."""


class Ngrams(NamedTuple):
    """The n-grams of one order: sorted keys, occurrences, those that begin a sequence.

    A unigram's key is its token.
    """

    keys: np.ndarray
    counts: np.ndarray
    beginnings: np.ndarray


class Part(NamedTuple):
    """Some tokens with those before them, and where in these a token is predicted."""

    ids: np.ndarray
    at: np.ndarray
    position: np.ndarray


def parts_of(
    ids: np.ndarray, lengths: np.ndarray, order: int, size: int
) -> Iterator[Part]:
    """The predicted tokens of sequences, which `position` tokens come before.

    Args:
        ids: integer array `(num_tokens,)`, the sequences one after another.
        lengths: integer array `(num_sequences,)`.
        order: int. Tokens of the longest n-gram.
        size: int. Tokens of a part.
    """
    starts = np.cumsum(lengths) - lengths
    for begin in range(0, len(ids), size):
        at = np.arange(begin, min(begin + size, len(ids)))
        position = at - starts[np.searchsorted(starts, at, "right") - 1]
        at, position = at[position > 0], position[position > 0]
        first = max(begin - order + 1, 0)
        window = np.asarray(ids[first : begin + size])
        yield Part(window, at - first, position)


def count_in_parts(
    ids: np.ndarray,
    lengths: np.ndarray,
    *,
    vocabulary_size: int,
    order: int,
    most: int,
    size: int = PART,
) -> tuple[np.ndarray, list[Ngrams], np.ndarray]:
    """The keys of contexts, the n-grams of each order, and what contexts have lost.

    Args:
        ids: see `parts_of`.
        lengths: see `parts_of`.
        vocabulary_size: int. All ids are below it.
        order: int. Tokens of the longest n-gram.
        most: int. How many contexts and n-grams of an order are held.
        size: int. Tokens of a part.

    Returns:
        Keys and n-grams as `kneser_ney` has them; and of each node of the trie, int64
        `(num_contexts + 1,)`, how often it was followed by what is not kept.
    """
    levels: list[np.ndarray] = []
    orders: list[Ngrams] = []
    followed = [np.zeros(1, np.int64)]
    for length in range(order):
        if length:
            contexts = _Tally(most)
            for part in parts_of(ids, lengths, order, size):
                at, node, _ = _reached(part, levels, length, vocabulary_size)
                contexts.add(node * vocabulary_size + part.ids[at - length])
            levels.append(contexts.keys)
            followed.append(contexts.counts)
        ngrams = _Tally(most)
        for part in parts_of(ids, lengths, order, size):
            at, node, begins = _reached(part, levels, length, vocabulary_size)
            ngrams.add(node * vocabulary_size + part.ids[at], begins)
        orders.append(Ngrams(ngrams.keys, ngrams.counts, ngrams.beginnings))
    context_keys = np.concatenate([np.empty(0, np.int64), *levels])
    lost = np.concatenate(followed)
    for number, ngrams_ in enumerate(orders[1:], start=1):
        orders[number] = kept = _with_suffixes(
            ngrams_, orders[number - 1], context_keys, vocabulary_size
        )
        np.subtract.at(lost, kept.keys // vocabulary_size, kept.counts)
    return context_keys, orders, lost


def suffixes_of(
    keys: np.ndarray, shorter: np.ndarray, context_keys: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where in `shorter` each n-gram is without its first token, and whether it is."""
    context, last = np.divmod(keys, size)
    wanted = context_keys[context - 1] // size * size + last
    place = np.searchsorted(shorter, wanted)
    found = shorter[np.minimum(place, len(shorter) - 1)] == wanted
    return place, found


def _with_suffixes(
    ngrams: Ngrams, shorter: Ngrams, context_keys: np.ndarray, size: int
) -> Ngrams:
    _, found = suffixes_of(ngrams.keys, shorter.keys, context_keys, size)
    return Ngrams(*(array[found] for array in ngrams))


def _reached(
    part: Part, levels: list[np.ndarray], length: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the contexts up to `length` tokens are known, as far as there are levels.

    Returns:
        The places, the node of each one's longest context, and whether nothing comes
        before `length` tokens there.
    """
    inside = part.position >= length
    at, begins = part.at[inside], part.position[inside] == length
    node, first = np.zeros(len(at), np.int64), 1
    for age, keys in enumerate(levels, start=1):
        wanted = node * size + part.ids[at - age]
        place = np.searchsorted(keys, wanted)
        found = np.zeros(len(at), bool)
        within = place < len(keys)
        found[within] = keys[place[within]] == wanted[within]
        at, node, begins = at[found], first + place[found], begins[found]
        first += len(keys)
    return at, node, begins


class _Tally:
    """Keys with their counts; where there are too many, the rarest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.keys = self.counts = self.beginnings = np.empty(0, np.int64)

    def add(self, keys: np.ndarray, begins: np.ndarray | None = None) -> None:
        """Counts keys, and how many of them begin a sequence."""
        flags = np.zeros(len(keys), bool) if begins is None else begins
        keys = np.concatenate([self.keys, keys])
        counts = np.concatenate([self.counts, np.ones(len(flags), np.int64)])
        beginnings = np.concatenate([self.beginnings, flags])
        self.keys, index = np.unique(keys, return_inverse=True)
        self.counts, self.beginnings = (
            np.bincount(index, values, minlength=len(self.keys)).astype(np.int64)
            for values in (counts, beginnings)
        )
        if len(self.keys) > self._most:
            self._prune()

    def _prune(self) -> None:
        """Leaves at most half of what may be held, the most frequent."""
        # How many keys have a count of so many, or more.
        at_least = np.bincount(self.counts)[::-1].cumsum()[::-1]
        kept = self.counts >= np.argmax(np.append(at_least, 0) <= self._most // 2)
        self.keys, self.counts = self.keys[kept], self.counts[kept]
        self.beginnings = self.beginnings[kept]
