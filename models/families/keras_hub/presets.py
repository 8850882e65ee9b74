"""KerasHub's presets: their tokenizers, and their models with or without weights."""

from __future__ import annotations

import inspect
import os
from typing import Any

import keras_hub
from keras_hub.src.utils.preset_utils import find_subclass, get_preset_loader

from ...backbone import require
from ...tasks.causal_lm import CausalLM, CausalLMPreprocessor
from ...tokenizers.keras_hub import named_preset, preset_tokenizer
from .adapter import KerasHubCausalLM


def build_from_preset(
    preset: str,
    tokenizer: Any,
    context_length: int | None = None,
    pretrained: bool = False,
) -> CausalLM | KerasHubCausalLM:
    """A causal language model of KerasHub that stands where one of the zoo does.

    Args:
        preset: a folder, or a name or handle that KerasHub's `from_preset` knows.
        tokenizer: a tokenizer of `langzoo.models`. For pretrained weights the preset's
            own, as `preset_tokenizer()` gives it.
        context_length: int or `None`. Longest input, in tokens. Defaults to `None`, the
            model's own.
        pretrained: bool. Whether to load the weights. Without, they are drawn anew for
            the vocabulary of `tokenizer` and, where the architecture limits it, for
            `context_length`. Defaults to `False`.

    Raises:
        ValueError: if the preset cannot be loaded or is no causal language model, or
            the tokenizer or the context length do not fit the weights.

    References:
        - [KerasHub's presets](https://keras.io/keras_hub/presets/)
    """
    kind = keras_hub.models.CausalLM
    model = task_model(kind, "causal", preset, tokenizer, context_length, pretrained)
    if isinstance(model, CausalLM):
        require(
            context_length in (None, model.context_length),
            "`context_length` must be that of the pretrained model.",
            context_length=context_length,
            model=model.context_length,
        )
        model.preprocessor = CausalLMPreprocessor(tokenizer, model.context_length)
        return model
    return KerasHubCausalLM(model, tokenizer, context_length)


def task_model(
    kind: Any,
    what: str,
    preset: str,
    tokenizer: Any,
    context_length: int | None,
    pretrained: bool,
    *,
    size: int | None = None,
) -> Any:
    """A model of KerasHub's for a task, with the weights of a preset or drawn ones.

    Args:
        kind: the base class of the task's models.
        what: what these are, for messages.
        preset: as of `build_from_preset`; likewise the next three.
        size: int or `None`. Token ids of a model that is drawn, by default those of the
            tokenizer.

    Raises:
        ValueError: as `build_from_preset`.
    """
    preset = os.path.expanduser(preset)
    if pretrained:
        require_tokenizer(preset, tokenizer)
    with named_preset(preset, what):
        if pretrained:
            return kind.from_preset(preset, preprocessor=None)
        backbone_cls = get_preset_loader(preset).check_backbone_class()
        task = find_subclass(preset, kind, backbone_cls)
        size = size or tokenizer.vocabulary_size()
        backbone = untrained_backbone(preset, size, context_length)
        return task(backbone=backbone, preprocessor=None)


def require_tokenizer(preset: str, tokenizer: Any) -> None:
    """Checks that a tokenizer is that of pretrained weights.

    Raises:
        ValueError: if it is another one.
    """
    require(
        tokenizer.get_vocabulary() == preset_tokenizer(preset).get_vocabulary(),
        "Pretrained weights need the tokenizer of their preset.",
        tokenizer=type(tokenizer).__name__,
        preset=preset,
    )


def untrained_backbone(
    preset: str, vocabulary_size: int, context_length: int | None
) -> keras_hub.models.Backbone:
    """A preset's backbone for a vocabulary, its weights drawn anew.

    Args:
        preset: see `build_from_preset`.
        vocabulary_size: int. Number of token ids.
        context_length: int or `None`. Positions, where the architecture limits them.
    """
    backbone = get_preset_loader(preset).check_backbone_class()
    sizes = {"vocabulary_size": vocabulary_size}
    limited = "max_sequence_length" in inspect.signature(backbone.__init__).parameters
    if limited and context_length is not None:
        sizes["max_sequence_length"] = context_length
    return backbone.from_preset(preset, load_weights=False, **sizes)
