"""StatisticsGen: TFX's own, whose memory does not grow with the corpus."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow_data_validation as tfdv
from tfx.components import statistics_gen
from tfx.dsl.components.base import executor_spec
from tfx.types.channel import BaseChannel

from . import executor


class StatisticsGen(statistics_gen.component.StatisticsGen):
    """Computes statistics of texts and of features beside them.

    Distinct and most frequent values come from sketches: TFX would gather every text.

    ```python
    statistics_gen = StatisticsGen(example_gen.outputs["examples"], ["label"])
    ```

    Args:
        examples: Examples with the feature `text`.
        features: What else they have. Of an id every value is new: in the schema each
            would be an anomaly.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(self, examples: BaseChannel, features: Iterable[str] = ()) -> None:
        options = tfdv.StatsOptions(
            feature_allowlist=["text", *features], use_sketch_based_topk_uniques=True
        )
        super().__init__(examples=examples, stats_options=options)
