"""Executor of Transform."""

from __future__ import annotations

import os

from tfx import types
from tfx.components.transform import executor as tfx_executor
from tfx.proto import transform_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, json_utils, proto_utils

from ...models.tokenizers.base import TextTokenizer
from ...models.tokenizers.table import restored
from .. import large_buffers, storage
from ..documents import batch_by_bytes
from ..progress import report
from ..text_example_gen.records import Labels, Splitting
from ..text_example_gen.settings import TAG
from ..types import Artifacts, Properties
from . import token_statistics

TOKENIZER_KEY = "tokenizer"


class Executor(tfx_executor.Executor):
    """Hands the tokenizer's folder to `preprocessing_fn`, then runs TFX's executor."""

    @large_buffers.returned()
    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> None:
        """Writes the transform graph, with the tokenizer in it, and the examples."""
        batch_by_bytes()
        inputs = dict(input_dict)
        tokenizer_uri = artifact_utils.get_single_uri(inputs.pop(TOKENIZER_KEY))
        config = json_utils.loads(exec_properties["custom_config"])
        examples_uri = artifact_utils.get_single_uri(input_dict["examples"])
        splitting, labels = Splitting.find(examples_uri), Labels.find(examples_uri)
        config["has_tags"] = labels is not None and labels.feature == TAG
        with storage.read_here(tokenizer_uri) as folder:
            config[TOKENIZER_KEY] = folder
            properties = {
                **exec_properties,
                "custom_config": json_utils.dumps(config),
                "splits_config": _splits_config(input_dict["examples"]),
            }
            super().Do(inputs, output_dict, properties)
        graph_uri = artifact_utils.get_single_uri(output_dict["transform_graph"])
        io_utils.copy_dir(tokenizer_uri, _tokenizer_folder(graph_uri))
        # An export says what was learned from, and has this graph to ask.
        for record in (splitting, labels):
            if record:
                record.write(graph_uri)
        self._gather_statistics(input_dict["examples"], output_dict)

    def _gather_statistics(
        self, examples: list[types.Artifact], output_dict: Artifacts
    ) -> None:
        graph_uri = artifact_utils.get_single_uri(output_dict["transform_graph"])
        found = token_statistics.gather(
            self._make_beam_pipeline,
            examples,
            artifact_utils.get_single_instance(output_dict["transformed_examples"]),
            token_ids=token_statistics.features_of(graph_uri),
            tokenizer=_tokenizer_folder(graph_uri),
            scratch=os.path.join(self._get_tmp_dir(), "token_statistics"),
        )
        for split, statistics in found.items():
            report(f"{split}: {statistics}")
            if statistics.target:
                report(f"{split}, targets: {statistics.target}")


def _splits_config(examples: list[types.Artifact]) -> str:
    splits = artifact_utils.decode_split_names(examples[0].split_names)
    # TFX reads what is to be analysed, though nothing is: the training split otherwise.
    config = transform_pb2.SplitsConfig(analyze=["eval"], transform=splits)
    return proto_utils.proto_to_json(config)


def tokenizer_of(transform_graph_uri: str) -> TextTokenizer:
    """Returns the tokenizer that lies in a transform graph artifact."""
    with storage.read_here(_tokenizer_folder(transform_graph_uri)) as folder:
        return restored(folder)


def _tokenizer_folder(transform_graph_uri: str) -> str:
    return os.path.join(transform_graph_uri, TOKENIZER_KEY)
