"""TextExampleGen: text files to examples, one a document."""

from __future__ import annotations

import json

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
from . import executor
from .cleaning import function_hash
from .settings import CleaningSettings, CorpusSettings


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
    example_gen = TextExampleGen(CorpusSettings(path="books/*.txt", strict=True))
    statistics_gen = StatisticsGen(examples=example_gen.outputs["examples"])
    ```

    Args:
        corpus: Where text lies, how it is read, and how it is split.
        cleaning: How documents are cleaned.
        record: File in which a run leaves its number of documents for the next, which
            stops where there are ten times fewer; "" for none.
        fingerprint: Anything that changes when the files do (see
            `files.fingerprint`), so that the cache notices.
    """

    SPEC_CLASS = TextExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        corpus: CorpusSettings,
        *,
        cleaning: CleaningSettings | None = None,
        record: str = "",
        fingerprint: str = "",
    ) -> None:
        output_config = example_gen_pb2.Output(
            split_config=example_gen_pb2.SplitConfig(
                splits=[
                    example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=count)
                    for name, count in corpus.buckets.items()
                ],
                partition_feature_name=executor.TEXT_FEATURE,
            )
        )
        cleaning = cleaning or CleaningSettings()
        sources = corpus.all_sources
        input_split = example_gen_pb2.Input.Split(
            name="corpus", pattern=sources[0].path
        )
        super().__init__(
            TextExampleGenSpec(
                input_config=example_gen_pb2.Input(splits=[input_split]),
                output_config=output_config,
                output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
                output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
                sources=json.dumps([source.model_dump() for source in sources]),
                strict=int(corpus.strict),
                cleaning=json.dumps(cleaning.model_dump()),
                record=record,
                allow_fewer_documents=int(corpus.allow_fewer_documents),
                filter_hash=function_hash(cleaning.filter),
                fingerprint=fingerprint,
                source_hash=source_hash(executor.__name__),
                examples=Channel(type=standard_artifacts.Examples),
            )
        )
