"""Executor of TextExampleGen."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from tfx import types
from tfx.components.example_gen.base_example_gen_executor import (
    BaseExampleGenExecutor,
)
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from ..errors import InputError
from ..progress import report
from . import files

DOCUMENTS_KEY = "documents"
STRICT_KEY = "strict"
TEXT_FEATURE = "text"
ID_FEATURE = "id"
SUMMARY_FILE = "ingestion.json"

_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_SKIPPED = "skipped"
_NAMES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Summary:
    """What an ingestion read.

    Attributes:
        documents: Number of documents in each split.
        bytes: UTF-8 bytes of text in each split.
        files: Number of files found.
        skipped: Why each skipped file was skipped, by its path.
    """

    documents: dict[str, int]
    bytes: dict[str, int]
    files: int
    skipped: dict[str, str]

    @classmethod
    def read(cls, artifact_uri: str) -> Summary:
        """Reads the summary that lies in an Examples artifact of TextExampleGen."""
        with fileio.open(os.path.join(artifact_uri, SUMMARY_FILE), "r") as file:
            return cls(**json.load(file))

    def write(self, artifact_uri: str) -> None:
        """Writes the summary into an Examples artifact."""
        with fileio.open(os.path.join(artifact_uri, SUMMARY_FILE), "w") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)


class Executor(BaseExampleGenExecutor):
    """Reads, splits and counts the documents of a corpus."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the `examples` artifact.

        Raises:
            InputError: Where no file matches, none has text, a split would be empty,
                or, under `strict`, a file cannot be used.
        """
        self._scratch = os.path.join(self._get_tmp_dir(), "ingestion")
        super().Do(input_dict, output_dict, exec_properties)
        summary = self._collect_summary()
        _report_skipped(summary.skipped, strict=bool(exec_properties[STRICT_KEY]))
        _require_documents(summary, exec_properties[DOCUMENTS_KEY])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        summary.write(examples.uri)
        report(
            f"{sum(summary.documents.values()):,} documents "
            f"({summary.documents['eval']:,} for evaluation), "
            f"{sum(summary.bytes.values()) / 1e6:.2f} MB of text"
        )

    def GetInputSourceToExamplePTransform(self) -> Callable[..., beam.PTransform]:
        """Returns what makes the transform from a file pattern to examples."""
        return self._read_corpus

    def _read_corpus(
        self, exec_properties: dict[str, Any], pattern: str
    ) -> beam.PTransform:
        found = files.find(pattern)
        self._num_files = len(found)
        read = ReadDocuments(exec_properties[DOCUMENTS_KEY])
        return _ReadCorpus([file.path for file in found], read, self._scratch)

    def GenerateExamplesByBeam(
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.PCollection]:
        """Adds counting to the base class's splits."""
        splits = super().GenerateExamplesByBeam(pipeline, exec_properties)
        for name, examples in splits.items():
            _ = (
                examples
                | f"Size[{name}]" >> beam.Map(_text_size)
                | f"Count[{name}]" >> beam.CombineGlobally(_CountAndSum())
                | f"FormatCount[{name}]" >> beam.Map(json.dumps)
                | f"WriteCount[{name}]"
                >> _write_one(os.path.join(self._scratch, f"count-{name}"))
            )
        return splits

    def _collect_summary(self) -> Summary:
        counts = {
            name: json.loads(_read_one(os.path.join(self._scratch, f"count-{name}")))
            for name in ("train", "eval")
        }
        skipped = json.loads(_read_one(os.path.join(self._scratch, _SKIPPED)))
        return Summary(
            documents={name: count for name, (count, _) in counts.items()},
            bytes={name: size for name, (_, size) in counts.items()},
            files=self._num_files,
            skipped=dict(sorted(skipped)),
        )


