"""Executor of TokenizerTrainer."""

from __future__ import annotations

import collections
import functools
import json
import os
from collections.abc import Callable, Iterable

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils

from ...models.tokenizers import word_piece, words
from ...models.tokenizers.base import SPECIAL_TOKENS, TextTokenizer
from ...models.tokenizers.byte import ByteTokenizer
from ...models.tokenizers.files import load_tokenizer
from ...models.tokenizers.keras_hub import preset_tokenizer
from ...models.tokenizers.sentence_piece import character_tokenizer, train_sentencepiece
from .. import storage
from ..documents import in_batches, split
from ..errors import InputError
from ..progress import report
from ..sample import BoundedSample
from ..types import Artifacts, Properties
from .settings import TokenizerSettings

PRESET_KEY = "preset"

_WORDS = 1_000_000  # different ones that pieces are learned from
_Count = Callable[[list[str]], collections.Counter[str]]
# Ids that stand before the words of a vocabulary, and with the bytes, the characters.
_SPECIALS = len(SPECIAL_TOKENS)
_SPECIALS_AND_BYTES = _SPECIALS + 256


class Executor(base_beam_executor.BaseBeamExecutor):
    """Counts or samples with Beam, then makes the tokenizer on this machine."""

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
        if settings.type == "bytes":
            return ByteTokenizer()
        try:
            if settings.type == "preset":
                return preset_tokenizer(preset)
            if settings.type == "file":
                return load_tokenizer(str(settings.path))
        except ValueError as error:
            place = "model." if settings.type == "preset" else ""
            raise InputError(
                f"tokenizer.type {settings.type}: {place}{error}"
            ) from error
        return self._learned(settings, examples)

    def _learned(
        self, settings: TokenizerSettings, examples: list[types.Artifact]
    ) -> TextTokenizer:
        size = settings.vocabulary_size
        if settings.type == "characters":
            limit = size - _SPECIALS_AND_BYTES
            listed = self._listed(examples, count_characters, limit)
            return character_tokenizer(listed)
        if settings.type == "words":
            spaced = settings.words == "white_space"
            cut = words.spaced_words_of if spaced else words.words_of
            count = functools.partial(words.count_words, cut=cut)
            listed = self._listed(examples, count, size - _SPECIALS)
            return words.word_tokenizer(listed, spaced=spaced)
        try:
            if settings.type == "word_piece":
                counts, _ = self._commonest(examples, words.count_words, _WORDS)
                return word_piece.word_piece_of_counts(counts, vocabulary_size=size)
            return train_sentencepiece(
                self._sample(examples, settings),
                vocabulary_size=size,
                model_type=settings.type,
                seed=settings.seed,
            )
        except ValueError as error:
            raise InputError(f"no tokenizer can be learned: {error}") from error

    def _listed(
        self, examples: list[types.Artifact], count: _Count, limit: int
    ) -> list[str]:
        """Returns the most frequent units; reports how much of the split is others."""
        counts, total = self._commonest(examples, count, limit)
        share = 1 - sum(counts.values()) / total
        report(f"{share:.2%} of the text has no token of its own")
        return [*counts]

    def _commonest(
        self, examples: list[types.Artifact], count: _Count, limit: int
    ) -> tuple[dict[str, int], int]:
        """Counts units in the whole split: the most frequent, that first, and all.

        Of two that are equally frequent the one that sorts last goes first.
        """
        path = os.path.join(self._get_tmp_dir(), "commonest")
        with self._make_beam_pipeline() as pipeline:
            counts = (
                pipeline
                | beam.Create(split(examples, "train").file_patterns)
                | beam.io.ReadAllFromTFRecord()
                | "Text" >> beam.Map(lambda record: _text(record).decode())
                | in_batches()
                | "Count" >> beam.FlatMap(lambda texts: count(texts).items())
                | beam.CombinePerKey(sum)
            )
            total = counts | beam.Values() | beam.CombineGlobally(sum)
            _ = (
                counts
                | beam.combiners.Top.Of(limit, key=lambda unit: (unit[1], unit[0]))
                | beam.Map(_as_json, beam.pvalue.AsSingleton(total))
                | "Write" >> beam.io.WriteToTFRecord(path, num_shards=1)
            )
        records = tf.data.TFRecordDataset(tf.io.gfile.glob(path + "*"))
        units, total = json.loads(next(records.as_numpy_iterator()))
        if not units:
            raise InputError("no tokenizer can be learned: the split train has no text")
        return dict(units), total

    def _sample(
        self, examples: list[types.Artifact], settings: TokenizerSettings
    ) -> list[str]:
        """Returns the sampled documents, in an order that only the seed decides."""
        path = os.path.join(self._get_tmp_dir(), "sample")
        sample = BoundedSample(settings.sample_bytes, settings.seed)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create(split(examples, "train").file_patterns)
                | beam.io.ReadAllFromTFRecord()
                | "Text" >> beam.Map(_text)
                | "Sample" >> beam.CombineGlobally(sample)
                | "Documents" >> beam.FlatMap(lambda documents: documents)
                | "Write" >> beam.io.WriteToTFRecord(path, num_shards=1)
            )
        records = tf.data.TFRecordDataset(tf.io.gfile.glob(path + "*"))
        texts = [record.decode() for record in records.as_numpy_iterator()]
        return sorted(texts, key=lambda text: sample.rank(text.encode()))


def count_characters(texts: Iterable[str]) -> collections.Counter[str]:
    """How often each character stands in `texts`."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(text)
    return counts


def _as_json(units: list[tuple[str, int]], total: int) -> bytes:
    return json.dumps([units, total]).encode()


def _text(record: bytes) -> bytes:
    example = tf.train.Example.FromString(record)
    return example.features.feature["text"].bytes_list.value[0]
