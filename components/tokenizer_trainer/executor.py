"""Executor of TokenizerTrainer."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from ...models import tokenizers
from ...models.keras_hub_presets import preset_tokenizer
from ..errors import InputError
from ..progress import report

TYPE_KEY = "type"
VOCABULARY_SIZE_KEY = "vocabulary_size"
SAMPLE_BYTES_KEY = "sample_bytes"
SEED_KEY = "seed"
PRESET_KEY = "preset"


class Executor(base_beam_executor.BaseBeamExecutor):
    """Samples documents with Beam, then learns the tokenizer on this machine."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the `tokenizer` artifact, a KerasHub preset.

        Raises:
            InputError: Where the corpus or the preset cannot give such a tokenizer.
        """
        kind = exec_properties[TYPE_KEY]
        if kind == "bytes":
            tokenizer = tokenizers.ByteTokenizer()
        elif kind == "preset":
            try:
                tokenizer = preset_tokenizer(exec_properties[PRESET_KEY])
            except ValueError as error:
                raise InputError(f"tokenizer.type preset: model.{error}") from error
        else:
            sample = self._sample(input_dict["examples"], exec_properties)
            try:
                tokenizer = tokenizers.train_sentencepiece(
                    sample,
                    vocabulary_size=exec_properties[VOCABULARY_SIZE_KEY],
                    model_type=kind,
                    seed=exec_properties[SEED_KEY],
                )
            except ValueError as error:
                raise InputError(f"no tokenizer can be learned: {error}") from error
        output = artifact_utils.get_single_instance(output_dict["tokenizer"])
        tokenizer.save_to_preset(output.uri)
        report(f"{kind} tokenizer with {tokenizer.vocabulary_size():,} tokens")

    def _sample(
        self, examples: list[types.Artifact], exec_properties: dict[str, Any]
    ) -> list[str]:
        """Returns the sampled documents, in an order that only the seed decides."""
        patterns = [
            io_utils.all_files_pattern(uri)
            for uri in artifact_utils.get_split_uris(examples, "train")
        ]
        path = os.path.join(self._get_tmp_dir(), "sample")
        sample = BoundedSample(
            exec_properties[SAMPLE_BYTES_KEY], exec_properties[SEED_KEY]
        )
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create(patterns)
                | beam.io.ReadAllFromTFRecord()
                | "Text" >> beam.Map(_text)
                | "Sample" >> beam.CombineGlobally(sample)
                | "Documents" >> beam.FlatMap(lambda documents: documents)
                | "Write" >> beam.io.WriteToTFRecord(path, num_shards=1)
            )
        records = tf.data.TFRecordDataset(tf.io.gfile.glob(path + "*"))
        texts = [record.decode() for record in records.as_numpy_iterator()]
        return sorted(texts, key=lambda text: sample.rank(text.encode()))


class BoundedSample(beam.CombineFn):
    """A seeded random sample of documents with at most a number of bytes.

    Every document has a rank, a hash of its text and the seed. The sample is the
    documents of lowest rank that fit, so it depends neither on the order of the input
    nor on how Beam bundles it.

    Args:
        max_bytes: Bound on the sum of the documents' lengths. One document is always
            kept.
        seed: Chooses the sample.
    """

    def __init__(self, max_bytes: int, seed: int) -> None:
        self._max_bytes = max_bytes
        self._key = seed.to_bytes(8, "little", signed=True)

    def rank(self, document: bytes) -> int:
        """Returns the document's place in the sampling order."""
        digest = hashlib.blake2b(document, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big")

    # An accumulator is a heap of (-rank, document), worst rank first, and its size.

    def create_accumulator(self) -> tuple[list[tuple[int, bytes]], int]:
        return [], 0

    def add_input(
        self, accumulator: tuple[list[tuple[int, bytes]], int], document: bytes
    ) -> tuple[list[tuple[int, bytes]], int]:
        heap, size = accumulator
        heapq.heappush(heap, (-self.rank(document), document))
        return self._shrink(heap, size + len(document))

    def merge_accumulators(
        self, accumulators: Iterable[tuple[list[tuple[int, bytes]], int]]
    ) -> tuple[list[tuple[int, bytes]], int]:
        heap: list[tuple[int, bytes]] = []
        size = 0
        for other, other_size in accumulators:
            heap.extend(other)
            size += other_size
        heapq.heapify(heap)
        return self._shrink(heap, size)

    def extract_output(
        self, accumulator: tuple[list[tuple[int, bytes]], int]
    ) -> list[bytes]:
        heap, _ = accumulator
        return [document for _, document in heap]

    def _shrink(
        self, heap: list[tuple[int, bytes]], size: int
    ) -> tuple[list[tuple[int, bytes]], int]:
        while size > self._max_bytes and len(heap) > 1:
            _, dropped = heapq.heappop(heap)
            size -= len(dropped)
        return heap, size


def _text(record: bytes) -> bytes:
    example = tf.train.Example.FromString(record)
    return example.features.feature["text"].bytes_list.value[0]
