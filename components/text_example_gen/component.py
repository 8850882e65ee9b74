"""TextExampleGen: text files to examples, one a document."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import Channel
from tfx.types.component_spec import (
    ChannelParameter,
    ComponentSpec,
    ExecutionParameter,
)

from ..source import source_hash
from . import cleaning, executor, sources
from .cleaning import Cleaning
from .sources import Source

HASH_BUCKETS = 1000


class TextExampleGenSpec(ComponentSpec):
    """Interface of `TextExampleGen`; the proto-valued names are TFX's own."""

    PARAMETERS = {
        "input_config": ExecutionParameter(type=example_gen_pb2.Input),
        "output_config": ExecutionParameter(type=example_gen_pb2.Output),
        "output_data_format": ExecutionParameter(type=int),
        "output_file_format": ExecutionParameter(type=int),
        executor.SOURCES_KEY: ExecutionParameter(type=str),
        executor.STRICT_KEY: ExecutionParameter(type=int),
        executor.CLEANING_KEY: ExecutionParameter(type=str),
        "filter_hash": ExecutionParameter(type=str),
        executor.RECORD_KEY: ExecutionParameter(type=str),
        executor.ALLOW_FEWER_KEY: ExecutionParameter(type=int),
        "fingerprint": ExecutionParameter(type=str),
        "source_hash": ExecutionParameter(type=str),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class TextExampleGen(base_beam_component.BaseBeamComponent):
    """Reads text into examples with the features `text` and `id`, and further fields.

    It has no driver, since Kubeflow Pipelines runs none: files are found in the
    executor. Splits are by a hash of the document's text, so that a document never
    straddles them and its exact copies stay together.

    ```python
    example_gen = TextExampleGen([Source("books/*.txt", documents="paragraph")])
    statistics_gen = StatisticsGen(examples=example_gen.outputs["examples"])
    ```

    Args:
        corpus: Where text lies and how it is read.
        eval_fraction: Share of documents in the `eval` split, in steps of 0.001.
        test_fraction: Likewise in the `test` split, which there is only where it has a
            share; the rest is `train`.
        strict: Whether a file or record that cannot be used is an error. Otherwise it
            is named, counted and skipped.
        steps: How documents are cleaned.
        record: File in which a run leaves its number of documents for the next, which
            stops where there are ten times fewer; "" for none.
        allow_fewer_documents: Whether it goes on there.
        fingerprint: Anything that changes when the files do (see
            `files.fingerprint`), so that the cache notices.
    """

    SPEC_CLASS = TextExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        corpus: Sequence[Source],
        *,
        eval_fraction: float = 0.1,
        test_fraction: float = 0.0,
        strict: bool = False,
        steps: Cleaning | None = None,
        record: str = "",
        allow_fewer_documents: bool = False,
        fingerprint: str = "",
    ) -> None:
        output_config = example_gen_pb2.Output(
            split_config=example_gen_pb2.SplitConfig(
                splits=_splits(eval_fraction, test_fraction),
                partition_feature_name=executor.TEXT_FEATURE,
            )
        )
        steps = steps or Cleaning()
        input_split = example_gen_pb2.Input.Split(name="corpus", pattern=corpus[0].path)
        super().__init__(
            TextExampleGenSpec(
                input_config=example_gen_pb2.Input(splits=[input_split]),
                output_config=output_config,
                output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
                output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
                sources=sources.to_json(corpus),
                strict=int(strict),
                cleaning=json.dumps(dataclasses.asdict(steps)),
                record=record,
                allow_fewer_documents=int(allow_fewer_documents),
                filter_hash=cleaning.function_hash(steps.filter),
                fingerprint=fingerprint,
                source_hash=source_hash(executor.__name__),
                examples=Channel(type=standard_artifacts.Examples),
            )
        )


def _splits(
    eval_fraction: float, test_fraction: float
) -> list[example_gen_pb2.SplitConfig.Split]:
    """Gives each split its buckets: `train` the first, `eval` the last.

    So a document stays in `eval` when a `test` split is added: that is taken from
    `train`.
    """
    shares = {"eval": eval_fraction, "test": test_fraction}
    buckets = {name: round(share * HASH_BUCKETS) for name, share in shares.items()}
    buckets["train"] = HASH_BUCKETS - sum(buckets.values())
    return [
        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=buckets[name])
        for name in ("train", "test", "eval")
        if buckets[name]
    ]
