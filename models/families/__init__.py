"""The families: architectures, each a folder with its record.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..references import is_reference, load
from .bag.family import BAG
from .bert.family import BERT
from .convolutional.family import GATED_CONV, TCN
from .convolutional_encoder_decoder.family import CONVOLUTIONAL_ENCODER_DECODER
from .encoder_decoder.family import ENCODER_DECODER
from .family import Family, FamilySettings
from .keras_hub.family import KERAS_HUB
from .mixture.family import MIXTURE
from .ngram.family import NGRAM
from .recurrent.family import GRU, LSTM, RNN
from .recurrent_encoder_decoder.family import RECURRENT_ENCODER_DECODER
from .transformer.family import TRANSFORMER

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(TRANSFORMER, BERT, RNN, GRU, LSTM, GATED_CONV, TCN, NGRAM, MIXTURE),
        *(BAG, ENCODER_DECODER, RECURRENT_ENCODER_DECODER),
        *(CONVOLUTIONAL_ENCODER_DECODER, KERAS_HUB),
    )
}
"""The families of the zoo, by the name used in configurations."""

RECIPES = {
    family.name: family.recipe
    for family in FAMILIES.values()
    if family.recipe is not None
}
"""The recipe of each family that has one, for its default sizes."""


def family_of(name: str) -> Family:
    """The family of a name.

    Args:
        name: One of `FAMILIES`, or `module:NAME` for a `Family` of the user's own.

    Raises:
        ValueError: In one line, if there is none, or it lacks what a family must have.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    if not is_reference(name):
        raise ValueError(
            f"`family` must be one of {sorted(FAMILIES)}, or module:NAME for one of "
            f"your own. Received: family={name!r}"
        )
    try:
        family = load(name)
    except ImportError as error:
        raise ValueError(str(error)) from error
    _require_contract(name, family)
    return family


def parts_of(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of a model learns by itself: all of it, or each member of a mixture.

    Args:
        model: `family` and what else `build_causal_lm` takes; so are the parts.

    Raises:
        ValueError: as `family_of`.
    """
    return family_of(model["family"]).settings.parts_of(model)


def families_of(model: Mapping[str, Any]) -> list[Family]:
    """The families of the parts of a model, see `parts_of`."""
    return [family_of(part["family"]) for part in parts_of(model)]


def family_of_model(model: Any) -> Family:
    """The family of a model, by its backbone."""
    return getattr(model.backbone, "family", KERAS_HUB)


def _require_contract(name: str, family: Any) -> None:
    if not isinstance(family, Family):
        raise ValueError(
            f"{name} must be a langzoo.models.families.Family, as its docstring says; "
            f"it is a {type(family).__name__}"
        )
    settings = family.settings
    if not (isinstance(settings, type) and issubclass(settings, FamilySettings)):
        raise ValueError(
            f"{name}: the settings of a family must be a subclass of FamilySettings, "
            f"not {settings!r}"
        )
    if not is_reference(family.backbone):
        raise ValueError(
            f"{name}: the backbone of a family must be named module:Class; it is "
            f"{family.backbone!r}"
        )
