"""Executor of StatisticsGen."""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.components.statistics_gen import executor as tfx_executor

from .. import large_buffers
from ..documents import batch_by_bytes


class Executor(tfx_executor.Executor):
    """TFX's, on batches that are bounded by their size."""

    @large_buffers.returned()
    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the `statistics` artifact."""
        batch_by_bytes()
        super().Do(input_dict, output_dict, exec_properties)
