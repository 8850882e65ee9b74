"""KerasHub's presets: their tokenizers, and their models with or without weights."""

from __future__ import annotations

import inspect
import os
from typing import Any

from keras_hub.src.utils.preset_utils import find_subclass, get_preset_loader

from ...backbone import require
from ...tasks.causal_lm import CausalLM, CausalLMPreprocessor
from ...tokenizers.keras_hub import KINDS, named_preset, preset_tokenizer
from .adapter import KerasHubCausalLM
from .masked_lm import KerasHubMaskedLM


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
    size = tokenizer.vocabulary_size()
    model = _loaded("causal", preset, tokenizer, size, context_length, pretrained)
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


def build_masked_lm(
    preset: str,
    tokenizer: Any,
    context_length: int | None = None,
    pretrained: bool = False,
) -> KerasHubMaskedLM:
    """A masked language model of KerasHub, as `build_from_preset` makes a causal one.

    Raises:
        ValueError: as there.
    """
    size = max(tokenizer.vocabulary_size(), tokenizer.mask_token_id + 1)
    model = _loaded("masked", preset, tokenizer, size, context_length, pretrained)
    return KerasHubMaskedLM(model, tokenizer, context_length)


def _loaded(
    name: str,
    preset: str,
    tokenizer: Any,
    vocabulary_size: int,
    context_length: int | None,
    pretrained: bool,
) -> Any:
    """The model of a preset, of a class of tasks, with its weights or untrained."""
    kind: Any = KINDS[name]
    preset = os.path.expanduser(preset)
    if pretrained:
        require(
            tokenizer.get_vocabulary() == preset_tokenizer(preset).get_vocabulary(),
            "Pretrained weights need the tokenizer of their preset.",
            tokenizer=type(tokenizer).__name__,
            preset=preset,
        )
    with named_preset(preset, name):
        if pretrained:
            return kind.from_preset(preset, preprocessor=None)
        return _untrained(kind, preset, vocabulary_size, context_length)


def _untrained(
    kind: Any, preset: str, vocabulary_size: int, context_length: int | None
) -> Any:
    backbone = get_preset_loader(preset).check_backbone_class()
    task = find_subclass(preset, kind, backbone)
    sizes = {"vocabulary_size": vocabulary_size}
    limited = "max_sequence_length" in inspect.signature(backbone.__init__).parameters
    if limited and context_length is not None:
        sizes["max_sequence_length"] = context_length
    return task(
        backbone=backbone.from_preset(preset, load_weights=False, **sizes),
        preprocessor=None,
    )
