"""Metrics of corpus sums as TFMA metrics, exact over a corpus.

```python
tfma.MetricConfig(
    class_name="CorpusMetric",
    module="langzoo.components.evaluator.measures.metrics",
    config='{"name": "bits_per_byte"}',
)
```

They need the outputs of the signature `evaluate` as predictions, and the feature
`text`, whose hash says which documents are left out together for intervals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from .metric import own
from .sums import Blocks, CorpusSums, row, seed_of
from .tables import MEASURES

TEXT = "text"
SUMS = "corpus_sums"
_PRIVATE_SUMS = f"_{SUMS}"
# Documents that are added to the blocks at a time.
_BATCH = 256

_Derived = Callable[[dict[metric_types.MetricKey, Any]], dict[Any, Any]]


class _OfCorpusSums(metric_types.Metric):
    """A function of the corpus sums, which all metrics of a model share."""

    def __init__(self, name: str) -> None:
        super().__init__(self._computations, name=name)

    def value(self, sums: CorpusSums) -> Any:
        """What TFMA writes down."""
        raise NotImplementedError

    def _computations(
        self, name: str, model_names: list[str] | None = None
    ) -> metric_types.MetricComputations:
        # TFMA gives the arguments that it finds by name in this signature.
        computations = []
        for model_name in model_names or [""]:
            sums_key = metric_types.MetricKey(_PRIVATE_SUMS, model_name=model_name)
            key = metric_types.MetricKey(name, model_name=model_name)
            computations += [
                # Metrics with the same combiner and keys share one computation.
                metric_types.MetricComputation(
                    keys=[sums_key],
                    preprocessors=[metric_types.FeaturePreprocessor([TEXT])],
                    combiner=_SumCombiner(sums_key),
                ),
                metric_types.DerivedMetricComputation(
                    keys=[key], result=self._derivation(sums_key, key)
                ),
            ]
        return computations

    def _derivation(
        self, sums_key: metric_types.MetricKey, key: metric_types.MetricKey
    ) -> _Derived:
        return lambda metrics: {key: self.value(metrics[sums_key])}


class CorpusMetric(_OfCorpusSums):
    """A metric of `tables.MEASURES`, or one of the user's.

    Args:
        name: Which one, such as `"bits_per_byte"`.
        reference: `module:name` of one of the user's.
    """

    def __init__(self, name: str, reference: str = "") -> None:
        super().__init__(name)
        self._reference = reference

    def value(self, sums: CorpusSums) -> float:
        """Returns the metric; NaN where there is nothing to divide by."""
        # By its name, as a worker of Beam's has not imported it yet.
        metric = own(self._reference) if self._reference else MEASURES[self.name]
        return float(metric.values(sums)[0])


class AllSums(_OfCorpusSums):
    """The sums themselves, by blocks of documents, `[N, K]`.

    Args:
        name: What it is called.
    """

    def __init__(self, name: str = SUMS) -> None:
        super().__init__(name)

    def value(self, sums: CorpusSums) -> np.ndarray:
        """Returns `CorpusSums.blocks`."""
        return sums.blocks


def config(class_name: str, **config: str) -> config_pb2.MetricConfig:
    """What TFMA is told of a metric of this module."""
    return config_pb2.MetricConfig(
        class_name=class_name, module=__name__, config=json.dumps(config)
    )


class _Accumulator:
    """Sums, and documents that wait to be added to them."""

    def __init__(self) -> None:
        self.blocks = Blocks()
        self.waiting: list[tuple[int, np.ndarray]] = []

    def add(self, documents: Iterable[tuple[int, np.ndarray]]) -> None:
        self.waiting.extend(documents)
        if len(self.waiting) >= _BATCH:
            self.settle()

    def settle(self) -> CorpusSums:
        self.blocks.add(self.waiting)
        self.waiting = []
        return self.blocks.sums


class _SumCombiner(beam.CombineFn):
    """Adds up the outputs of the `evaluate` signature in double precision."""

    def __init__(self, key: metric_types.MetricKey) -> None:
        self._key = key

    def create_accumulator(self) -> _Accumulator:
        return _Accumulator()

    def add_input(
        self, accumulator: _Accumulator, element: metric_types.StandardMetricInputs
    ) -> _Accumulator:
        text = b"".join(np.ravel(element.get_features()[TEXT]))
        predictions = element.get_predictions(self._key.model_name)
        accumulator.add([(seed_of(text), row(predictions))])
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Accumulator]) -> _Accumulator:
        merged = _Accumulator()
        for accumulator in accumulators:
            merged.blocks.merge(accumulator.blocks)
            merged.add(accumulator.waiting)
        return merged

    def extract_output(
        self, accumulator: _Accumulator
    ) -> dict[metric_types.MetricKey, CorpusSums]:
        return {self._key: accumulator.settle()}


for _metric in (CorpusMetric, AllSums):
    metric_types.register_metric(_metric)
