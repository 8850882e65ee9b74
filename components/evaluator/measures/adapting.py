"""Adds to what the exports say of documents what models say that adapt to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma

from ....models.tasks.adaptation.settings import AdaptSettings, NeuralCache
from ....serving.export import contract
from ....serving.in_process import ExportedModel, signatures
from ...storage import read_here
from ..records import CANDIDATE
from .metrics import TEXT
from .sums import ADAPTED


class Adapting(NamedTuple):
    """How models adapt, and what of.

    Attributes:
        settings: How.
        preset: Folder of the candidate as a Keras preset, for gradient steps.
        stride: Between the windows in which its export scores long documents.
        context_length: Of the export.
    """

    settings: AdaptSettings = AdaptSettings()
    preset: str = ""
    stride: int | None = None
    context_length: int | None = None


NOT_ADAPTING = Adapting()


class Adapt(beam.DoFn):
    """Adds `ADAPTED` to the predictions in TFMA's extracts of a document.

    An export of old, without the signature for it, goes without.

    Args:
        models: Folders of SavedModels by name.
        adapting: How they adapt.
    """

    def __init__(self, models: Mapping[str, str], adapting: Adapting) -> None:
        self._models, self._adapting = dict(models), adapting

    def setup(self) -> None:
        """Loads the models."""
        cache, dynamic = self._adapting.settings.cache, self._adapting.settings.dynamic
        self._stack = contextlib.ExitStack()
        self._cached = {
            name: self._stack.enter_context(ExportedModel(path))
            for name, path in self._models.items()
            if cache and contract.CACHE_SCORES.name in signatures(path)
        }
        self._learner = _learner(self._adapting) if dynamic else None

    def process(self, extracts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yields the extracts of a document, with more in its predictions."""
        text = b"".join(np.ravel(extracts[tfma.FEATURES_KEY][TEXT]))
        found = extracts[tfma.PREDICTIONS_KEY]
        alone = len(self._models) == 1
        predictions = {CANDIDATE: found} if alone else dict(found)
        for name, outputs in predictions.items():
            predictions[name] = {**outputs, **self._sums(name, text)}
        (only, *_) = predictions.values()
        yield {**extracts, tfma.PREDICTIONS_KEY: only if alone else predictions}

    def _sums(self, model: str, text: bytes) -> dict[str, np.ndarray]:
        sums = {}
        if model in self._cached:
            settings = self._adapting.settings.cache or NeuralCache()
            given: Any = {f"cache_{key}": value for key, value in settings}
            (scores,) = self._cached[model].cache_scores([text], **given)
            sums[ADAPTED["cache"]] = -np.sum(scores.log_probabilities, keepdims=True)
        if self._learner and model == CANDIDATE:
            scores = self._learner(text)
            sums[ADAPTED["dynamic"]] = -np.sum(scores, dtype=np.float64, keepdims=True)
        return sums

    def teardown(self) -> None:
        """Frees the exports."""
        self._stack.close()


def _learner(adapting: Adapting) -> Any:
    """A function from a text to its log-probabilities, by the preset as it learns."""
    from ....models.tasks.adaptation.dynamic import DynamicScores
    from ....models.tasks.scoring import checked_stride, of_texts
    from ....models.zoo import from_preset

    with read_here(adapting.preset) as folder:
        model = from_preset(folder, adapting.context_length)
    stride = checked_stride(model, adapting.stride)
    assert adapting.settings.dynamic is not None
    scores = DynamicScores(model, adapting.settings.dynamic, stride=stride)
    return lambda text: of_texts(model, tf.constant(text), scores).numpy()
