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

TEXT_CLASSIFIER = Task(
    name="text_classifier",
    model="langzoo.models.tasks.text_classifier:TextClassifier",
    metric="cross_entropy",
    unit="nats",
)

TASKS: dict[str, Task] = {task.name: task for task in (CAUSAL_LM, TEXT_CLASSIFIER)}
"""The tasks, by the name used in configurations."""
