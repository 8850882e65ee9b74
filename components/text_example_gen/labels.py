"""Labels of documents, tags of words: how often each occurs, and if that will do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import apache_beam as beam
import tensorflow as tf

from ..errors import InputError
from ..scratch import write_one
from .records import Labels
from .settings import LABEL, TAG, TARGET_FIELDS

_SHOWN = 10


class _Words(NamedTuple):
    """What is said of labels, or of tags."""

    label: str
    ones: str
    learner: str


_WORDS = {
    LABEL: _Words("label", "documents", "classifier"),
    TAG: _Words("tag", "words", "tagger"),
}
COUNTED = frozenset(_WORDS)
"""The features whose values are labels of documents, or tags of words."""


class Count(beam.PTransform):
    """Counts the values of a feature, such as labels, into a file of a JSON object."""

    def __init__(self, path: str, feature: str) -> None:
        super().__init__()
        self._path = path
        self._feature = feature

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        return (
            examples
            | "Labels" >> beam.FlatMap(_labels_of, self._feature)
            | "Count" >> beam.combiners.Count.PerElement()
            | "Join" >> beam.combiners.ToDict()
            | "Format" >> beam.Map(json.dumps)
            | "Write" >> write_one(self._path)
        )


def _labels_of(example: tf.train.Example, feature: str) -> list[str]:
    values = example.features.feature[feature].bytes_list.value
    return [value.decode() for value in values]


def require_enough(labels: Labels, least: int) -> None:
    """Checks that a classifier or tagger has something to learn.

    Args:
        labels: What there is.
        least: Documents, or words, of the training split that each label must have.

    Raises:
        InputError: In a line, where it has not.
    """
    train = labels.documents["train"]
    key = f"corpus.{TARGET_FIELDS[labels.feature]}"
    label, ones, learner = _WORDS[labels.feature]
    if not train:
        raise InputError(f"{key}: no document of train has a {label}")
    if len(train) == 1 and not labels.multi_label:
        (name,) = train
        raise InputError(
            f"{key}: all {ones} of train have the {label} {name!r}: a {learner} needs "
            f"at least two {label}s to tell apart"
        )
    few = {name: count for name, count in train.items() if count < least}
    if few:
        raise InputError(
            f"{key}: too few {ones} of train have {_listed(few)}: add some, or lower "
            f"corpus.min_label_documents (it is {least})"
        )
    for split, found in labels.documents.items():
        if found and labels.unknown(split) == found and not labels.multi_label:
            raise InputError(
                f"corpus.label_field: no document of {split} has a label that train "
                f"has: there are {_listed(found)}, and {_listed(train)} in train"
            )


def described(labels: Labels) -> Iterator[str]:
    """Lines that say what labels there are, and which no model will know."""
    train = labels.documents["train"]
    label = _WORDS[labels.feature].label
    yield f"{len(train):,} {label}(s) in train: {_listed(train)}"
    for split in labels.documents:
        if unknown := labels.unknown(split):
            yield (
                f"{split}: {sum(unknown.values()):,} {label}(s) that train has not, "
                f"which no model can know: {_listed(unknown)}"
            )


def _listed(counts: Mapping[str, int]) -> str:
    """The most frequent labels, each with its number."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name!r} ({count:,})" for name, count in ordered[:_SHOWN])
    more = len(ordered) - _SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
