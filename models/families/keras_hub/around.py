"""What models around one of KerasHub's have in common."""

from __future__ import annotations

from typing import Any, Self

import keras

from ...backbone import require


class Around:
    """What goes before a task among the base classes of a model around KerasHub's.

    Attributes:
        model: the model that it is around.
    """

    model: Any
    _tokenizer: Any
    _length: int

    def _keep(self, model: Any, tokenizer: Any, length: int) -> None:
        """Notes what it is made of, once it is built."""
        self._length = length
        # No layers of this one, which has those of the model.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "_tokenizer", tokenizer)

    def around(self, model: Any) -> Self:
        """The same of a model of the same class."""
        make: Any = type(self)
        return make(model, self._tokenizer, self._length)

    @property
    def context_length(self) -> int:
        """The longest input, in tokens, that the model is made for."""
        return self._length

    def save_to_preset(self, preset_dir: str, **kwargs: Any) -> None:
        """Saves the model as a preset of KerasHub's."""
        self.model.save_to_preset(preset_dir, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The model, its tokenizer, and how long inputs are."""
        serialize = keras.saving.serialize_keras_object
        return {
            "model": serialize(self.model),
            "tokenizer": serialize(self._tokenizer),
            "context_length": self._length,
            "name": self.name,  # type: ignore[attr-defined]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `get_config`."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("model", "tokenizer")
        }
        return cls(**{**config, **parts})


def length_of(model: Any, context_length: int | None) -> int:
    """The longest input, in tokens: as given, or the positions of a model.

    Raises:
        ValueError: if there is none, or it is longer than the positions.
    """
    positions = getattr(model.backbone, "max_sequence_length", None)
    length: Any = context_length or positions
    require(
        length is not None and length <= (positions or length),
        "`context_length` must be given, within the model's positions.",
        context_length=context_length,
        positions=positions,
    )
    return int(length)


def require_ids(model: Any, tokenizer: Any) -> None:
    """Checks that a model knows all token ids of a tokenizer.

    Raises:
        ValueError: if it does not.
    """
    require(
        tokenizer.vocabulary_size() <= model.backbone.vocabulary_size,
        "The tokenizer must not have more token ids than the model.",
        tokenizer=tokenizer.vocabulary_size(),
        model=model.backbone.vocabulary_size,
    )
