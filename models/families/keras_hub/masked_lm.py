"""Any masked language model of KerasHub where one of the zoo is expected."""

from __future__ import annotations

import os
from typing import Any

import keras
import keras_hub
from keras import ops
from keras_hub.src.utils.preset_utils import find_subclass

from ...backbone import Tensor, require, token_inputs
from ...tasks.masked_lm import MaskedLM, MaskedLMPreprocessor
from ...tokenizers.keras_hub import named_preset
from .presets import require_tokenizer, untrained_backbone

_INPUTS = {"token_ids", "padding_mask", "segment_ids", "mask_positions"}


@keras.saving.register_keras_serializable(package="langzoo")
class KerasHubMaskedLM(MaskedLM):
    """A KerasHub model as the export, the scoring and the training take it.

    It has the model's layers and weights, and what `langzoo.models.MaskedLM` has
    besides; a text is one segment. A preset that it saves is the model's.

    Args:
        model: a `keras_hub.models.MaskedLM` that reads text, and knows padding.
        tokenizer: a tokenizer of `langzoo.models` for the model's vocabulary.
        context_length: int or `None`. Longest input, in tokens. Defaults to `None`,
            the `max_sequence_length` of the model's backbone.
        **kwargs: `name`, by default the model's.

    Call arguments:
        inputs: as those of `langzoo.models.MaskedLM`.

    Attributes:
        model: the model.

    Raises:
        ValueError: if the model reads other things, the tokenizer has more token ids
            than the model, or there is no context length, or one that is longer than
            the model's positions.
    """

    backbone_cls = None  # type: ignore[assignment]  # Its presets are KerasHub's.

    def __init__(
        self,
        model: keras_hub.models.MaskedLM,
        tokenizer: Any,
        context_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        inputs = set(model.input)
        require(
            _INPUTS - {"segment_ids"} <= inputs <= _INPUTS,
            f"`{type(model).__name__}` must read text, and know where padding is.",
            inputs=sorted(inputs),
        )
        positions = getattr(model.backbone, "max_sequence_length", None)
        length: Any = context_length or positions
        require(
            length is not None and length <= (positions or length),
            "`context_length` must be given, within the model's positions.",
            context_length=context_length,
            positions=positions,
        )
        require(
            tokenizer.mask_token_id < model.backbone.vocabulary_size,
            "The model must have an id for the tokenizer's mask, and all before it.",
            mask=tokenizer.mask_token_id,
            model=model.backbone.vocabulary_size,
        )
        # === Layers ===
        self.backbone = model.backbone
        self.preprocessor = MaskedLMPreprocessor(tokenizer, sequence_length=length)
        self.masked_lm_head = model.masked_lm_head
        if model.preprocessor is None:
            model.preprocessor = self.preprocessor
        self._has_segments = "segment_ids" in inputs

        # === Functional Model ===
        given = token_inputs()
        positions = keras.Input((None,), dtype="int32", name="mask_positions")
        given["mask_positions"] = positions
        outputs = ops.cast(model(self._whole(given)), "float32")
        keras_hub.models.MaskedLM.__init__(
            self, inputs=given, outputs=outputs, **{"name": model.name, **kwargs}
        )
        self._length = length
        # No layers of this one, which has those of the model.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "_tokenizer", tokenizer)

    def around(self, model: keras_hub.models.MaskedLM) -> KerasHubMaskedLM:
        """The same of a model of the same class."""
        return KerasHubMaskedLM(model, self._tokenizer, self._length)

    @property
    def context_length(self) -> int:
        """The longest input, in tokens, that the model is made for."""
        return self._length

    def save_to_preset(self, preset_dir: str, **kwargs: Any) -> None:
        """Saves the model as a preset of KerasHub's."""
        self.model.save_to_preset(preset_dir, **kwargs)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "model": serialize(self.model),
            "tokenizer": serialize(self._tokenizer),
            "context_length": self._length,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasHubMaskedLM:
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("model", "tokenizer")
        }
        return cls(**{**config, **parts})

    def _whole(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs as the model has them."""
        whole = {**inputs, "padding_mask": ops.cast(inputs["padding_mask"], "int32")}
        if self._has_segments:
            whole["segment_ids"] = ops.zeros_like(inputs["token_ids"])
        return whole


def build_masked_lm(
    preset: str,
    tokenizer: Any,
    context_length: int | None = None,
    pretrained: bool = False,
) -> KerasHubMaskedLM:
    """A masked language model of KerasHub, as `build_from_preset` makes a causal one.

    Args:
        preset: as there; likewise `tokenizer`, `context_length` and `pretrained`.

    Raises:
        ValueError: as there.
    """
    preset = os.path.expanduser(preset)
    kind = keras_hub.models.MaskedLM
    if pretrained:
        require_tokenizer(preset, tokenizer)
    with named_preset(preset, "masked"):
        if pretrained:
            model = kind.from_preset(preset, preprocessor=None)
        else:
            size = max(tokenizer.vocabulary_size(), tokenizer.mask_token_id + 1)
            backbone = untrained_backbone(preset, size, context_length)
            cls = find_subclass(preset, kind, type(backbone))
            model = cls(backbone=backbone, preprocessor=None)
    return KerasHubMaskedLM(model, tokenizer, context_length)
