"""Models by name: a family, a task and a tokenizer make one."""

from __future__ import annotations

from typing import Any

import keras_hub

from . import families
from .backbone import CausalBackbone, require
from .families.family import Family
from .families.keras_hub.adapter import KerasHubCausalLM
from .families.presets import PRESETS, resolved
from .learning.recipe import COMMON
from .references import load
from .tasks import TASKS
from .tasks.causal_lm import CausalLM
from .tokenizers import files, words  # noqa: F401  (register all tokenizers)
from .tokenizers.keras_hub import preset_tokenizer

FAMILIES: dict[str, type[CausalBackbone]] = {
    name: family.backbone_cls()
    for name, family in families.FAMILIES.items()
    if family.backbone
}
"""The backbone class of each family, by the name used in configurations.

They are imported here, so that Keras knows all of them when a preset is loaded.
"""


def hyperparameters(family: str) -> dict[str, Any]:
    """The hyperparameters of a family and their defaults.

    Raises:
        ValueError: if there is no such family.
    """
    record = families.family_of(family)
    return record.hyperparameters() | ({"dtype": None} if record.backbone else {})


def build(
    family: str,
    tokenizer: Any,
    context_length: int | None = None,
    initial_weights: str | None = None,
    *,
    task: str = "causal_lm",
    **hyperparameters_: Any,
) -> CausalLM | KerasHubCausalLM:
    """Builds an untrained model of a family, or after a preset.

    Args:
        family: a name of a family, or of a preset (`families.presets.PRESETS`), or
            `module:NAME` for a `Family` of your own. `"keras_hub"` is a model of
            KerasHub, with or without its weights; then `hyperparameters_` are `preset`
            and `pretrained` of `keras_hub.presets.build_from_preset`.
        tokenizer: a tokenizer of `langzoo.models`.
        context_length: int. Longest input, in tokens. Defaults to the preset's; with a
            family it must be given.
        initial_weights: string or `None`. Folder of a preset that a model of this
            architecture, with this tokenizer, was saved in: the model begins with its
            weights, but may have another dropout, say. (As it was saved it comes back
            by `CausalLM.from_preset`.) Defaults to `None`, newly drawn weights.
        task: a name of a task, of `tasks.TASKS`. Defaults to `"causal_lm"`.
        **hyperparameters_: arguments of the family's backbone, in place of those of
            the preset and of their defaults. See `hyperparameters()`.

    Returns:
        A model of the task with its preprocessor, such as a `CausalLM`, compiled with
        the family's recipe for a training of any length.

    Raises:
        ValueError: if the family, the task or a hyperparameter is unknown, a value is
            out of range, or the initial weights or their tokenizer are other ones.

    Example:
    ```python
    model = build_causal_lm("lstm", ByteTokenizer(), 64, num_layers=2)
    model = build_causal_lm("transformer_small", ByteTokenizer())
    model = build_causal_lm("keras_hub", ByteTokenizer(), 64, preset="gpt2_base_en")
    ```
    """
    if family in PRESETS:
        if context_length is not None:
            hyperparameters_["context_length"] = context_length
        model = resolved({"preset": family, **hyperparameters_})
        return build(
            tokenizer=tokenizer, initial_weights=initial_weights, task=task, **model
        )
    record = families.family_of(family)
    _require_known(record, family, task, initial_weights, hyperparameters_)
    if not record.backbone:
        return load(record.tasks[task])(
            tokenizer=tokenizer, context_length=context_length, **hyperparameters_
        )
    require(
        context_length is not None and context_length > 0,
        "`context_length` must be positive.",
        context_length=context_length,
    )
    backbone = record.backbone_cls()(
        vocabulary_size=tokenizer.vocabulary_size(),
        max_sequence_length=context_length,
        **hyperparameters_,
    )
    if initial_weights is not None:
        _load(backbone, tokenizer, initial_weights)
    cls = load(record.tasks.get(task, TASKS[task].model))
    preprocessor = cls.preprocessor_cls(tokenizer, sequence_length=context_length)
    model = cls(backbone=backbone, preprocessor=preprocessor)
    if record.learns_by_gradient:
        model.compile(optimizer=(record.recipe or COMMON).make_optimizer())
    return model


build_causal_lm = build
"""`build`, by the name of its default task."""


def _require_known(
    record: Family,
    family: str,
    task: str,
    initial_weights: str | None,
    given: dict[str, Any],
) -> None:
    require(task in TASKS, f"`task` must be one of {sorted(TASKS)}.", task=task)
    require(
        initial_weights is None or record.takes_initial_weights,
        "`initial_weights` are for families of the zoo that learn by gradient.",
        family=family,
    )
    known = hyperparameters(family)
    unknown = sorted(set(given) - set(known))
    require(
        not unknown,
        f"Hyperparameters of {family!r} must be among {sorted(known)}.",
        unknown=unknown,
    )


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
