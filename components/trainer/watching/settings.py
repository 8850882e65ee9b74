"""How a training is watched, as a person says it.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field

from ....models.settings import Section
from ... import storage

_FILE = "watch.json"


class WatchSettings(Section):
    """How the training can be watched. Nothing of it changes what is learned, and a
    change of it neither trains again nor loses a checkpoint."""

    tensorboard: bool = True
    """Whether there are logs for TensorBoard."""
    graph: bool = False
    """Whether they hold the model's graph."""
    profile_steps: (
        Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]
        | None
    ) = None
    """First and last step, such as `[20, 30]`, of which they hold a profile."""
    sample_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens of text that the model writes at every evaluation of
    `trainer.eval_every_steps`, from one seed; 0 for no text."""
    sample_prompt: str = ""
    """What that text begins with."""
    wandb_project: Annotated[str, Field(min_length=1)] | None = None
    """Project of Weights & Biases that is told as well: `pip install 'langzoo[wandb]'`,
    and `WANDB_API_KEY` or `WANDB_MODE=offline` in the environment."""

    @classmethod
    def of(cls, settings: dict[str, Any] | str) -> WatchSettings | None:
        """Takes the fields, or the path of the file with them; `None` for nothing."""
        if isinstance(settings, str):
            return cls.model_validate_json(storage.read_text(settings))
        return cls(**settings) if settings else None

    def write(self, folder: str) -> str:
        """Writes a file for `of` into a folder, and returns its path."""
        path = f"{folder}/{_FILE}"
        storage.write_text(path, self.model_dump_json())
        return path

    @pydantic.model_validator(mode="after")
    def _what_is_in_the_logs_has_logs(self) -> WatchSettings:
        for name in ("graph", "profile_steps"):
            if getattr(self, name) and not self.tensorboard:
                raise ValueError(f"watch.{name} needs watch.tensorboard true")
        first, last = self.profile_steps or (1, 1)
        if first > last:
            raise ValueError(
                f"watch.profile_steps [{first}, {last}] must be the first step and the "
                "last"
            )
        return self
