"""What becomes of what is said of tokens, chunk after chunk of their documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

Results = tuple[tf.Tensor, ...]


class Listed:
    """Tensors `[k, ...]` that come chunk by chunk, all of them kept.

    Args:
        specs: their shapes, the first dimension unknown, and dtypes.
    """

    def __init__(self, specs: tuple[tf.TensorSpec, ...]) -> None:
        self._specs = specs

    def start(self) -> Any:
        """What there is before any chunk."""
        arrays = tuple(
            tf.TensorArray(
                spec.dtype,
                size=0,
                dynamic_size=True,
                infer_shape=False,
                element_shape=spec.shape,
            )
            for spec in self._specs
        )
        return tf.constant(0), arrays

    def add(self, found: Any, results: Results) -> Any:
        """What there is with one more chunk's."""
        step, arrays = found
        written = (a.write(step, r) for a, r in zip(arrays, results, strict=True))
        return step + 1, tuple(written)

    def end(self, found: Any) -> Results:
        """All of each."""
        return tuple(
            tf.ensure_shape(array.concat(), spec.shape)
            for array, spec in zip(found[1], self._specs, strict=True)
        )


class Into(Protocol):
    """What becomes of results `[k, ...]` of tokens, a nest of tensors."""

    def start(self, lengths: tf.Tensor) -> Any:
        """That before any token of documents so long, int64 `[b]`."""

    def add(
        self, found: Any, position: tf.Tensor, document: tf.Tensor, results: Results
    ) -> Any:
        """That with more tokens.

        Args:
            found: that before.
            position: int64 `[k]`. Where each stands in the flat ids of all.
            document: int64 `[k]`. Which one it is of.
            results: what is said of them.
        """

    def end(self, found: Any, lengths: tf.Tensor) -> Any:
        """What it has come to with all tokens."""


def added(
    into: Into,
    found: Any,
    scored: tf.Tensor,
    position: tf.Tensor,
    document: tf.Tensor,
    results: Results,
) -> Any:
    """`into.add` of some of the columns of windows.

    Args:
        into: as of `Into.add`; likewise `found`.
        scored: bool `[c, w]`, of which columns.
        position: int64 `[c, w]`, see `Into.add`.
        document: int64 `[c]`, of each window.
        results: each `[c, w, ...]`.
    """
    of = tf.broadcast_to(document[:, tf.newaxis], tf.shape(scored))
    position, of = position[scored], of[scored]
    return into.add(found, position, of, tuple(part[scored] for part in results))


class PerToken:
    """Keeps each result: `[b, (t), ...]`.

    Args:
        *specs: shapes `[None, ...]` and dtypes of the results.
    """

    def __init__(self, *specs: tf.TensorSpec) -> None:
        self._listed = Listed((tf.TensorSpec([None], tf.int64), *specs))

    def start(self, lengths: tf.Tensor) -> Any:
        """See `Into`."""
        del lengths
        return self._listed.start()

    def add(
        self, found: Any, position: tf.Tensor, document: tf.Tensor, results: Results
    ) -> Any:
        """See `Into`."""
        del document
        return self._listed.add(found, (position, *results))

    def end(self, found: Any, lengths: tf.Tensor) -> tuple[tf.RaggedTensor, ...]:
        """See `Into`."""
        # Every position is in there once, but the last of each document.
        position, *others = self._listed.end(found)
        order = tf.argsort(position)
        return tuple(
            tf.RaggedTensor.from_row_lengths(tf.gather(r, order), lengths, False)
            for r in others
        )


class Summed:
    """Keeps sums by document, of any number of tokens.

    Args:
        sums: from results, int64 `[k]` the documents that they are of, and the number
            of documents, to a nest of tensors `[b, ...]`.
        *specs: shapes `[None, ...]` and dtypes of the results.
    """

    def __init__(
        self,
        sums: Callable[[Results, tf.Tensor, tf.Tensor], Any],
        *specs: tf.TensorSpec,
    ) -> None:
        self._sums, self._specs = sums, specs

    def start(self, lengths: tf.Tensor) -> Any:
        """See `Into`."""
        none = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in self._specs)
        return self._sums(none, tf.zeros([0], tf.int64), tf.size(lengths, tf.int64))

    def add(
        self, found: Any, position: tf.Tensor, document: tf.Tensor, results: Results
    ) -> Any:
        """See `Into`."""
        count = tf.shape(tf.nest.flatten(found)[0], tf.int64)[0]
        more = self._sums(results, document, count)
        return tf.nest.map_structure(tf.add, found, more)

    def end(self, found: Any, lengths: tf.Tensor) -> Any:
        """See `Into`."""
        del lengths
        return found
