"""Classifiers and taggers on KerasHub's backbones, with or without their weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras_hub

from ...backbone import require
from ...tasks.text_classifier import TextClassifier
from ...tasks.token_classifier import TokenClassifier
from ...tokenizers.keras_hub import named_preset
from .presets import require_tokenizer, untrained_backbone


def build_classifier(
    preset: str,
    tokenizer: Any,
    labels: Sequence[str],
    context_length: int | None = None,
    pretrained: bool = False,
    cls: Any = TextClassifier,
    **options: Any,
) -> Any:
    """A classifier on the backbone of a KerasHub preset, causal or not.

    Args:
        preset: a folder, or a name or handle that KerasHub's `from_preset` knows.
        tokenizer: a tokenizer of `langzoo.models`. For pretrained weights the preset's
            own, as `preset_tokenizer()` gives it.
        labels: as of `TextClassifier`.
        context_length: int or `None`. Longest input, in tokens. Defaults to `None`, the
            model's own.
        pretrained: bool. As of `presets.build_from_preset`.
        cls: the class of the task.
        **options: others of that class.

    Raises:
        ValueError: if the preset cannot be loaded or reads other things than text, or
            the tokenizer or the context length do not fit the weights.
    """
    preset = os.path.expanduser(preset)
    if pretrained:
        require_tokenizer(preset, tokenizer)
    with named_preset(preset):
        if pretrained:
            backbone = keras_hub.models.Backbone.from_preset(preset)
        else:
            size = tokenizer.vocabulary_size()
            backbone = untrained_backbone(preset, size, context_length)
    positions = getattr(backbone, "max_sequence_length", None)
    length: Any = context_length or positions
    require(
        length is not None and (positions is None or length <= positions),
        "`context_length` must be given, and at most the model's positions.",
        context_length=context_length,
        positions=positions,
    )
    preprocessor = cls.preprocessor_cls(tokenizer, sequence_length=length)
    return cls(backbone, labels, preprocessor, **options)


def build_tagger(**given: Any) -> TokenClassifier:
    """A tagger of words on such a backbone; it takes what `build_classifier` does."""
    tagger: TokenClassifier = build_classifier(cls=TokenClassifier, **given)
    return tagger
