"""Executor of TextExampleGen."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.components.example_gen import write_split
from tfx.components.example_gen.base_example_gen_executor import (
    BaseExampleGenExecutor,
)
from tfx.types import artifact_utils

from .. import large_buffers, storage
from ..errors import InputError, printable
from ..progress import report
from ..scratch import read_json, write_one
from ..types import Artifacts, Properties
from . import (
    cleaning,
    contamination,
    demo_corpus,
    files,
    labels,
    last_run,
    profiles,
    readers,
)
from .documents import Document
from .records import Contamination, Labels, LastRun, Profile, Splitting, Summary
from .settings import LABEL, TAG, TARGET, CleaningSettings, SourceSettings
from .shards import write_shards
from .streams import BrokenOffError, UnusableError
from .values import Broken

SOURCES_KEY = "sources"
BUCKETS_KEY = "buckets"
STRICT_KEY = "strict"
CLEANING_KEY = "cleaning"
RECORD_KEY = "record"
ALLOW_FEWER_KEY = "allow_fewer_documents"
MIN_LABEL_KEY = "min_label_documents"
TEXT_FEATURE = "text"
ID_FEATURE = "id"

_WEIGHT_FEATURE = "__weight"  # gone before anything is written
_SKIPPED = "skipped"
_BROKEN_OFF = "broken_off"
_LEFT_OUT = "left_out"
_NAMES_SHOWN = 10
_REASONS_SHOWN = 5


class Executor(BaseExampleGenExecutor):
    """Reads, splits and counts the documents of a corpus."""

    @large_buffers.returned()
    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> None:
        """Writes the `examples` artifact.

        Raises:
            InputError: Where no file matches, none has text, a split would be empty,
                reading breaks off, or, under `strict`, a file cannot be used.
        """
        self._scratch = os.path.join(self._get_tmp_dir(), "ingestion")
        self._examples = output_dict["examples"]
        self._cleaning = CleaningSettings(**json.loads(exec_properties[CLEANING_KEY]))
        super().Do(input_dict, output_dict, exec_properties)
        for broken_off in read_json(os.path.join(self._scratch, _BROKEN_OFF)):
            raise InputError(broken_off)
        measured = contamination.measure(
            self._make_beam_pipeline,
            self._examples,
            cleaning.min_hash_of(self._cleaning),
            os.path.join(self._scratch, "contamination"),
        )
        summary = self._collect_summary(measured.contamination)
        if summary.left_out:
            report(files.say_left_out(summary.left_out, self._left_out))
        _report_skipped(summary.skipped, strict=bool(exec_properties[STRICT_KEY]))
        if summary.cleaning:
            report(cleaning.describe(summary.cleaning))
        _require_documents(summary, _sources(exec_properties))
        labelled = self._labels(exec_properties)
        found = LastRun(
            sources=exec_properties[SOURCES_KEY],
            documents=sum(summary.documents.values()),
            profile=summary.profiles["train"],
        )
        record = exec_properties[RECORD_KEY]
        said = storage.read_text(record) if record else ""
        last = LastRun.parse(said) if said else None
        if not exec_properties[ALLOW_FEWER_KEY]:
            last_run.require_no_loss(found, last)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        summary.write(examples.uri)
        if labelled:
            labelled.write(examples.uri)
        self._splitting(exec_properties, measured.sketches).write(examples.uri)
        self._record_span(examples)
        report(
            f"{sum(summary.documents.values()):,} documents "
            f"({summary.documents['eval']:,} for evaluation), "
            f"{sum(summary.bytes.values()) / 1e6:.2f} MB of text"
        )
        _report_profiles(summary.profiles)
        for name, share in summary.contamination.items():
            report(f"{name}: {share}")
        if drift := last_run.drift(found, last):
            report(drift.line("the last run and this one"))
        if record:
            storage.write_text(record, found.dump())

    def GetInputSourceToExamplePTransform(self) -> Callable[..., beam.PTransform]:
        """Returns what makes the transform from a file pattern to documents."""
        return self._read_corpus

    def _read_corpus(
        self, exec_properties: Properties, pattern: str
    ) -> beam.PTransform:
        del pattern  # of one source; the property holds all
        corpus = _sources(exec_properties)
        found = files.find([self._with_demo(source) for source in corpus])
        self._found, self._left_out = found
        return _ReadCorpus(self._found, self._cleaning, self._scratch)

    def _with_demo(self, source: SourceSettings) -> SourceSettings:
        """Writes the demo's corpus where it is the source, as in a container."""
        path = demo_corpus.found(source.path, pathlib.Path(self._get_tmp_dir()))
        return source.model_copy(update={"path": path})

    def GenerateExamplesByBeam(
        self, pipeline: beam.Pipeline, exec_properties: Properties
    ) -> dict[str, beam.PCollection]:
        """Adds reading, splits, weights, counting and writing."""
        read = self.GetInputSourceToExamplePTransform()
        buckets = json.loads(exec_properties[BUCKETS_KEY])
        self._split_names = list(buckets)
        parts = (
            pipeline
            | "Read" >> read(exec_properties, "")
            | "Split" >> beam.Partition(_BySplit(buckets), len(buckets))
        )
        splits = {
            name: part | f"ToExample[{name}]" >> beam.Map(to_example)
            for name, part in zip(buckets, parts, strict=True)
        }
        for name, examples in splits.items():
            _ = (
                examples
                | f"Text[{name}]" >> beam.Map(_text)
                | f"Profile[{name}]" >> beam.CombineGlobally(profiles.MakeProfile())
                | f"FormatProfile[{name}]" >> beam.Map(Profile.dump)
                | f"WriteProfile[{name}]"
                >> write_one(os.path.join(self._scratch, f"profile-{name}"))
            )
        if any(file.source.weight != 1 for file in self._found):
            for name in splits:
                weigh = _repeat if name == "train" else _once
                splits[name] |= f"Weigh[{name}]" >> beam.FlatMap(weigh)
        for feature in _labelled(_sources(exec_properties)):
            for name, examples in splits.items():
                path = os.path.join(self._scratch, f"labels-{name}")
                _ = examples | f"Labels[{name}]" >> labels.Count(path, feature)
        for name, examples in splits.items():
            _ = (
                examples
                | f"Size[{name}]" >> beam.Map(_text_size)
                | f"Count[{name}]" >> beam.CombineGlobally(_CountAndSum())
                | f"FormatCount[{name}]" >> beam.Map(json.dumps)
                | f"WriteCount[{name}]"
                >> write_one(os.path.join(self._scratch, f"count-{name}"))
            )
            uri = artifact_utils.get_split_uri(self._examples, name)
            _ = (
                examples
                | f"Serialize[{name}]" >> beam.Map(_serialize)
                | f"Write[{name}]"
                >> write_shards(os.path.join(uri, write_split.DEFAULT_FILE_NAME))
            )
        # The base class would write them after a shuffle, for which Beam's local runner
        # holds all documents in memory.
        return {}

    def _labels(self, exec_properties: Properties) -> Labels | None:
        """How many documents have each label, or words each tag; reports it.

        Raises:
            InputError: Where nothing can be learned of them.
        """
        sources = _sources(exec_properties)
        labelled = _labelled(sources)
        if not labelled:
            return None
        (feature,) = labelled
        found = Labels(
            feature=feature,
            multi_label=sources[0].multi_label,
            documents={
                name: read_json(os.path.join(self._scratch, f"labels-{name}"))
                for name in self._split_names
            },
        )
        labels.require_enough(found, exec_properties[MIN_LABEL_KEY])
        for line in labels.described(found):
            report(line)
        return found

    def _splitting(
        self, exec_properties: Properties, sketches: dict[str, str]
    ) -> Splitting:
        buckets = json.loads(exec_properties[BUCKETS_KEY])
        return Splitting.of(
            _sources(exec_properties), self._cleaning, buckets, sketches
        )

    def _record_span(self, examples: types.Artifact) -> None:
        """Puts the span of a corpus that has one into TFX's own properties."""
        spans = {file.span for file in self._found if file.span}
        for path, span in sorted(
            {(f.source.path, f.span) for f in self._found if f.span}
        ):
            report(f"{path}: {span}")
        if len(spans) == 1:
            (span,) = spans
            examples.span = span.span
            examples.version = span.version or 0

    def _collect_summary(self, found: dict[str, Contamination]) -> Summary:
        counts = {
            name: read_json(os.path.join(self._scratch, f"count-{name}"))
            for name in self._split_names
        }
        skipped = read_json(os.path.join(self._scratch, _SKIPPED))
        left_out = collections.Counter(self._left_out.values())
        left_out.update(read_json(os.path.join(self._scratch, _LEFT_OUT)))
        return Summary(
            documents={name: count for name, (count, _) in counts.items()},
            bytes={name: size for name, (_, size) in counts.items()},
            files=len(self._found),
            skipped={path: reason for path, reason, _ in sorted(skipped)},
            skipped_records=sum(number for _, _, number in skipped),
            left_out=dict(sorted(left_out.items())),
            spans={
                file.source.path: str(file.span) for file in self._found if file.span
            },
            cleaning=cleaning.read_counts(self._cleaning, self._scratch),
            contamination=found,
            profiles={
                name: Profile(
                    **read_json(os.path.join(self._scratch, f"profile-{name}"))
                )
                for name in self._split_names
            },
        )


