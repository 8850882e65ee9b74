"""Packing that keeps documents whole: rows of several, and rows of one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import InputError
from .settings import PACKINGS
from .windows import TokenStream, TokenWindows, read_lengths

_SHARES = (8, 4, 2, 1)
"""Of the context that the rows of `lines` are long."""
_CHUNK = 2**12
"""So many pieces are cut at a time, with those of one document more."""


def make_windows(
    path: str | os.PathLike[str], context_length: int, packing: str
) -> TokenStream:
    """The windows of a stream in one of `PACKINGS`.

    Args:
        path: File that `TokenStream.write` has written.
        context_length: Tokens that a row has room for.
        packing: See `TokenWindows` and `PackedWindows`.

    Raises:
        InputError: If there is no such packing.
    """
    if packing not in PACKINGS:
        raise InputError(
            f"trainer.packing must be one of {', '.join(PACKINGS)}, not {packing!r}"
        )
    if packing == "contiguous":
        return TokenWindows(path, context_length)
    return PackedWindows(path, context_length, packing)


def read_windows(
    path: str, context_length: int, packing: str, tokenizer: Any, own: None
) -> TokenStream:
    """The windows of `causal_lm`, see `Rows.read`."""
    del tokenizer, own
    return make_windows(path, context_length, packing)


class PackedWindows(TokenStream):
    """Rows of whole documents, or of pieces where they are longer than the context.

    A document of n tokens takes n + 1 places: `<s>` and the tokens are inputs, the
    tokens and `</s>` are targets. Where that is more than the context, the document is
    cut into pieces of whole contexts, but the first, which has what is left over; a
    piece goes on from the last token of the piece before. So every token is a target
    exactly once an epoch, no `<s>` is, and whatever shares a row begins with `<s>`.

    Two packings are on offer:

    - `best_fit`: as many pieces in a row of `context_length` as fit, by best-fit
      decreasing. A network must keep them apart: `models.packed.PackedNetwork`.
    - `lines`: a piece a row, for corpora of lines (translation, classification). A row
      is an eighth, a quarter, half or the whole of the context long, whichever is the
      least that holds it, and a batch has rows of one length, so that XLA compiles at
      most four times. The batch size counts rows, not tokens: a step on short lines
      is a fast one.

    In each epoch the rows, and then the batches, are in another order; the last batch
    of each length is filled up with rows of padding.

    Memory goes with the number of pieces: at most 50 bytes of each.

    Args:
        path: File that `write` has written.
        context_length: Tokens that the longest row has room for.
        packing: `best_fit` or `lines`.

    References:
        - [Ding et al., 2024](https://arxiv.org/abs/2404.10830) (best-fit packing)
    """

    def __init__(
        self, path: str | os.PathLike[str], context_length: int, packing: str
    ) -> None:
        super().__init__(path, context_length)
        starts, sizes = self._pieces()
        if packing == "lines":
            rows = np.arange(len(sizes), dtype=np.int32)
            lengths = {-(-context_length // share) for share in _SHARES}
        else:
            rows = best_fit(sizes, context_length)
            lengths = {context_length}
        order = np.argsort(rows, kind="stable")
        self._starts = starts[order]
        del starts
        self._sizes = sizes[order]
        del sizes, order
        # Row i has the pieces from splits[i] to splits[i + 1].
        numbers = np.bincount(rows)
        self._splits = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum(numbers, out=self._splits[1:])
        self._row_sizes = np.add.reduceat(
            self._sizes, self._splits[:-1], dtype=np.int32
        )
        self._row_lengths = np.array(sorted(lengths))

    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each piece begins, and how many inputs it has."""
        return cut(read_lengths(self._path), self.context_length)

    def __len__(self) -> int:
        return len(self._row_sizes)

    def steps_an_epoch(self, batch_size: int) -> int:
        """Batches that hold every row once."""
        return len(self._epoch(batch_size))

    def training_batches(
        self, batch_size: int, *, seed: int, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        rows_of = in_epochs(
            functools.partial(self._epoch, batch_size),
            *(seed, self.steps_an_epoch(batch_size)),
        )

        def place(step: int) -> np.ndarray:
            return self._places(rows_of(step))

        return self._batches(place, first_step, last_step, self._shape(batch_size))

    def evaluation_batches(
        self, batch_size: int, most: int | None = None
    ) -> tf.data.Dataset:
        """All rows once, the short ones first, or batches at equal distances."""
        epoch = at_most(self._epoch(batch_size), most)
        return self._batches(
            lambda step: self._places(epoch[step]),
            0,
            len(epoch),
            self._shape(batch_size),
        )

    def targets_a_step(self, batch_size: int) -> float:
        return float(self._row_sizes.sum() / max(1, self.steps_an_epoch(batch_size)))

    def _shape(self, batch_size: int) -> tuple[int, int | None]:
        alike = len(self._row_lengths) == 1
        return batch_size, self.context_length if alike else None

    def _epoch(
        self, batch_size: int, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """The rows of an epoch's batches, `[steps, batch_size]`, -1 for padding."""
        batches, shorter = [], 0
        for length in self._row_lengths:
            of_length = (self._row_sizes > shorter) & (self._row_sizes <= length)
            rows, shorter = np.flatnonzero(of_length).astype(np.int32), length
            if generator is not None:
                rows = generator.permutation(rows)
            rows = np.pad(rows, (0, -len(rows) % batch_size), constant_values=-1)
            batches.append(rows.reshape(-1, batch_size))
        epoch = np.concatenate(batches)
        return epoch if generator is None else generator.permutation(epoch)

    def _places(self, rows: np.ndarray) -> np.ndarray:
        """Where the inputs of rows of one length lie, `[batch, length]`."""
        size = self._row_sizes[rows[rows >= 0]].max()
        length = self._row_lengths[np.searchsorted(self._row_lengths, size)]
        places = np.full((len(rows), length), self.num_tokens)
        for row, into in zip(rows, places, strict=True):
            if row >= 0:
                pieces = slice(*self._splits[row : row + 2])
                held = ranges(self._starts[pieces], self._sizes[pieces])
                into[: len(held)] = held
        return places


def cut(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the documents of a stream into pieces of at most `size` predictions.

    Args:
        lengths: Tokens of each document, int64 `[documents]`.
        size: Predictions in every piece of a document but its first, which has
            what is left over, at least one.

    Returns:
        Where in the stream the first input of each piece lies, int64 `[pieces]`, and
        the predictions in it, int32 `[pieces]`, in the order of the stream.
    """
    ends = np.cumsum(-(-(lengths + 1) // size))
    number = ends[-1] if len(ends) else 0
    starts, sizes = np.empty(number, np.int64), np.empty(number, np.int32)
    begin = done = 0
    for some in np.split(lengths, np.flatnonzero(np.diff(ends // _CHUNK)) + 1):
        first_inputs, predictions = _cut(some, size)
        made = slice(done, done + len(predictions))
        starts[made], sizes[made] = begin + first_inputs, predictions
        begin += (some + 2).sum()
        done = made.stop
    return starts, sizes


def _cut(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    begins = np.cumsum(lengths + 2) - (lengths + 2)
    predictions = lengths + 1
    pieces = -(-predictions // size)
    first_sizes = predictions - (pieces - 1) * size
    document = np.repeat(np.arange(len(lengths)), pieces)
    number = ranges(np.zeros_like(pieces), pieces)
    offsets = np.where(number == 0, 0, first_sizes[document] + (number - 1) * size)
    sizes = np.where(number == 0, first_sizes[document], size)
    return begins[document] + offsets, sizes


def best_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """Packs pieces into rows, the largest first, each where it leaves the least space.

    Rows with the same space left are alike, and so are pieces of one size, so these are
    placed together: the time goes with the number of sizes, not of pieces.

    Args:
        sizes: int32 `[pieces]`, from 1 to `capacity`.
        capacity: Size of a row.

    Returns:
        The row of each piece, int32 `[pieces]`, from 0 on without gaps.

    References:
        - [Johnson et al., 1974](https://doi.org/10.1137/0203025) (best-fit decreasing)
    """
    row_of = np.empty(len(sizes), np.int32)
    rows_with: list[list[np.ndarray]] = [[] for _ in range(capacity + 1)]  # by space
    number_with = np.zeros(capacity + 1, np.int64)
    num_rows = 0

    def put(rows: np.ndarray, space: int) -> None:
        rows_with[space].append(rows)
        number_with[space] += len(rows)

    def take(space: int, number: int) -> np.ndarray:
        rows = np.concatenate(rows_with[space])
        rows_with[space], number_with[space] = [], 0
        put(rows[number:], space)
        return rows[:number]

    order = np.argsort(-sizes, kind="stable").astype(np.int32)
    counts = np.bincount(sizes, minlength=capacity + 1)
    for size in np.flatnonzero(counts)[::-1].tolist():
        pieces, order = order[: counts[size]], order[counts[size] :]
        while len(pieces):
            fitting = np.flatnonzero(number_with[size:])
            if not len(fitting):
                new = -(-len(pieces) // (capacity // size))
                put(np.arange(num_rows, num_rows + new, dtype=np.int32), capacity)
                num_rows += new
                continue
            space = size + int(fitting[0])
            # The row that one piece leaves with the least space is the next one's, too.
            each = space // size
            rows = take(space, -(-len(pieces) // each))
            held = np.repeat(rows, each)[: len(pieces)]
            row_of[pieces[: len(held)]] = held
            pieces = pieces[len(held) :]
            put(rows[:-1], space - each * size)
            put(rows[-1:], space - (len(held) - each * (len(rows) - 1)) * size)
    return row_of


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """`start, start + 1, ...`, as many as its size, for each start in turn."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(sizes.sum())


def in_epochs(
    epoch: Callable[[np.random.Generator], np.ndarray], seed: int, steps: int
) -> Callable[[int], np.ndarray]:
    """The rows of each step's batch, of epochs of so many steps, each made anew.

    Args:
        epoch: from a generator to the rows of its batches, `[steps, batch_size]`.
        seed: of all epochs.
        steps: of an epoch.
    """

    @functools.lru_cache(maxsize=1)
    def rows_of(number: int) -> np.ndarray:
        return epoch(np.random.default_rng((seed, number)))

    return lambda step: rows_of(step // steps)[step % steps]


def at_most(epoch: np.ndarray, most: int | None) -> np.ndarray:
    """The batches of an epoch, or so many of them at equal distances."""
    if most is None or most >= len(epoch):
        return epoch
    return epoch[np.linspace(0, len(epoch) - 1, most).round().astype(int)]
