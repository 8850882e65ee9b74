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

from ...models.tokenizers.base import TextTokenizer
from ...models.tokenizers.table import restored
from .. import documents, storage
from ..scratch import read_json, write_one
from .records import Tokens, TokenStatistics


def gather(
    make_pipeline: Callable[[], beam.Pipeline],
    examples: list[types.Artifact],
    transformed: types.Artifact,
    *,
    token_ids: tf.io.RaggedFeature,
    tokenizer: str,
    scratch: str,
) -> dict[str, TokenStatistics]:
    """Counts on Beam, and writes what it finds into the transformed examples.

    Args:
        make_pipeline: Gives a Beam pipeline.
        examples: The examples, with the feature `text`.
        transformed: The same, transformed.
        token_ids: How the feature `token_ids` is encoded there.
        tokenizer: Folder of the tokenizer's preset.
        scratch: Folder for files that nobody needs afterwards.

    Returns:
        The statistics by split.
    """
    splits = artifact_utils.decode_split_names(transformed.split_names)
    paths = {split: os.path.join(scratch, f"tokens-{split}") for split in splits}
    count_text = functools.partial(_count_text, tokenizer)
    count_tokens = functools.partial(_count_tokens, token_ids, tokenizer)
    with make_pipeline() as pipeline:
        for split, path in paths.items():
            counts = [
                pipeline
                | f"Patterns[{split}, {kind}]"
                >> beam.Create(documents.split(read, split).file_patterns)
                | f"Read[{split}, {kind}]" >> beam.io.ReadAllFromTFRecord()
                | f"Batch[{split}, {kind}]" >> documents.in_batches()
                | f"Count[{split}, {kind}]" >> beam.Map(count)
                for kind, read, count in (
                    ("text", examples, count_text),
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
    for split, path in paths.items():
        counted = dict(zip(_COUNTED, read_json(path), strict=True))
        found[split] = TokenStatistics(**counted)
    Tokens(splits=found).write(transformed.uri)
    return found


def feature_of(transform_graph_uri: str) -> tf.io.RaggedFeature:
    """How a transform graph has encoded the feature `token_ids`."""
    graph = tft.TFTransformOutput(transform_graph_uri)
    return graph.transformed_feature_spec()["token_ids"]


@functools.lru_cache(maxsize=1)
def _tokenizer_in(folder: str) -> TextTokenizer:
    with storage.read_here(folder) as here:
        return restored(here)


# What is counted, in this order.
_COUNTED = ("tokens", "unknown", "bytes", "symbols")


def _count_text(tokenizer: str, records: list[bytes]) -> list[int]:
    parsed = tf.io.parse_example(records, {"text": tf.io.RaggedFeature(tf.string)})
    texts = parsed["text"].values
    size = tf.reduce_sum(tf.cast(tf.strings.length(texts), tf.int64))
    symbols = tf.reduce_sum(_tokenizer_in(tokenizer).unknown_symbols(texts))
    return [0, 0, int(size), int(symbols)]


def _count_tokens(
    feature: tf.io.RaggedFeature, tokenizer: str, records: list[bytes]
) -> list[int]:
    ids = tf.io.parse_example(records, {"token_ids": feature})["token_ids"]
    values = ids.values.numpy()
    unknown = np.count_nonzero(values == _tokenizer_in(tokenizer).unk_token_id)
    return [values.size, int(unknown), 0, 0]


def _sum(counts: Iterable[list[int]]) -> list[int]:
    return np.sum([[0] * len(_COUNTED), *counts], axis=0).tolist()
