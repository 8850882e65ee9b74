"""The families by name."""

from __future__ import annotations

import inspect
from typing import Any

import keras_hub

from .backbone import CausalBackbone, require
from .families.convolutional.backbone import GatedConvBackbone, TCNBackbone
from .families.keras_hub.adapter import KerasHubCausalLM
from .families.keras_hub.presets import build_from_preset
from .families.ngram.causal_lm import NgramBackbone, NgramCausalLM
from .families.presets import KERAS_HUB, PRESETS, resolved
from .families.recurrent.backbone import GRUBackbone, LSTMBackbone, SimpleRNNBackbone
from .families.transformer.backbone import TransformerBackbone
from .learning.recipe import RECIPES
from .tasks.causal_lm import CausalLM, CausalLMPreprocessor
from .tokenizers import files, words  # noqa: F401  (register all tokenizers)
from .tokenizers.keras_hub import preset_tokenizer

FAMILIES: dict[str, type[CausalBackbone]] = {
    "transformer": TransformerBackbone,
    "rnn": SimpleRNNBackbone,
    "gru": GRUBackbone,
    "lstm": LSTMBackbone,
    "gated_conv": GatedConvBackbone,
    "tcn": TCNBackbone,
    "ngram": NgramBackbone,
}
"""The backbone class of each family, by the name used in configurations."""

# The tasks of families that do not learn by gradient.
_TASKS: dict[str, type[CausalLM]] = {"ngram": NgramCausalLM}
_GIVEN = {"self", "vocabulary_size", "max_sequence_length", "kwargs"}


def hyperparameters(family: str) -> dict[str, Any]:
    """The hyperparameters of a family and their defaults.

    Raises:
        ValueError: if there is no such family.
    """
    require(
        family in FAMILIES,
        f"`family` must be one of {sorted(FAMILIES)}.",
        family=family,
    )
    parameters = inspect.signature(FAMILIES[family].__init__).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in _GIVEN
    }


def build_causal_lm(
    family: str,
    tokenizer: Any,
    context_length: int | None = None,
    initial_weights: str | None = None,
    **hyperparameters_: Any,
) -> CausalLM | KerasHubCausalLM:
    """Builds an untrained model of a family, or after a preset.

    Args:
        family: a key of `FAMILIES`, or the name of a preset (`presets.PRESETS`), or
            `"keras_hub"` for a model of KerasHub, with or without its weights; then
            `hyperparameters_` are `preset` and `pretrained` of
            `keras_hub_presets.build_from_preset`.
        tokenizer: a tokenizer of `langzoo.models`.
        context_length: int. Longest input, in tokens. Defaults to the preset's; with a
            family it must be given.
        initial_weights: string or `None`. Folder of a preset that a model of this
            architecture, with this tokenizer, was saved in: the model begins with its
            weights, but may have another dropout, say. (As it was saved it comes back
            by `CausalLM.from_preset`.) Defaults to `None`, newly drawn weights.
        **hyperparameters_: arguments of the family's backbone, in place of those of
            the preset and of their defaults. See `hyperparameters()`.

    Returns:
        A `CausalLM` with its preprocessor, compiled with the family's recipe
        (`recipes.RECIPES`) for a training of any length.

    Raises:
        ValueError: if the family or a hyperparameter is unknown, a value is out of
            range, or the initial weights or their tokenizer are other ones.

    Example:
    ```python
    model = build_causal_lm("lstm", ByteTokenizer(), 64, num_layers=2)
    model = build_causal_lm("transformer_small", ByteTokenizer())
    model = build_causal_lm("keras_hub", ByteTokenizer(), 64, preset="gpt2_base_en")
    ```
    """
    require(
        initial_weights is None or family not in (KERAS_HUB, *_TASKS),
        "`initial_weights` are for families of the zoo that learn by gradient.",
        family=family,
    )
    if family == KERAS_HUB:
        return build_from_preset(
            tokenizer=tokenizer, context_length=context_length, **hyperparameters_
        )
    if family in PRESETS:
        if context_length is not None:
            hyperparameters_["context_length"] = context_length
        model = resolved({"preset": family, **hyperparameters_})
        return build_causal_lm(
            tokenizer=tokenizer, initial_weights=initial_weights, **model
        )
    known = hyperparameters(family)
    unknown = sorted(set(hyperparameters_) - set(known))
    require(
        not unknown,
        f"Hyperparameters of {family!r} must be among {sorted(known)}.",
        unknown=unknown,
    )
    require(
        context_length is not None and context_length > 0,
        "`context_length` must be positive.",
        context_length=context_length,
    )
    backbone = FAMILIES[family](
        vocabulary_size=tokenizer.vocabulary_size(),
        max_sequence_length=context_length,
        **hyperparameters_,
    )
    preprocessor = CausalLMPreprocessor(tokenizer, sequence_length=context_length)
    if initial_weights is not None:
        _load(backbone, tokenizer, initial_weights)
    task = _TASKS.get(family, CausalLM)
    model = task(backbone=backbone, preprocessor=preprocessor)
    if family in RECIPES:
        model.compile(optimizer=RECIPES[family].make_optimizer())
    return model


def _load(backbone: CausalBackbone, tokenizer: Any, preset: str) -> None:
    require(
        tokenizer.get_vocabulary() == preset_tokenizer(preset).get_vocabulary(),
        "`initial_weights` need the tokenizer of their preset.",
        tokenizer=type(tokenizer).__name__,
        initial_weights=preset,
    )
    weights = keras_hub.models.Backbone.from_preset(preset).get_weights()
    shapes = [weight.shape for weight in weights]
    require(
        shapes == [tuple(weight.shape) for weight in backbone.weights],
        "`initial_weights` must be those of a model of the same sizes.",
        initial_weights=preset,
    )
    backbone.set_weights(weights)
