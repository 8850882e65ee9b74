"""Executor of Transform."""

from __future__ import annotations

import os
from typing import Any

from tfx import types
from tfx.components.transform import executor as tfx_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, json_utils

TOKENIZER_KEY = "tokenizer"


class Executor(tfx_executor.Executor):
    """Hands the tokenizer's folder to `preprocessing_fn`, then runs TFX's executor."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the transform graph, with the tokenizer in it, and the examples."""
        inputs = dict(input_dict)
        tokenizer_uri = artifact_utils.get_single_uri(inputs.pop(TOKENIZER_KEY))
        config = json_utils.loads(exec_properties["custom_config"])
        config[TOKENIZER_KEY] = tokenizer_uri
        properties = {**exec_properties, "custom_config": json_utils.dumps(config)}
        super().Do(inputs, output_dict, properties)
        graph_uri = artifact_utils.get_single_uri(output_dict["transform_graph"])
        io_utils.copy_dir(tokenizer_uri, tokenizer_folder(graph_uri))


def tokenizer_folder(transform_graph_uri: str) -> str:
    """Returns where the tokenizer lies in a transform graph artifact."""
    return os.path.join(transform_graph_uri, TOKENIZER_KEY)
