"""TextExampleGen: text files to examples, one a document."""

from __future__ import annotations

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

HASH_BUCKETS = 1000


class TextExampleGenSpec(ComponentSpec):
    """Interface of `TextExampleGen`; the proto-valued names are TFX's own."""

    PARAMETERS = {
        "input_config": ExecutionParameter(type=example_gen_pb2.Input),
        "output_config": ExecutionParameter(type=example_gen_pb2.Output),
        "output_data_format": ExecutionParameter(type=int),
        "output_file_format": ExecutionParameter(type=int),
        executor.DOCUMENTS_KEY: ExecutionParameter(type=str),
        executor.STRICT_KEY: ExecutionParameter(type=int),
        "fingerprint": ExecutionParameter(type=str),
        "source_hash": ExecutionParameter(type=str),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class TextExampleGen(base_beam_component.BaseBeamComponent):
    """Reads UTF-8 text files into examples with the features `text` and `id`.

    It has no driver, since Kubeflow Pipelines runs none: files are found in the
    executor. Splits are by a hash of the document's text, so that a document never
    straddles them and its exact copies stay together.

    ```python
    example_gen = TextExampleGen(corpus="books/*.txt", documents="paragraph")
    statistics_gen = StatisticsGen(examples=example_gen.outputs["examples"])
    ```

    Args:
        corpus: A file, a folder (read recursively) or a pattern, on any filesystem
            that Beam knows.
        documents: What one document is: `"file"`, `"paragraph"` (separated by blank
            lines) or `"line"`.
        eval_fraction: Share of documents in the `eval` split, in steps of 0.001; the
            rest is `train`.
        strict: Whether a file that is empty or not UTF-8 is an error. Otherwise it is
            named, counted and skipped.
        fingerprint: Anything that changes when the files do (see
            `files.fingerprint`), so that the cache notices.
    """

    SPEC_CLASS = TextExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        corpus: str,
        *,
        documents: str = "file",
        eval_fraction: float = 0.1,
        strict: bool = False,
        fingerprint: str = "",
    ) -> None:
        eval_buckets = round(eval_fraction * HASH_BUCKETS)
        split = example_gen_pb2.SplitConfig.Split
        output_config = example_gen_pb2.Output(
            split_config=example_gen_pb2.SplitConfig(
                splits=[
                    split(name="train", hash_buckets=HASH_BUCKETS - eval_buckets),
                    split(name="eval", hash_buckets=eval_buckets),
                ],
                partition_feature_name=executor.TEXT_FEATURE,
            )
        )
        input_split = example_gen_pb2.Input.Split(name="corpus", pattern=corpus)
        super().__init__(
            TextExampleGenSpec(
                input_config=example_gen_pb2.Input(splits=[input_split]),
                output_config=output_config,
                output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
                output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
                documents=documents,
                strict=int(strict),
                fingerprint=fingerprint,
                source_hash=source_hash("components/text_example_gen"),
                examples=Channel(type=standard_artifacts.Examples),
            )
        )
