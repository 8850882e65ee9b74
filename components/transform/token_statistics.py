"""What a tokenizer makes of each split: how many tokens, and how many unknown."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx import types
from tfx.types import artifact_utils

from .. import documents
from ..scratch import read_json, write_one
from .records import Tokens, TokenStatistics

_BATCH = 512  # documents that are counted together


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
    found = {}
    for split, path in files.items():
        tokens, unknown, size = read_json(path)
        found[split] = TokenStatistics(tokens=tokens, unknown=unknown, bytes=size)
    Tokens(splits=found).write(transformed.uri)
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
