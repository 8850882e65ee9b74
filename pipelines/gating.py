"""The gate outside a pipeline: the same rules, on any export and any text."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from ..components.documents import Documents
from ..components.errors import InputError
from ..components.evaluator import judging
from ..components.evaluator.gate.decision import Decision
from ..components.evaluator.records import CANDIDATE, LAST_BLESSED, NGRAM
from ..components.progress import report
from ..components.text_example_gen import files, readers
from ..components.text_example_gen.documents import Document
from ..components.text_example_gen.executor import to_example
from ..components.text_example_gen.settings import SourceSettings
from ..components.text_example_gen.streams import UnusableError
from ..components.text_example_gen.values import Broken
from ..serving.errors import ServingError
from ..serving.in_process import saved_model_folder
from .configuration.config import Config


class Models(NamedTuple):
    """Folders of exported models, or of versions, of which the newest is taken.

    Attributes:
        candidate: The model to judge.
        baseline: In the place of the last blessed model.
        ngram: An n-gram model, where a rule is against one.
    """

    candidate: str
    baseline: str | None = None
    ngram: str | None = None


def judge(
    config: Config,
    models: Models,
    data: str,
    train_data: str | None = None,
    output: Path | None = None,
) -> Decision:
    """Applies a configuration's rules to an exported model.

    Documents are read as those of `corpus`, and are not cleaned.

    Args:
        config: The configuration.
        models: The model, and those that it is compared with.
        data: A file, a folder or a pattern: what to evaluate on.
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
    with tempfile.TemporaryDirectory() as scratch:
        decision = judging.judge(
            folders,
            _examples(config, data, Path(scratch, "eval.gz")),
            config.gate.asked(config.corpus.features),
            str(Path(scratch, "analysis")),
            lambda: beam.Pipeline(options=options),
            train_texts=_examples(config, train_data, Path(scratch, "train.gz"))
            if train_data
            else (),
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
    if found.left_out:
        counts = collections.Counter(found.left_out.values())
        report(files.say_left_out(counts, found.left_out))
    for file in found.files:
        try:
            for item in readers.read(file.path, file.source):
                if isinstance(item, Document):
                    yield item
                elif isinstance(item, Broken):
                    _skip(f"{file.path}, {item.place}: {item.reason}", strict)
        except UnusableError as error:
            _skip(f"{file.path}: {error}", strict)


def _skip(problem: str, strict: bool) -> None:
    if strict:
        raise InputError(problem)
    report(f"skipped {problem}")
