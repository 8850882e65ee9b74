"""Any masked language model of KerasHub where one of the zoo is expected."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
from keras import ops

from ...backbone import Tensor, require, token_inputs
from ...tasks.masked_lm import MaskedLM, MaskedLMPreprocessor
from .around import Around, length_of
from .presets import task_model

_INPUTS = {"token_ids", "padding_mask", "segment_ids", "mask_positions"}


@keras.saving.register_keras_serializable(package="langzoo")
class KerasHubMaskedLM(Around, MaskedLM):
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
        length = length_of(model, context_length)
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
        self._keep(model, tokenizer, length)

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
    model = task_model(
        keras_hub.models.MaskedLM,
        "masked",
        preset,
        tokenizer,
        context_length,
        pretrained,
        size=max(tokenizer.vocabulary_size(), tokenizer.mask_token_id + 1),
    )
    return KerasHubMaskedLM(model, tokenizer, context_length)
