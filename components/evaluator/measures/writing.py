"""Adds to what the exports say of documents how what they write does beside targets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from ....serving.in_process import ExportedModel
from ..records import CANDIDATE
from .metrics import TEXT
from .written import GenerationSettings, statistics

TARGET = "target"
_BATCH = 32

Extracts = dict[str, Any]


class Writing(NamedTuple):
    """Who writes, and how.

    Attributes:
        models: Folders of SavedModels by name.
        settings: How they write.
    """

    models: Mapping[str, str]
    settings: GenerationSettings


class Written(beam.PTransform):
    """Adds `sums.WRITTEN` to the predictions in TFMA's extracts.

    Args:
        writing: Who writes, and how.
    """

    def __init__(self, writing: Writing) -> None:
        super().__init__()
        self._writing = writing

    def expand(self, extracts: beam.PCollection) -> beam.PCollection:
        """Extracts of documents, one by one, as they come and go."""
        return (
            extracts
            | "Together" >> beam.BatchElements(_BATCH, _BATCH)
            | "Write" >> beam.ParDo(_Write(self._writing))
        )


class _Write(beam.DoFn):
    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def setup(self) -> None:
        """Loads the models."""
        self._stack = contextlib.ExitStack()
        self._models = {
            name: self._stack.enter_context(ExportedModel(path))
            for name, path in self._writing.models.items()
        }

    def process(self, batch: list[Extracts]) -> Iterator[Extracts]:
        """Yields the extracts of documents, with more in their predictions."""
        sources, targets = (
            [_feature(extracts, name) for extracts in batch] for name in (TEXT, TARGET)
        )
        more = {
            name: [
                statistics(text, target.decode(errors="replace"))
                for text, target in zip(
                    written(model, sources, self._writing.settings),
                    targets,
                    strict=True,
                )
            ]
            for name, model in self._models.items()
        }
        for number, extracts in enumerate(batch):
            yield _with(extracts, {name: of[number] for name, of in more.items()})

    def teardown(self) -> None:
        """Frees the exports."""
        self._stack.close()


def written(
    model: ExportedModel, sources: Sequence[bytes], settings: GenerationSettings
) -> list[str]:
    """What an export writes to sources."""
    most = settings.max_new_tokens
    if settings.num_beams > 1:
        found = model.beam_search(
            sources,
            most,
            num_beams=settings.num_beams,
            length_penalty=settings.length_penalty,
        )
        return [beams[0].text if beams else "" for beams in found]
    return [one.text for one in model.generate(sources, most, temperature=0.0)]


def _feature(extracts: Extracts, name: str) -> bytes:
    values = extracts[tfma.FEATURES_KEY].get(name)
    return b"".join(() if values is None else np.ravel(values))


def _with(extracts: Extracts, more: Mapping[str, Mapping[str, float]]) -> Extracts:
    """Extracts with more in the predictions of each model."""
    found = extracts[tfma.PREDICTIONS_KEY]
    # TFMA names no model where there is one alone.
    alone = len(more) == 1
    predictions = {CANDIDATE: found} if alone else dict(found)
    for name, sums in more.items():
        arrays = {key: np.array([value]) for key, value in sums.items()}
        predictions[name] = {**predictions[name], **arrays}
    added = predictions[CANDIDATE] if alone else predictions
    return {**extracts, tfma.PREDICTIONS_KEY: added}
