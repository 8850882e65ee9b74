"""Which documents of an evaluation stand in the training data, exactly or nearly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from tfx import types
from tfx.types import artifact_utils

from .. import storage
from ..documents import in_batches, split
from ..sample import BoundedSample
from ..scratch import read_json, write_one
from . import sketches
from .near_duplicates import MinHash, Shingles
from .records import Contamination

SAMPLE_BYTES = 4_000_000
"""Of each evaluation split so much is looked for, chosen by hashes of the texts."""

_Pair = tuple[int, bool]
_FOUND, _SKETCH = "found", "sketch"


class Measured(NamedTuple):
    """What is found in the splits of an ingestion.

    Attributes:
        contamination: How much of each split but `train` stands in that.
        sketches: What each split has in it.
    """

    contamination: dict[str, Contamination]
    sketches: dict[str, str]


class Wanted:
    """Documents that are looked for, and found in a text that is equal or much alike.

    Their sets of shingles are compared with a text's, not estimates of them.

    Args:
        texts: The documents.
        min_hash: What a shingle is, and how much two texts have in common that are near
            duplicates.
    """

    def __init__(self, texts: Sequence[str], min_hash: MinHash) -> None:
        self._min_hash = min_hash
        shingles = [min_hash.shingles_of(text) for text in texts]
        self._sizes = np.array([len(each) for each in shingles], np.int64)
        hashes = np.concatenate([*shingles, np.empty(0, np.uint64)])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owners = np.repeat(np.arange(len(texts)), self._sizes)[order]
        self._equal: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            self._equal.setdefault(text, []).append(number)

    def find_all(
        self, texts: Sequence[str], shingled: Shingles | None = None
    ) -> Iterator[_Pair]:
        """Finds what is in any of many texts: most have too little in common.

        Args:
            texts: The texts.
            shingled: Their shingles, where they are known.
        """
        if not len(self._hashes):
            return
        shingles, owners = shingled or self._min_hash.shingles_of_all(texts)
        places = np.searchsorted(self._hashes, shingles)
        known = self._hashes[np.minimum(places, len(self._hashes) - 1)] == shingles
        common = np.bincount(owners[known], minlength=len(texts))
        least = self._min_hash.threshold * np.bincount(owners, minlength=len(texts))
        for number in np.flatnonzero(common >= least).tolist():
            yield from self.find(texts[number])

    def find(self, text: str) -> Iterator[_Pair]:
        """Yields the number of each document found, and whether it is equal."""
        for number in self._equal.get(text, ()):
            yield number, True
        shingles = self._min_hash.shingles_of(text)
        first = np.searchsorted(self._hashes, shingles, "left")
        number_of_hits = np.searchsorted(self._hashes, shingles, "right") - first
        hits = np.repeat(
            first - np.cumsum(number_of_hits) + number_of_hits, number_of_hits
        )
        owners = self._owners[hits + np.arange(len(hits))]
        found, common = np.unique(owners, return_counts=True)
        either = self._sizes[found] + len(shingles) - common
        for number in found[common >= self._min_hash.threshold * either].tolist():
            yield number, False


def contamination(found: Iterable[_Pair], documents: int) -> Contamination:
    """Counts what `Wanted.find` has found of some documents."""
    pairs = set(found)
    return Contamination(
        documents=documents,
        exact=len({number for number, is_equal in pairs if is_equal}),
        near=len({number for number, _ in pairs}),
    )


def sample(texts: Iterable[str]) -> list[str]:
    """Those of some texts that are looked for."""
    sampler = BoundedSample(SAMPLE_BYTES, 0)
    kept = sampler.create_accumulator()
    for text in texts:
        kept = sampler.add_input(kept, text.encode())
    return [text.decode() for text in sampler.extract_output(kept)]


def measure(
    make_pipeline: Callable[[], beam.Pipeline],
    examples: list[types.Artifact],
    min_hash: MinHash,
    path: str,
) -> Measured:
    """Looks through the training split, which no worker holds, for the others.

    Args:
        make_pipeline: Makes a Beam pipeline.
        examples: What an ingestion has written.
        min_hash: As of `Wanted`.
        path: Where files are put that nobody needs afterwards.
    """
    names = artifact_utils.decode_split_names(examples[0].split_names)
    samples = {name: sample(split(examples, name)) for name in names if name != "train"}
    with make_pipeline() as pipeline:
        for name in names:
            find = _Find(samples if name == "train" else {}, min_hash)
            outputs = (
                pipeline
                | f"Files[{name}]" >> beam.Create(split(examples, name).file_patterns)
                | f"Read[{name}]" >> beam.io.ReadAllFromTFRecord()
                | f"Batch[{name}]" >> in_batches()
                | f"Find[{name}]" >> beam.ParDo(find).with_outputs(_SKETCH, main=_FOUND)
            )
            _ = (
                outputs[_SKETCH]
                | f"Sketch[{name}]" >> beam.CombineGlobally(sketches.smallest)
                | f"FormatSketch[{name}]" >> beam.Map(sketches.dump)
                | f"WriteSketch[{name}]" >> write_one(f"{path}-{_SKETCH}-{name}")
            )
            if name == "train":
                _ = (
                    outputs[_FOUND]
                    | beam.Distinct()
                    | beam.combiners.ToList()
                    | beam.Map(json.dumps)
                    | "Write" >> write_one(path)
                )
    found = read_json(path)
    return Measured(
        contamination={
            name: contamination(
                ((number, is_equal) for of, number, is_equal in found if of == name),
                len(texts),
            )
            for name, texts in samples.items()
        },
        sketches={
            name: storage.read_text(f"{path}-{_SKETCH}-{name}").strip()
            for name in names
        },
    )


class _Find(beam.DoFn):
    """Batches of serialized examples to what is in them.

    That is the split, number and equality of documents, and the sketch of a batch.
    """

    def __init__(self, samples: dict[str, list[str]], min_hash: MinHash) -> None:
        self._samples = samples
        self._min_hash = min_hash

    def setup(self) -> None:
        self._wanted = {
            name: Wanted(texts, self._min_hash) for name, texts in self._samples.items()
        }

    def process(self, records: list[bytes]) -> Iterator[Any]:
        examples = map(tf.train.Example.FromString, records)
        texts = [
            example.features.feature["text"].bytes_list.value[0].decode()
            for example in examples
        ]
        shingles = self._min_hash.shingles_of_all(texts)
        sketch = sketches.smallest([shingles.hashes])
        yield beam.pvalue.TaggedOutput(_SKETCH, sketch)
        for name, wanted in self._wanted.items():
            for number, is_equal in wanted.find_all(texts, shingles):
                yield name, number, is_equal
