"""The labels of documents: how often each occurs, and whether that will do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import apache_beam as beam
import tensorflow as tf

from ..errors import InputError
from ..scratch import write_one
from .records import Labels
from .settings import LABEL

_SHOWN = 10


class Count(beam.PTransform):
    """Counts the examples of each label, into a file of a JSON object."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        return (
            examples
            | "Labels" >> beam.FlatMap(_labels_of)
            | "Count" >> beam.combiners.Count.PerElement()
            | "Join" >> beam.combiners.ToDict()
            | "Format" >> beam.Map(json.dumps)
            | "Write" >> write_one(self._path)
        )


def _labels_of(example: tf.train.Example) -> list[str]:
    values = example.features.feature[LABEL].bytes_list.value
    return [value.decode() for value in values]


def require_enough(labels: Labels, least: int) -> None:
    """Checks that a classifier has something to learn.

    Args:
        labels: What there is.
        least: Documents of the training split that each label must have.

    Raises:
        InputError: In a line, where it has not.
    """
    train = labels.documents["train"]
    if not train:
        raise InputError("corpus.label_field: no document of train has a label")
    if len(train) == 1 and not labels.multi_label:
        (name,) = train
        raise InputError(
            f"corpus.label_field: all documents of train have the label {name!r}: a "
            "classifier needs at least two labels to tell apart"
        )
    few = {name: count for name, count in train.items() if count < least}
    if few:
        raise InputError(
            f"corpus.label_field: too few documents of train have {_listed(few)}: add "
            f"some, or lower corpus.min_label_documents (it is {least})"
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
    yield f"{len(train):,} label(s) in train: {_listed(train)}"
    for split in labels.documents:
        if unknown := labels.unknown(split):
            yield (
                f"{split}: {sum(unknown.values()):,} label(s) that train has not, "
                f"which no model can know: {_listed(unknown)}"
            )


def _listed(counts: Mapping[str, int]) -> str:
    """The most frequent labels, each with its number."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name!r} ({count:,})" for name, count in ordered[:_SHOWN])
    more = len(ordered) - _SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
