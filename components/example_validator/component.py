"""ExampleValidator: TFX's own, and it stops the run where data is lost."""

from __future__ import annotations

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import json_utils

from ..source import source_hash
from . import executor


class ExampleValidatorSpec(standard_component_specs.ExampleValidatorSpec):
    """TFX's interface and the hash of the source."""

    PARAMETERS = {
        **standard_component_specs.ExampleValidatorSpec.PARAMETERS,
        "source_hash": ExecutionParameter(type=str),
    }


class ExampleValidator(base_component.BaseComponent):
    """Validates statistics against the schema, and acts on what it finds.

    TFX's component only writes anomalies. Here those that mean lost data (no text, only
    empty texts) are an error, and the others a warning.

    ```python
    example_validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"],
        schema=schema_gen.outputs["schema"],
    )
    ```

    Args:
        statistics: Statistics of examples.
        schema: Their schema.
    """

    SPEC_CLASS = ExampleValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, *, statistics: BaseChannel, schema: BaseChannel) -> None:
        super().__init__(
            ExampleValidatorSpec(
                statistics=statistics,
                schema=schema,
                exclude_splits=json_utils.dumps([]),
                source_hash=source_hash(executor.__name__),
                anomalies=Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