class ReadDocuments(beam.DoFn):
    """Reads one file into documents.

    Input is a path; outputs are `(id, text)` pairs of `str`, and under the tag
    `skipped` a `(path, reason)` pair for a file without usable text.

    Args:
        unit: `"file"`, `"paragraph"` or `"line"`.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def process(self, path: str) -> Iterator[Any]:
        """Yields the documents of the file at `path`."""
        try:
            with FileSystems.open(path) as file:
                text = file.read().decode("utf-8-sig")
        except OSError as error:
            yield _skip(path, f"not readable ({error.strerror})")
            return
        except UnicodeDecodeError as error:
            yield _skip(path, f"not UTF-8 (byte {error.start})")
            return
        documents = split_documents(text, self._unit)
        if not documents:
            yield _skip(path, "empty")
        for number, document in enumerate(documents):
            name = path if self._unit == "file" else f"{path}#{number}"
            yield name, document


def _skip(path: str, reason: str) -> beam.pvalue.TaggedOutput:
    return beam.pvalue.TaggedOutput(_SKIPPED, (path, reason))


def split_documents(text: str, unit: str) -> list[str]:
    """Splits a file's text into documents, none of them blank.

    Args:
        text: The whole text. Line ends of any system become newlines.
        unit: `"file"`, `"paragraph"` or `"line"`.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if unit == "file":
        pieces = [text]
    elif unit == "paragraph":
        pieces = _PARAGRAPH_BREAK.split(text)
    else:
        pieces = text.split("\n")
    return [stripped for piece in pieces if (stripped := piece.strip("\n \t"))]


class _ReadCorpus(beam.PTransform):
    """Paths to serialized examples; what was skipped goes to the scratch folder."""

    def __init__(self, paths: list[str], read: ReadDocuments, scratch: str) -> None:
        super().__init__()
        self._paths = paths
        self._read = read
        self._scratch = scratch

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        outputs = (
            pipeline
            | beam.Create(self._paths)
            | beam.Reshuffle()
            | beam.ParDo(self._read).with_outputs(_SKIPPED, main="documents")
        )
        _ = (
            outputs[_SKIPPED]
            | "ListSkipped" >> beam.combiners.ToList()
            | "FormatSkipped" >> beam.Map(json.dumps)
            | "WriteSkipped" >> _write_one(os.path.join(self._scratch, _SKIPPED))
        )
        return outputs["documents"] | "ToExample" >> beam.MapTuple(_to_example)


class _CountAndSum(beam.CombineFn):
    """Counts numbers and adds them up."""

    def create_accumulator(self) -> tuple[int, int]:
        return 0, 0

    def add_input(self, accumulator: tuple[int, int], size: int) -> tuple[int, int]:
        count, total = accumulator
        return count + 1, total + size

    def merge_accumulators(
        self, accumulators: Iterable[tuple[int, int]]
    ) -> tuple[int, int]:
        counts, totals = zip(*accumulators, strict=True)
        return sum(counts), sum(totals)

    def extract_output(self, accumulator: tuple[int, int]) -> tuple[int, int]:
        return accumulator


def _to_example(name: str, text: str) -> tf.train.Example:
    def feature(value: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    return tf.train.Example(
        features=tf.train.Features(
            feature={TEXT_FEATURE: feature(text), ID_FEATURE: feature(name)}
        )
    )


def _text_size(example: tf.train.Example) -> int:
    return len(example.features.feature[TEXT_FEATURE].bytes_list.value[0])


def _write_one(path: str) -> beam.PTransform:
    return beam.io.WriteToText(path, num_shards=1, shard_name_template="")


def _read_one(path: str) -> str:
    with fileio.open(path, "r") as file:
        return file.read()


def _report_skipped(skipped: dict[str, str], strict: bool) -> None:
    if strict and skipped:
        path, reason = next(iter(skipped.items()))
        raise InputError(
            f"{path} is {reason} ({len(skipped)} such file(s) in all): mend or remove "
            "them, or run without --strict to skip them"
        )
    for path, reason in list(skipped.items())[:_NAMES_SHOWN]:
        report(f"skipped {path}: {reason}")
    if len(skipped) > _NAMES_SHOWN:
        report(f"... and {len(skipped) - _NAMES_SHOWN} more files skipped")


def _require_documents(summary: Summary, unit: str) -> None:
    total = sum(summary.documents.values())
    if total == 0:
        raise InputError(
            f"none of the {summary.files} file(s) of the corpus has text: all were "
            f"skipped ({', '.join(sorted(set(summary.skipped.values())))})"
        )
    empty = [name for name, count in summary.documents.items() if count == 0]
    if empty:
        smaller = {"file": "paragraph", "paragraph": "line"}.get(unit)
        hint = f", or split finer with --set corpus.documents={smaller}"
        raise InputError(
            f"the corpus is too small to split: its {total} document(s) leave the "
            f"split {empty[0]!r} empty; add documents{hint if smaller else ''}"
        )
