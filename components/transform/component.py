"""Transform: TFX's own, with a tokenizer as one more input."""

from __future__ import annotations

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter
from tfx.utils import json_utils

from ..source import source_hash
from ..types import Tokenizer
from . import executor

PREPROCESSING_FN = "langzoo.components.transform.preprocessing.preprocessing_fn"


class TransformSpec(standard_component_specs.TransformSpec):
    """TFX's interface and the tokenizer."""

    INPUTS = {
        **standard_component_specs.TransformSpec.INPUTS,
        executor.TOKENIZER_KEY: ChannelParameter(type=Tokenizer),
    }


class Transform(base_beam_component.BaseBeamComponent):
    """Tokenizes in the graph: from `text` to ragged `token_ids`, one row a document.

    From `target`, where documents have such, to `target_ids`, by the same tokenizer.
    Other features of the schema, such as a label, go with them. How many tokens each
    split has, how long they are and how many unknown, lies in the transformed examples
    as `tokens.json`.

    ```python
    transform = Transform(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        tokenizer=tokenizer_trainer.outputs["tokenizer"],
    )
    ```

    The transform graph artifact also carries the tokenizer (`tokenizer_of`), so
    that whoever has the graph has the one tokenizer.

    Args:
        examples: Examples with the feature `text`, and perhaps `target`.
        schema: Schema of the examples.
        tokenizer: A KerasHub tokenizer preset.
    """

    SPEC_CLASS = TransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self, *, examples: BaseChannel, schema: BaseChannel, tokenizer: BaseChannel
    ) -> None:
        transformed_examples = Channel(type=standard_artifacts.Examples)
        transformed_examples.matching_channel_name = "examples"
        config = {"source": source_hash(executor.__name__, PREPROCESSING_FN)}
        super().__init__(
            TransformSpec(
                examples=examples,
                schema=schema,
                tokenizer=tokenizer,
                preprocessing_fn=PREPROCESSING_FN,
                force_tf_compat_v1=0,
                custom_config=json_utils.dumps(config),
                # They would double this component's time and nothing reads them.
                disable_statistics=1,
                transform_graph=Channel(type=standard_artifacts.TransformGraph),
                transformed_examples=transformed_examples,
                updated_analyzer_cache=Channel(type=standard_artifacts.TransformCache),
            )
        )
