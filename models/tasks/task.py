"""What a task is: one record.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from ..references import load


class Task(NamedTuple):
    """What models learn to do, and what they are judged by.

    Attributes:
        name: As it stands in configurations.
        model: `module:Class` of the task on any backbone, imported when a model is
            built.
        metric: The metric that models of this task are gated on.
        unit: That of the metric.
        direction: Whether lower or higher values of it are better.
    """

    name: str
    model: str
    metric: str
    unit: str
    direction: Literal["lower", "higher"] = "lower"

    @property
    def words(self) -> str:
        """The metric's name in words."""
        return self.metric.replace("_", " ")

    def model_cls(self) -> Any:
        """The class of its models, imported."""
        return load(self.model)
