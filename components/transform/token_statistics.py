"""What a tokenizer makes of each split: how many tokens, and how many unknown."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping

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
from ..text_example_gen.settings import TARGET, TARGET_IDS
from .records import Tokens, TokenStatistics

TEXT = "text"
TOKENS_OF = {TEXT: "token_ids", TARGET: TARGET_IDS}
"""The tokens of each feature that is tokenized."""


def gather(
    make_pipeline: Callable[[], beam.Pipeline],
    examples: list[types.Artifact],
    transformed: types.Artifact,
    *,
    token_ids: Mapping[str, tf.io.RaggedFeature],
    tokenizer: str,
    scratch: str,
) -> dict[str, TokenStatistics]:
    """Counts on Beam, and writes what it finds into the transformed examples.

    Args:
        make_pipeline: Gives a Beam pipeline.
        examples: The examples.
        transformed: The same, transformed.
        token_ids: How the tokens of each feature that is tokenized are encoded there.
        tokenizer: Folder of the tokenizer's preset.
        scratch: Folder for files that nobody needs afterwards.

    Returns:
        The statistics by split.
    """
    splits = artifact_utils.decode_split_names(transformed.split_names)
    paths = {
        (split, feature): os.path.join(scratch, f"tokens-{split}-{feature}")
        for split in splits
        for feature in token_ids
    }
    with make_pipeline() as pipeline:
        for (split, feature), path in paths.items():
            spec = {TOKENS_OF[feature]: token_ids[feature]}
            texts = functools.partial(_count_text, feature, tokenizer)
            tokens = functools.partial(_count_tokens, spec, tokenizer)
            named = f"{split}, {feature}"
            counts = [
                pipeline | f"Texts[{named}]" >> _Count(examples, split, texts),
                pipeline | f"Tokens[{named}]" >> _Count([transformed], split, tokens),
            ]
            _ = (
                counts
                | f"Join[{named}]" >> beam.Flatten()
                | f"Sum[{named}]" >> beam.CombineGlobally(_sum)
                | f"Format[{named}]" >> beam.Map(json.dumps)
                | f"Write[{named}]" >> write_one(path)
            )
    counted = {
        key: TokenStatistics(**dict(zip(_COUNTED, read_json(path), strict=True)))
        for key, path in paths.items()
    }
    found = {
        split: counted[split, TEXT].model_copy(
            update={"target": counted.get((split, TARGET))}
        )
        for split in splits
    }
    Tokens(splits=found).write(transformed.uri)
    return found


def features_of(transform_graph_uri: str) -> dict[str, tf.io.RaggedFeature]:
    """How a transform graph has encoded the tokens of each feature."""
    graph = tft.TFTransformOutput(transform_graph_uri)
    spec = graph.transformed_feature_spec()
    return {name: spec[ids] for name, ids in TOKENS_OF.items() if ids in spec}


class _Count(beam.PTransform):
    """Counts of each batch of the records of a split."""

    def __init__(
        self,
        artifacts: list[types.Artifact],
        split: str,
        count: Callable[[list[bytes]], list[int]],
    ) -> None:
        super().__init__()
        self._patterns = documents.split(artifacts, split).file_patterns
        self._count = count

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Patterns" >> beam.Create(self._patterns)
            | "Read" >> beam.io.ReadAllFromTFRecord()
            | "Batch" >> documents.in_batches()
            | "Count" >> beam.Map(self._count)
        )


@functools.lru_cache(maxsize=1)
def _tokenizer_in(folder: str) -> TextTokenizer:
    with storage.read_here(folder) as here:
        return restored(here)


# What is counted, in this order.
_COUNTED = ("tokens", "unknown", "bytes", "symbols")


def _count_text(feature: str, tokenizer: str, records: list[bytes]) -> list[int]:
    parsed = tf.io.parse_example(records, {feature: tf.io.RaggedFeature(tf.string)})
    texts = parsed[feature].values
    size = tf.reduce_sum(tf.cast(tf.strings.length(texts), tf.int64))
    symbols = tf.reduce_sum(_tokenizer_in(tokenizer).unknown_symbols(texts))
    return [0, 0, int(size), int(symbols)]


def _count_tokens(
    spec: dict[str, tf.io.RaggedFeature], tokenizer: str, records: list[bytes]
) -> list[int]:
    (ids,) = tf.io.parse_example(records, spec).values()
    values = ids.values.numpy()
    unknown = np.count_nonzero(values == _tokenizer_in(tokenizer).unk_token_id)
    return [values.size, int(unknown), 0, 0]


def _sum(counts: Iterable[list[int]]) -> list[int]:
    return np.sum([[0] * len(_COUNTED), *counts], axis=0).tolist()
