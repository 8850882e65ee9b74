"""Executor of TokenizerTrainer."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Callable

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils

from ...models.references import load
from ...models.tokenizers.base import TextTokenizer
from ...models.tokenizers.table import TOKENIZERS
from .. import large_buffers, storage
from ..documents import in_batches, split
from ..errors import InputError
from ..progress import report
from ..sample import BoundedSample
from ..text_example_gen.settings import TARGET
from ..types import Artifacts, Properties
from .settings import TokenizerSettings

PRESET_KEY = "preset"

_Count = Callable[[list[str]], collections.Counter[str]]


class Executor(base_beam_executor.BaseBeamExecutor):
    """Counts or samples with Beam, then makes the tokenizer on this machine."""

    @large_buffers.returned()
    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> None:
        """Writes the `tokenizer` artifact, a KerasHub preset.

        Raises:
            InputError: Where the corpus or the preset cannot give such a tokenizer.
        """
        # They were checked where they were given.
        settings = TokenizerSettings.model_construct(
            **{name: exec_properties[name] for name in TokenizerSettings.model_fields}
        )
        preset = exec_properties[PRESET_KEY]
        tokenizer = self._tokenizer(settings, preset, input_dict.get("examples", []))
        output = artifact_utils.get_single_instance(output_dict["tokenizer"])
        with storage.written_here(output.uri) as folder:
            tokenizer.save_to_preset(folder)
        size = tokenizer.vocabulary_size()
        report(f"{settings.type} tokenizer with {size:,} tokens")
        if tokenizer.normalizes:
            report(
                "warning: it changes white space, signs or letters before it cuts a "
                "text; what is dropped costs a model nothing: bits per byte are too low"
            )

    def _tokenizer(
        self, settings: TokenizerSettings, preset: str, examples: list[types.Artifact]
    ) -> TextTokenizer:
        corpus = _Corpus(
            self._make_beam_pipeline, self._get_tmp_dir, examples, settings, preset
        )
        try:
            tokenizer: TextTokenizer = load(TOKENIZERS[settings.type])(settings, corpus)
        except ValueError as error:
            raise InputError(f"tokenizer.type {settings.type}: {error}") from error
        return tokenizer


class _Corpus:
    """The training split, as `Corpus` has it.

    Args:
        make_pipeline: Makes a Beam pipeline.
        make_scratch: Makes a folder for files that nobody needs afterwards.
        examples: What has the split, where it is needed.
        settings: How large a sample is, and which.
        preset: That of the model, or "".
    """

    def __init__(
        self,
        make_pipeline: Callable[[], beam.Pipeline],
        make_scratch: Callable[[], str],
        examples: list[types.Artifact],
        settings: TokenizerSettings,
        preset: str,
    ) -> None:
        self._make_pipeline = make_pipeline
        self._make_scratch = make_scratch
        self._examples = examples
        self._settings = settings
        self.preset = preset

    def listed(self, count: _Count, most: int) -> list[str]:
        """Returns the most frequent units; reports how much of the split is others."""
        counts, total = self._commonest(count, most)
        share = 1 - sum(counts.values()) / total
        report(f"{share:.2%} of the text has no token of its own")
        return [*counts]

    def commonest(self, count: _Count, most: int) -> dict[str, int]:
        """Returns the most frequent units, that first, and how often they stand."""
        return self._commonest(count, most)[0]

    def _commonest(self, count: _Count, most: int) -> tuple[dict[str, int], int]:
        """Counts units in the whole split: the most frequent, that first, and all.

        Of two that are equally frequent the one that sorts last goes first.
        """
        path = os.path.join(self._make_scratch(), "commonest")
        with self._make_pipeline() as pipeline:
            counts = (
                pipeline
                | beam.Create(split(self._examples, "train").file_patterns)
                | beam.io.ReadAllFromTFRecord()
                | "Text" >> beam.FlatMap(_texts)
                | in_batches()
                | "Count" >> beam.FlatMap(lambda texts: count(texts).items())
                | beam.CombinePerKey(sum)
            )
            total = counts | beam.Values() | beam.CombineGlobally(sum)
            _ = (
                counts
                | beam.combiners.Top.Of(most, key=lambda unit: (unit[1], unit[0]))
                | beam.Map(_as_json, beam.pvalue.AsSingleton(total))
                | "Write" >> beam.io.WriteToTFRecord(path, num_shards=1)
            )
        records = tf.data.TFRecordDataset(tf.io.gfile.glob(path + "*"))
        units, total = json.loads(next(records.as_numpy_iterator()))
        if not units:
            raise ValueError("the split train has no text")
        return dict(units), total

    def sample(self) -> list[str]:
        """Returns the sampled documents, in an order that only the seed decides."""
        path = os.path.join(self._make_scratch(), "sample")
        sample = BoundedSample(self._settings.sample_bytes, self._settings.seed)
        with self._make_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create(split(self._examples, "train").file_patterns)
                | beam.io.ReadAllFromTFRecord()
                | "Text" >> beam.FlatMap(_texts)
                | "Encode" >> beam.Map(str.encode)
                | "Sample" >> beam.CombineGlobally(sample)
                | "Documents" >> beam.FlatMap(lambda documents: documents)
                | "Write" >> beam.io.WriteToTFRecord(path, num_shards=1)
            )
        records = tf.data.TFRecordDataset(tf.io.gfile.glob(path + "*"))
        texts = [record.decode() for record in records.as_numpy_iterator()]
        return sorted(texts, key=lambda text: sample.rank(text.encode()))


def _as_json(units: list[tuple[str, int]], total: int) -> bytes:
    return json.dumps([units, total]).encode()


def _texts(record: bytes) -> list[str]:
    """A document's text, and its target where it has one: one tokenizer is of both."""
    features = tf.train.Example.FromString(record).features.feature
    names = [name for name in ("text", TARGET) if name in features]
    return [features[name].bytes_list.value[0].decode() for name in names]
