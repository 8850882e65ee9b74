"""What models learn to do: tasks on any backbone.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from .task import Task

CAUSAL_LM = Task(
    name="causal_lm",
    model="langzoo.models.tasks.causal_lm:CausalLM",
    metric="bits_per_byte",
    unit="bits",
)

TASKS: dict[str, Task] = {task.name: task for task in (CAUSAL_LM,)}
"""The tasks, by the name used in configurations."""