def _sources(exec_properties: Properties) -> list[SourceSettings]:
    told = json.loads(exec_properties[SOURCES_KEY])
    return [SourceSettings(**source) for source in told]


def _labelled(corpus: list[SourceSettings]) -> set[str]:
    """The feature whose values are counted, if there is one."""
    targets = set().union(*(source.targets for source in corpus))
    return targets & labels.COUNTED


class ReadDocuments(beam.DoFn):
    """Reads one file into documents.

    Input is a `files.File`; outputs are of type `Document`, and under the tag
    `skipped` a `(path, reason, number of records)` triple for a file that has something
    unusable, under `broken_off` why one could not be read to its end, and under
    `left_out` what a file of an archive is that no one means.
    """

    def process(self, element: files.File) -> Iterator[Any]:
        """Yields the documents of a file."""
        skipped = _Skipped()
        num_documents = 0
        try:
            for item in readers.read(element.path, element.source):
                if isinstance(item, Document):
                    num_documents += 1
                    yield item
                elif isinstance(item, readers.LeftOut):
                    yield beam.pvalue.TaggedOutput(_LEFT_OUT, item.what)
                else:
                    skipped.add(item)
        except UnusableError as error:
            rest = f" (after {num_documents} documents)" if num_documents else ""
            skipped.file = f"{error}{rest}"
        except BrokenOffError as error:
            yield beam.pvalue.TaggedOutput(_BROKEN_OFF, str(error))
            return
        if not num_documents and not skipped:
            skipped.file = "empty"
        if skipped:
            yield beam.pvalue.TaggedOutput(
                _SKIPPED, (printable(element.name), str(skipped), skipped.num_records)
            )


