"""Texts of the documents that TextExampleGen has made."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils
from tfx_bsl.coders import batch_util

One = TypeVar("One", bytes, str)

_BATCH = 1 << 20  # bytes of records, or characters
_LEAST = 1 << 13  # what one counts at least: more than 128 made nothing faster


@dataclasses.dataclass(frozen=True)
class Documents:
    """Texts of documents, read anew whenever they are gone through.

    Attributes:
        file_patterns: TFRecord files of examples with the feature `text`.
    """

    file_patterns: list[str]

    def __iter__(self) -> Iterator[str]:
        """Reads their texts, in the order of the files."""
        for (text,) in self.values_of("text"):
            yield text

    def values_of(self, *names: str) -> Iterator[tuple[str, ...]]:
        """Reads features that are texts, of each document, in that order."""
        for features in self._features():
            yield tuple(
                b"".join(features[name].bytes_list.value).decode() for name in names
            )

    def count_values(self, names: Iterable[str]) -> dict[str, Counter[bytes]]:
        """Says how often each value of some features stands in the examples."""
        counts = {name: Counter[bytes]() for name in names}
        for features in self._features() if counts else ():
            for name, count in counts.items():
                count.update(features[name].bytes_list.value)
        return counts

    def _features(self) -> Iterator[Any]:
        files = sorted(itertools.chain(*map(fileio.glob, self.file_patterns)))
        for file in files:
            compression = "GZIP" if file.endswith(".gz") else ""
            dataset = tf.data.TFRecordDataset(file, compression_type=compression)
            for record in dataset.as_numpy_iterator():
                yield tf.train.Example.FromString(record).features.feature


def split(examples: list[types.Artifact], name: str) -> Documents:
    """The documents of a split of `examples` artifacts."""
    uris = artifact_utils.get_split_uris(examples, name)
    return Documents([io_utils.all_files_pattern(uri) for uri in uris])


def in_batches() -> beam.BatchElements:
    """Puts records or texts together by their size, so that long ones take no more."""
    return beam.BatchElements(**_by_size())


def batched(ones: Iterable[One]) -> Iterator[list[One]]:
    """Does so in this process, in their order."""
    batch, size = list[One](), 0
    for one in ones:
        if batch and size + _size(one) > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += _size(one)
    if batch:
        yield batch


def batch_by_bytes() -> None:
    """Has TFX's own components put records together as `in_batches` does.

    TFX's flag for it makes batches of 20 MiB, which take 400 MB in Transform, and an
    empty one before a record that is larger.
    """
    batch_util.GetBatchElementsKwargs = lambda *_: _by_size()


def _by_size() -> dict[str, Any]:
    return {
        "min_batch_size": _BATCH,
        "max_batch_size": _BATCH,
        "element_size_fn": _size,
    }


def _size(one: bytes | str) -> int:
    # Before one that is larger than a batch Beam would give an empty batch.
    return min(max(len(one), _LEAST), _BATCH)
