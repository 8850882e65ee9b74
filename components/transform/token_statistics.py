"""What a tokenizer makes of each split: how many tokens, and how many unknown."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from .. import documents
from ..text_example_gen.scratch import read_json, write_one

STATISTICS_FILE = "tokens.json"
_BATCH = 512  # documents that are counted together


@dataclasses.dataclass(frozen=True)
class TokenStatistics:
    """What a tokenizer makes of the documents of a split.

    Attributes:
        tokens: Number of tokens, without start and end.
        unknown: How many of them are the tokenizer's unknown.
        bytes: UTF-8 bytes of the texts.
    """

    tokens: int
    unknown: int
    bytes: int

    @property
    def bytes_per_token(self) -> float:
        """Mean length of a token in the text; 0 without tokens."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def unknown_rate(self) -> float:
        """Share of the tokens that are unknown."""
        return self.unknown / self.tokens if self.tokens else 0.0

    def as_dict(self) -> dict[str, float]:
        """Counts and rates by name."""
        rates = ("bytes_per_token", "unknown_rate")
        counts = dataclasses.asdict(self)
        return {**counts, **{name: getattr(self, name) for name in rates}}

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens of {self.bytes_per_token:.2f} bytes, "
            f"{self.unknown_rate:.2%} unknown"
        )


def gather(
    make_pipeline: Callable[[], beam.Pipeline],
    examples: list[types.Artifact],
    transformed: types.Artifact,
    *,
    token_ids: tf.io.RaggedFeature,
    unknown_id: int,
    scratch: str,
) -> dict[str, TokenStatistics]:
    """Counts on Beam, and writes what it finds into the transformed examples.

    Args:
        make_pipeline: Gives a Beam pipeline.
        examples: The examples, with the feature `text`.
        transformed: The same, transformed.
        token_ids: How the feature `token_ids` is encoded there.
        unknown_id: The tokenizer's id of what is unknown.
        scratch: Folder for files that nobody needs afterwards.

    Returns:
        The statistics by split.
    """
    splits = artifact_utils.decode_split_names(transformed.split_names)
    files = {split: os.path.join(scratch, f"tokens-{split}") for split in splits}
    count_tokens = functools.partial(_count_tokens, token_ids, unknown_id)
    with make_pipeline() as pipeline:
        for split, path in files.items():
            counts = [
                pipeline
                | f"Patterns[{split}, {kind}]"
                >> beam.Create(documents.split(read, split).file_patterns)
                | f"Read[{split}, {kind}]" >> beam.io.ReadAllFromTFRecord()
                | f"Batch[{split}, {kind}]" >> beam.BatchElements(max_batch_size=_BATCH)
                | f"Count[{split}, {kind}]" >> beam.Map(count)
                for kind, read, count in (
                    ("text", examples, _count_bytes),
                    ("tokens", [transformed], count_tokens),
                )
            ]
            _ = (
                counts
                | f"Join[{split}]" >> beam.Flatten()
                | f"Sum[{split}]" >> beam.CombineGlobally(_sum)
                | f"Format[{split}]" >> beam.Map(json.dumps)
                | f"Write[{split}]" >> write_one(path)
            )
    found = {split: TokenStatistics(*read_json(path)) for split, path in files.items()}
    content = {split: statistics.as_dict() for split, statistics in found.items()}
    with fileio.open(os.path.join(transformed.uri, STATISTICS_FILE), "w") as file:
        json.dump(content, file, indent=1)
    return found


def feature_of(transform_graph_uri: str) -> tf.io.RaggedFeature:
    """How a transform graph has encoded the feature `token_ids`."""
    graph = tft.TFTransformOutput(transform_graph_uri)
    return graph.transformed_feature_spec()["token_ids"]


# What is counted is [tokens, unknown, bytes].


def _count_bytes(records: list[bytes]) -> list[int]:
    parsed = tf.io.parse_example(records, {"text": tf.io.RaggedFeature(tf.string)})
    size = tf.reduce_sum(tf.cast(tf.strings.length(parsed["text"].values), tf.int64))
    return [0, 0, int(size)]


def _count_tokens(
    feature: tf.io.RaggedFeature, unknown_id: int, records: list[bytes]
) -> list[int]:
    ids = tf.io.parse_example(records, {"token_ids": feature})["token_ids"]
    values = ids.values.numpy()
    return [values.size, int(np.count_nonzero(values == unknown_id)), 0]


def _sum(counts: Iterable[list[int]]) -> list[int]:
    return np.sum([[0, 0, 0], *counts], axis=0).tolist()
