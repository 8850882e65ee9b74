"""What a task is: one record.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Task(NamedTuple):
    """What models learn to do, and what they are judged by.

    Attributes:
        name: As it stands in configurations.
        model: `module:Class` of its models on any backbone, imported when one is built.
        metric: The metric that models of this task are gated on.
        unit: That of the metric.
        direction: Whether lower or higher values of it are better.
        is_of_tokens: Whether it is of tokens as the tokenizer cuts them, so that only
            models with the same one compare.
        beside: Metrics that are told first beside it.
        needs: What a family must be able to do for it, a field of `Family`, unless it
            has a class of its own; "" for nothing.
        target: What it is to predict, which losses in training are told of.
        counts: What of a training is counted by the second.
        learns_from: Features of the examples, besides the text, that it learns from.
        hub: What the Hugging Face Hub calls it.
        model_noun: What a model card calls its models.
        intended_use: What it says that they are for, where the user does not.
        command: One that asks a model, as it says.
    """

    name: str
    model: str
    metric: str
    unit: str
    direction: Literal["lower", "higher"] = "lower"
    is_of_tokens: bool = False
    beside: tuple[str, ...] = ()
    needs: str = ""
    target: str = "token"
    counts: Literal["tokens", "texts"] = "tokens"
    learns_from: tuple[str, ...] = ()
    hub: str = ""
    model_noun: str = "A language model"
    intended_use: str = ""
    command: str = ""

    @property
    def has_perplexity(self) -> bool:
        """Whether a loss of its targets has a perplexity that means something."""
        return self.target == "token"

    @property
    def words(self) -> str:
        """The metric's name in words."""
        return self.metric.replace("_", " ")