class _Skipped:
    """What was skipped in one file; of many alike, it remembers the first."""

    def __init__(self) -> None:
        self.file = ""
        self.num_records = 0
        self._reasons: dict[str, tuple[int, str]] = {}

    def __bool__(self) -> bool:
        return bool(self.file or self.num_records)

    def add(self, broken: Broken) -> None:
        self.num_records += 1
        reason = broken.reason
        if reason not in self._reasons and len(self._reasons) >= _REASONS_SHOWN:
            reason = "other reasons"
        count, place = self._reasons.get(reason, (0, broken.place))
        self._reasons[reason] = count + 1, place

    def __str__(self) -> str:
        parts = [self.file] if self.file else []
        for reason, (count, place) in self._reasons.items():
            where = place if count == 1 else f"{count:,} records, first {place}"
            parts.append(f"{where}: {reason}")
        return "; ".join(parts)


class _ReadCorpus(beam.PTransform):
    """Files to documents; what was skipped or broke off goes to the scratch folder."""

    def __init__(
        self, found: list[files.File], steps: CleaningSettings, scratch: str
    ) -> None:
        super().__init__()
        self._found = found
        self._steps = steps
        self._scratch = scratch

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        broken_off: list[beam.PCollection] = []

        def read(name: str) -> dict[str, beam.PCollection]:
            outputs: dict[str, beam.PCollection] = (
                pipeline
                | f"Files[{name}]" >> beam.Create(self._found)
                | f"Spread[{name}]" >> beam.Reshuffle()
                | f"Read[{name}]"
                >> beam.ParDo(ReadDocuments()).with_outputs(
                    _SKIPPED, _BROKEN_OFF, _LEFT_OUT, main="documents"
                )
            )
            broken_off.append(outputs[_BROKEN_OFF])
            return outputs

        outputs = read("Documents")
        _ = (
            outputs[_SKIPPED]
            | "ListSkipped" >> beam.combiners.ToList()
            | "FormatSkipped" >> beam.Map(json.dumps)
            | "WriteSkipped" >> write_one(os.path.join(self._scratch, _SKIPPED))
        )
        _ = (
            outputs[_LEFT_OUT]
            | "CountLeftOut" >> beam.combiners.Count.PerElement()
            | "ListLeftOut" >> beam.combiners.ToDict()
            | "FormatLeftOut" >> beam.Map(json.dumps)
            | "WriteLeftOut" >> write_one(os.path.join(self._scratch, _LEFT_OUT))
        )
        documents = outputs["documents"]
        if self._steps.steps:
            documents |= "Clean" >> cleaning.Clean(
                self._steps, self._scratch, again=lambda name: read(name)["documents"]
            )
        _ = (
            broken_off
            | "AllBrokenOff" >> beam.Flatten()
            | "FirstBrokenOff" >> beam.combiners.Top.Smallest(1)
            | "FormatBrokenOff" >> beam.Map(json.dumps)
            | "WriteBrokenOff" >> write_one(os.path.join(self._scratch, _BROKEN_OFF))
        )
        return documents


