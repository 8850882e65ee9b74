"""The gate outside a pipeline: the same rules, on any export and any text."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from ..components.documents import Documents
from ..components.errors import InputError
from ..components.evaluator import judging
from ..components.evaluator.gate.decision import Decision
from ..components.evaluator.judging import Split
from ..components.evaluator.records import CANDIDATE, LAST_BLESSED, NGRAM, Baseline
from ..components.progress import report
from ..components.text_example_gen import files, readers
from ..components.text_example_gen.documents import Document
from ..components.text_example_gen.executor import to_example
from ..components.text_example_gen.records import Splitting, Summary, judged_split
from ..components.text_example_gen.settings import SourceSettings
from ..components.text_example_gen.streams import UnusableError
from ..components.text_example_gen.values import Broken
from ..serving.errors import ServingError
from ..serving.in_process import saved_model_folder
from .configuration.config import Config
from .report.reading import Runs

_RUN = "run://"


class Models(NamedTuple):
    """Folders of exported models, or of versions, of which the newest is taken.

    Attributes:
        candidate: The model to judge.
        baseline: In the place of the last blessed model.
        ngram: An n-gram model, where a rule is against one.
        preset: The candidate as a Keras preset, for dynamic evaluation.
    """

    candidate: str
    baseline: str | None = None
    ngram: str | None = None
    preset: str | None = None


def judge(
    config: Config,
    models: Models,
    data: str,
    train_data: str | None = None,
    output: Path | None = None,
) -> Decision:
    """Applies a configuration's rules to an exported model.

    Documents are read as those of `corpus`, and are not cleaned; or they are those of a
    run of the pipeline, as it has read, cleaned and split them. Of these no model may
    have learned.

    Args:
        config: The configuration.
        models: The model, and those that it is compared with.
        data: What to evaluate on: a file, a folder or a pattern, or
            `run://[RUN][@SPLIT]`, by default the last run and the split that its gate
            goes by.
        train_data: Likewise: what the model was trained on, for probes that ask.
        output: Folder for `evaluation.json` and `gate.json`.

    Raises:
        InputError: Where a model or the data cannot be used, or a model is missing.
    """
    if config.gate.needs_ngram and models.ngram is None:
        raise InputError("a rule is against an n-gram model: give one with --ngram")
    given = {
        CANDIDATE: models.candidate,
        LAST_BLESSED: models.baseline,
        NGRAM: models.ngram,
    }
    folders = {name: _folder(path) for name, path in given.items() if path is not None}
    options = PipelineOptions(config.beam_pipeline_args)
    baseline = folders.get(LAST_BLESSED)
    with tempfile.TemporaryDirectory() as scratch:
        documents, of = _documents(config, data, Path(scratch, "eval.gz"))
        train_texts: Iterable[str] = ()
        if train_data:
            train_texts, _ = _documents(config, train_data, Path(scratch, "train.gz"))
            of = of._replace(contamination=None)
        decision = judging.judge(
            folders,
            documents,
            config.gate.asked(config.corpus.sliced_by, config.task),
            str(Path(scratch, "analysis")),
            lambda: beam.Pipeline(options=options),
            train_texts=train_texts,
            of=of,
            compared_with=Baseline(model=baseline) if baseline else None,
            preset=models.preset or "",
        )
    if output is not None:
        try:
            decision.evaluation.write(str(output))
            decision.verdict.write(str(output))
        except OSError as error:
            raise InputError(f"cannot write {output}: {error.strerror}") from error
    return decision


def _folder(path: str) -> str:
    try:
        return saved_model_folder(path)
    except ServingError as error:
        raise InputError(str(error)) from error


def _documents(config: Config, data: str, path: Path) -> tuple[Documents, Split]:
    """The documents that are named, and of which split they are."""
    if data.startswith(_RUN):
        return _of_run(config, *data.removeprefix(_RUN).partition("@")[::2])
    return _examples(config, data, path), judging.EVAL


def _of_run(config: Config, name: str, split: str) -> tuple[Documents, Split]:
    runs = Runs(config.folder)
    run_id = runs.find(name or None)
    examples = runs.read(run_id).output("TextExampleGen", "examples")
    splitting = Splitting.find(examples)
    if splitting is None:
        raise InputError(f"the documents of the run {run_id} are gone: {examples}")
    split = split or judged_split(splitting.buckets)
    if split not in splitting.buckets:
        raise InputError(
            f"--data @{split}: the splits of the run {run_id} are "
            f"{', '.join(splitting.buckets)}"
        )

    def documents(name: str) -> Documents:
        return Documents([f"{examples}/Split-{name}/*"])

    selected_on = documents("eval") if split == "test" else None
    found = Summary.contamination_of(examples, split)
    return documents(split), Split(split, splitting, selected_on, found)


def _examples(config: Config, data: str, path: Path) -> Documents:
    """Writes documents as a pipeline's examples are."""
    source = config.corpus.reading(data)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for document in _read(source, strict=config.corpus.strict):
            writer.write(to_example(document).SerializeToString())
    return Documents([str(path)])


def _read(source: SourceSettings, strict: bool) -> Iterator[Document]:
    """Reads the documents; what cannot be used is told, or an error if `strict`."""
    found = files.find([source])
    _tell_left_out(found.left_out)
    for file in found.files:
        left_out: dict[str, str] = {}
        try:
            for item in readers.read(file.path, file.source):
                if isinstance(item, Document):
                    yield item
                elif isinstance(item, Broken):
                    _skip(f"{file.path}, {item.place}: {item.reason}", strict)
                else:
                    left_out[f"{file.path}/{item.name}"] = item.what
        except UnusableError as error:
            _skip(f"{file.path}: {error}", strict)
        _tell_left_out(left_out)


def _tell_left_out(paths: Mapping[str, str]) -> None:
    if paths:
        report(files.say_left_out(collections.Counter(paths.values()), paths))


def _skip(problem: str, strict: bool) -> None:
    if strict:
        raise InputError(problem)
    report(f"skipped {problem}")
