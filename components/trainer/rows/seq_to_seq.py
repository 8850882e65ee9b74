"""Rows of a text each and what is to be made of it, for models from one to another."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from ....models.tokenizers.base import TextTokenizer
from ...progress import report
from ...text_example_gen.settings import TARGET_IDS
from .packing import at_most, in_epochs, ranges
from .windows import (
    PADDING,
    TokenStream,
    in_steps,
    read_features,
    read_lengths,
    write_token_ids,
)

_LEVELS = 4
"""Lengths of the rows of each side; XLA compiles for at most as many squared."""
_CANDIDATES = 512
"""Lengths among which those are chosen."""


def write_documents(
    path: str,
    file_patterns: Sequence[str],
    transform_graph_path: str,
    tokenizer: TextTokenizer,
) -> None:
    """Writes the targets of transformed examples, and their sources beside them."""
    for feature, into in ((TARGET_IDS, path), ("token_ids", _sources_path(path))):
        features = read_features(file_patterns, transform_graph_path, feature)
        write_token_ids(into, (ids for (ids,) in features), tokenizer)


def read_rows(
    path: str,
    context_length: int,
    packing: str,
    tokenizer: TextTokenizer,
    own: None,
    source_context_length: int,
) -> PairedRows:
    """The rows of `seq_to_seq_lm`, see `Rows.read`; tells how well they are filled."""
    del packing, tokenizer, own
    rows = PairedRows(path, context_length, source_context_length)
    report(f"{os.path.basename(path)}: {rows}")
    return rows


class PairedRows(TokenStream):
    """Rows of a pair each: its source and `</s>`; and `<s>`, its target, `</s>`.

    Of a target each token, and `</s>`, is predicted from those before it and the whole
    source, once an epoch. Of a source that is longer than the context of sources the
    first tokens are read, and `</s>`; of a target that is too long the first tokens are
    predicted, and no `</s>`, where it goes on.

    The rows of a batch are of similar lengths: the sources of all rows are rounded up
    to one of four lengths, and the targets likewise, those to which rounding up pads
    least. Rows that are alike in both make batches; those that are left over make some
    more, the short ones together, and rows of padding fill the last one of these. So
    XLA compiles at most sixteen times, and a step on short pairs is a fast one. In each
    epoch the rows, and then the batches, are in another order.

    Memory goes with the number of pairs: at most 50 bytes of each.

    Args:
        path: File that `write_documents` has written.
        context_length: Tokens that the longest row has room for.
        source_context_length: Tokens that the longest source has; by default as many.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        context_length: int,
        source_context_length: int | None = None,
    ) -> None:
        super().__init__(path, context_length)
        room = source_context_length or context_length
        self._sources = _Side(TokenStream(_sources_path(path), room), first=1)
        self._targets = _Side(self, first=0)
        sides = (self._sources, self._targets)
        self._levels = [levels(side.sizes, _LEVELS) for side in sides]
        self._kinds = np.ravel_multi_index(
            [
                np.searchsorted(lengths, side.sizes)
                for lengths, side in zip(self._levels, sides, strict=True)
            ],
            [len(lengths) for lengths in self._levels],
        ).astype(np.int8)

    def __str__(self) -> str:
        sides = {"source": self._sources, "target": self._targets}
        places = [
            int(lengths[np.searchsorted(lengths, side.sizes)].sum())
            for lengths, side in zip(self._levels, sides.values(), strict=True)
        ]
        held = sum(int(side.sizes.sum()) for side in sides.values())
        said = (
            f"{len(self):,} pairs in rows of similar lengths, "
            f"{1 - held / max(1, sum(places)):.1%} padding"
        )
        for name, side in sides.items():
            if side.number_cut:
                most = side.stream.context_length
                said += f"; {side.number_cut:,} {name}(s) cut at {most:,} tokens"
        return said

    def __len__(self) -> int:
        return len(self._kinds)

    def steps_an_epoch(self, batch_size: int) -> int:
        """Batches that hold every pair once."""
        whole = np.bincount(self._kinds) // batch_size
        left_over = len(self) - int(whole.sum()) * batch_size
        return int(whole.sum()) - -left_over // batch_size

    def targets_a_step(self, batch_size: int) -> float:
        total = int(self._targets.sizes.sum())
        return total / max(1, self.steps_an_epoch(batch_size))

    def training_batches(
        self, batch_size: int, *, seed: int, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        """Batches of steps `first_step ... last_step - 1`, reshuffled every epoch.

        Yields:
            `(inputs, targets, weights)` as a Keras model takes them: inputs
            `{"encoder_token_ids": int32[b, s], "encoder_padding_mask": bool[b, s],
            "decoder_token_ids": int32[b, t], "decoder_padding_mask": bool[b, t]}`,
            targets int32 `[b, t]`, weights float32 `[b, t]`.
        """
        rows_of = in_epochs(
            functools.partial(self._epoch, batch_size),
            *(seed, self.steps_an_epoch(batch_size)),
        )
        return self._paired(rows_of, first_step, last_step, batch_size)

    def evaluation_batches(
        self, batch_size: int, most: int | None = None
    ) -> tf.data.Dataset:
        """All pairs once, the short ones first, or batches at equal distances."""
        epoch = at_most(self._epoch(batch_size), most)
        return self._paired(epoch.__getitem__, 0, len(epoch), batch_size)

    def _epoch(
        self, batch_size: int, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """The rows of an epoch's batches, `[steps, batch_size]`, -1 for padding."""
        batches, left_over = list[np.ndarray](), list[np.ndarray]()
        order = np.argsort(self._kinds, kind="stable").astype(np.int32)
        for rows in np.split(order, np.cumsum(np.bincount(self._kinds))[:-1]):
            if generator is not None:
                rows = generator.permutation(rows)
            whole = len(rows) - len(rows) % batch_size
            batches.append(rows[:whole].reshape(-1, batch_size))
            left_over.append(rows[whole:])
        rest = np.concatenate(left_over)
        rest = np.pad(rest, (0, -len(rest) % batch_size), constant_values=-1)
        epoch = np.concatenate([*batches, rest.reshape(-1, batch_size)])
        return epoch if generator is None else generator.permutation(epoch)

    def _paired(
        self,
        rows_of: Callable[[int], np.ndarray],
        first: int,
        last: int,
        batch_size: int,
    ) -> tf.data.Dataset:
        """Batches of given rows, from a step to before another."""

        def load(step: np.int64) -> tuple[np.ndarray, ...]:
            rows = rows_of(int(step))
            sources, targets = (
                side.places(rows, lengths)
                for side, lengths in zip(
                    (self._sources, self._targets), self._levels, strict=True
                )
            )
            inside = targets < self.num_tokens
            following = np.where(inside, targets + 1, self.num_tokens)
            read = (
                self._sources.stream._read(self._sources.closed(sources, rows)),
                self._read(targets),
                self._read(following),
            )
            self._let_go()
            self._sources.stream._let_go()
            return read

        def read(step: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            kinds = (tf.int32, tf.int32, tf.int32)
            parts = tf.numpy_function(load, [step], kinds, stateful=False)
            sources, inputs, targets = (
                tf.ensure_shape(part, (batch_size, None)) for part in parts
            )
            features = {
                f"{side}_{name}": values
                for side, ids in (("encoder", sources), ("decoder", inputs))
                for name, values in self._features(ids).items()
            }
            is_target = targets != PADDING
            targets = tf.where(is_target, targets, self.pad_id)
            return features, targets, tf.cast(is_target, tf.float32)

        return in_steps(read, first, last)


class _Side:
    """Where the sources, or the targets, of pairs lie in their stream.

    A row has one place more than there are tokens: for what is before them, or behind.

    Args:
        stream: Of all of them, `<s> tokens </s>` each.
        first: Which of these is the first in a row.
    """

    def __init__(self, stream: TokenStream, first: int) -> None:
        lengths = read_lengths(stream._path)
        self.stream = stream
        room = stream.context_length
        self.sizes = np.minimum(lengths + 1, room).astype(np.int32)
        self._bounds = np.append(0, np.cumsum(lengths + 2))
        self._first = first
        self._is_cut = lengths + 1 > room
        self.number_cut = int(np.count_nonzero(self._is_cut))

    def places(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Where what rows read lies, int64 `[batch, length]`, the least that will do.

        Args:
            rows: Numbers of pairs, -1 for padding.
            lengths: Those that there are, ascending.
        """
        sizes = np.where(rows >= 0, self.sizes[rows], 0)
        length = lengths[np.searchsorted(lengths, sizes.max())]
        places = np.full((len(rows), length), self.stream.num_tokens)
        inside = np.arange(length) < sizes[:, None]
        places[inside] = ranges(self._bounds[rows] + self._first, sizes)
        return places

    def closed(self, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The same with `</s>` at the end, where rows are cut before theirs."""
        cut = np.flatnonzero((rows >= 0) & self._is_cut[rows])
        places[cut, self.sizes[rows[cut]] - 1] = self._bounds[rows[cut] + 1] - 1
        return places


def levels(sizes: np.ndarray, number: int) -> np.ndarray:
    """Chooses lengths so that rounding sizes up to the next of them pads least.

    By dynamic programming over the lengths that there are, of many lengths over some at
    equal distances among them.

    Args:
        sizes: int `[n]`, n > 0.
        number: Of lengths at most.

    Returns:
        int64, ascending; the last one is the largest size.
    """
    known = np.unique(sizes).astype(np.int64)
    if len(known) > _CANDIDATES:
        known = known[np.linspace(0, len(known) - 1, _CANDIDATES).astype(int)]
    counts = np.searchsorted(np.sort(sizes), [0, *known], side="right")
    # Places of all rows behind `begin` candidates, if they have the length of `end`.
    places = known * (counts[1:] - counts[:-1, None]).astype(float)
    begin, end = np.indices(places.shape)
    places[begin > end] = np.inf
    least, befores = places[0], list[np.ndarray]()
    for _ in range(number - 1):
        total = np.append(0, least[:-1])[:, None] + places
        befores.append(total.argmin(axis=0))
        least = total.min(axis=0)
    chosen = [len(known)]
    for before in reversed(befores):
        chosen.append(before[chosen[-1] - 1])
        if not chosen[-1]:
            break
    return known[np.array([it for it in reversed(chosen) if it]) - 1]


def _sources_path(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.sources"