class _BySplit(beam.PartitionFn):
    """Says the number of a document's split; `buckets` are as of `CorpusSettings`."""

    def __init__(self, buckets: dict[str, int]) -> None:
        self._buckets = buckets
        self._names = list(buckets)

    def partition_for(
        self, element: Any, num_partitions: int, *_: Any, **__: Any
    ) -> int:
        del num_partitions
        return self._names.index(element.split_of(self._buckets))


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


def to_example(document: Document) -> tf.train.Example:
    """An example of a document; with its weight, where that is not 1."""

    def feature(*values: str) -> tf.train.Feature:
        encoded = [value.encode() for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

    features = {
        TEXT_FEATURE: feature(document.text),
        ID_FEATURE: feature(document.id),
        **{name: feature(value) for name, value in document.fields.items()},
    }
    if document.labels is not None:
        features[LABEL] = feature(*document.labels)
    if document.tags is not None:
        features[TAG] = feature(*document.tags)
    if document.target is not None:
        features[TARGET] = feature(document.target)
    if document.weight != 1:
        features[_WEIGHT_FEATURE] = tf.train.Feature(
            float_list=tf.train.FloatList(value=[document.weight])
        )
    return tf.train.Example(features=tf.train.Features(feature=features))


def _once(example: tf.train.Example) -> Iterator[tf.train.Example]:
    """Yields the example without its weight."""
    example = tf.train.Example.FromString(example.SerializeToString())
    example.features.feature.pop(_WEIGHT_FEATURE, None)
    yield example


def _repeat(example: tf.train.Example) -> Iterator[tf.train.Example]:
    """Yields the example as often as its weight says; copies have ids of their own."""
    features = example.features.feature
    weight = 1.0
    if _WEIGHT_FEATURE in features:
        weight = features[_WEIGHT_FEATURE].float_list.value[0]
    digest = hashlib.sha256(b"weight" + features[TEXT_FEATURE].bytes_list.value[0])
    share = int.from_bytes(digest.digest()[:8], "big") / 2**64
    repetitions = int(weight) + (share < weight % 1)
    for number in range(repetitions):
        (copy,) = _once(example)
        if number:
            name = copy.features.feature[ID_FEATURE].bytes_list
            name.value[0] += f"~{number + 1}".encode()
        yield copy


def _text(example: tf.train.Example) -> bytes:
    return example.features.feature[TEXT_FEATURE].bytes_list.value[0]


def _serialize(example: tf.train.Example) -> bytes:
    return example.SerializeToString(deterministic=True)


def _text_size(example: tf.train.Example) -> int:
    return len(_text(example))


def _report_skipped(skipped: dict[str, str], strict: bool) -> None:
    if strict and skipped:
        path, reason = next(iter(skipped.items()))
        raise InputError(
            f"{path}: {reason} ({len(skipped)} such file(s) in all): mend or remove "
            "them, or run without --strict to skip what cannot be used"
        )
    for path, reason in list(skipped.items())[:_NAMES_SHOWN]:
        report(f"skipped {path}: {reason}")
    if len(skipped) > _NAMES_SHOWN:
        report(f"... and {len(skipped) - _NAMES_SHOWN} more files skipped")


def _report_profiles(found: dict[str, Profile]) -> None:
    train, evaluation = found["train"], found["eval"]
    report(str(train))
    drift = profiles.Drift.between(train, evaluation)
    report(drift.line("train and eval"))


def _require_documents(summary: Summary, corpus: list[SourceSettings]) -> None:
    total = sum(summary.documents.values())
    if total == 0 and any(summary.cleaning.values()):
        raise InputError(
            f"no document is left after {cleaning.describe(summary.cleaning)}"
        )
    if total == 0:
        reasons = sorted(set(summary.skipped.values()))
        more = ", ..." if len(reasons) > _REASONS_SHOWN else ""
        raise InputError(
            f"none of the {summary.files} file(s) of the corpus has text: all were "
            f"skipped ({', '.join(reasons[:_REASONS_SHOWN])}{more})"
        )
    empty = [name for name, count in summary.documents.items() if count == 0]
    if empty:
        raise InputError(
            f"the corpus is too small to split: its {total} document(s) leave the "
            f"split {empty[0]!r} empty; add documents{_finer(corpus[0])}"
        )


def _finer(source: SourceSettings) -> str:
    smaller = {"file": "paragraph", "paragraph": "line"}.get(source.documents)
    if source.split_by != "text":
        return ", or split finer with --set corpus.split_by=text"
    if source.target or not smaller:
        return ""
    return f", or split finer with --set corpus.documents={smaller}"
