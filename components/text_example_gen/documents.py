"""The document: what readers give, cleaning changes and examples are made of."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Mapping

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Document:
    """One document of a corpus, on its way from a source to an example.

    Attributes:
        id: Its name, unique over the corpus and the same in every run: the file's
            path, in an archive with the name of the file in it, followed by `#` and the
            document's number where a file holds many.
        text: Its text, as it is written; never blank.
        fields: Further fields that travel with the text, by name.
        target: The text to be made of it, where documents have such; never blank.
        labels: What it is labelled, where documents have labels.
        tags: A tag for each of its words, where words have such.
        split: The split that it is for; "" where a hash decides.
        group: What is hashed for its split, in place of its text; "" for that.
        weight: How often it counts in the training split, next to a document of
            weight 1.
    """

    id: str
    text: str
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    target: str | None = None
    labels: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    weight: float = 1.0
    split: str = ""
    group: str = ""

    def split_of(self, buckets: Mapping[str, int]) -> str:
        """Which split it is in; `buckets` are those of `CorpusSettings`."""
        if self.split:
            return self.split
        # As TFX hashes a feature.
        hashed = (self.group or self.text).encode()
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[hashed]))
        content = feature.SerializeToString(deterministic=True)
        bucket = int(hashlib.sha256(content).hexdigest(), 16) % sum(buckets.values())
        ends = [*itertools.accumulate(buckets.values())]
        return [*buckets][bisect.bisect(ends, bucket)]
