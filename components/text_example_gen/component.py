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
from ..types import channels, parameters
from . import executor
from .cleaning import function_hash
from .settings import CleaningSettings, CorpusSettings


class TextExampleGenSpec(ComponentSpec):
    """Interface of `TextExampleGen`; the proto-valued names are TFX's own."""

    PARAMETERS = {
        "input_config": ExecutionParameter(type=example_gen_pb2.Input),
        "output_config": ExecutionParameter(type=example_gen_pb2.Output),
        **parameters(int, "output_data_format", "output_file_format"),
        **parameters(str, executor.SOURCES_KEY, executor.BUCKETS_KEY),
        **parameters(str, executor.CLEANING_KEY, executor.RECORD_KEY),
        **parameters(int, executor.STRICT_KEY, executor.ALLOW_FEWER_KEY),
        **parameters(int, executor.MIN_LABEL_KEY),
        **parameters(str, "filter_hash", "fingerprint", "source_hash"),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = channels(standard_artifacts.Examples, "examples")


class TextExampleGen(base_beam_component.BaseBeamComponent):
    """Reads text into examples with the features `text` and `id`, and further fields.

    It has no driver, since Kubeflow Pipelines runs none: files are found in the
    executor. Splits are those that sources say, or by a hash of the document's text, so
    that its exact copies stay together, or of its group.

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
                # TFX wants some buckets of each; how many is told beside it.
                splits=[
                    example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1)
                    for name in corpus.buckets
                ]
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
                buckets=json.dumps(corpus.buckets),
                strict=int(corpus.strict),
                cleaning=json.dumps(cleaning.model_dump()),
                record=record,
                allow_fewer_documents=int(corpus.allow_fewer_documents),
                min_label_documents=corpus.min_label_documents,
                filter_hash=function_hash(cleaning.filter),
                fingerprint=fingerprint,
                source_hash=source_hash(executor.__name__),
                examples=Channel(type=standard_artifacts.Examples),
            )
        )
