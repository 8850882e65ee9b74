"""Models by a name or a folder: what a preset, or weights to go on from, stand for.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..hugging_face import config_of, weight_files
from ..references import is_reference, load
from . import FAMILIES, family_of
from .family import Family, Imported, Preset

# From n-grams, whose size is not known, to Transformers, the largest.
_LISTED = sorted(
    FAMILIES.values(), key=lambda it: (it.learns_by_gradient, it.shows_attention)
)
PRESETS: dict[str, Preset] = {
    name: preset for family in _LISTED for name, preset in family.presets.items()
}
"""The presets by name; `build_causal_lm` and the configuration know them."""

# What a saved backbone's configuration holds besides hyperparameters.
_NO_HYPERPARAMETERS = {
    *("name", "trainable", "dtype"),
    *("vocabulary_size", "source_vocabulary_size"),
}


def resolved(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration with `preset` replaced by what it stands for.

    Args:
        model: `family`, or `preset`, with `context_length` and hyperparameters. What
            is given beside a preset goes before what the preset says. Or
            `initial_weights`, a folder: see `saved_model`.

    Returns:
        `family`, `context_length` (if given, or from a preset) and hyperparameters;
        `initial_weights`, where it is given, as the folder of the preset itself.

    Raises:
        ValueError: if there is no such preset, or what stands beside it contradicts.
    """
    given = dict(model)
    if isinstance(given.get("initial_weights"), str):
        saved = saved_model(given["initial_weights"], given.get("family"))
        if given.get("family", saved["family"]) != saved["family"]:
            raise ValueError(
                f"initial_weights {given['initial_weights']!r} are those of a model of "
                f"family {saved['family']!r}, not {given['family']!r}"
            )
        length, most = given.get("context_length"), saved["context_length"]
        if saved.get("positions") == "learned" and length and length > most:
            raise ValueError(
                f"context_length {length} must be at most the {most} positions that "
                f"initial_weights {given['initial_weights']!r} have learned"
            )
        del given["initial_weights"]
        return {**saved, **given}
    if "preset" not in given or _has_presets_of_its_own(given.get("family")):
        return given
    name = str(given.pop("preset"))
    if "family" in given:
        raise ValueError(f"give either family {given['family']!r} or preset {name!r}")
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        known = f"did you mean {close[0]}?" if close else f"known: {', '.join(PRESETS)}"
        raise ValueError(f"there is no preset {name!r}: {known}")
    preset = PRESETS[name]
    return {
        "family": preset.family,
        "context_length": preset.context_length,
        **preset.hyperparameters,
        **given,
    }


def _has_presets_of_its_own(family: Any) -> bool:
    """Whether `preset` is a setting of a family, and none of the zoo's presets."""
    name = str(family)
    if name not in FAMILIES and not is_reference(name):
        return False
    return "preset" in family_of(name).settings.model_fields


def saved_model(folder: str, family: str | None = None) -> dict[str, Any]:
    """The configuration of a model of the zoo that was saved as a preset.

    Args:
        folder: of the preset; or of a pipeline's runs, which stands for the model that
            was trained last; or one of Hugging Face's that a family takes.
        family: its family, which needs to be given if it is one of the user's own.

    Returns:
        `family`, `context_length`, hyperparameters, and `initial_weights`: the folder
        of the preset.

    Raises:
        ValueError: if there is no model that training could go on with.
    """
    preset = _preset_folder(Path(folder).expanduser())
    try:
        if config := config_of(preset):
            return _of_hugging_face(preset, config)
    except ValueError as error:
        raise ValueError(f"initial_weights {folder!r}: {error}") from error
    try:
        saved = json.loads((preset / "config.json").read_text(encoding="utf-8"))
        class_name, config = saved["class_name"], dict(saved["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"initial_weights {folder!r} is neither the folder of a preset nor of a "
            f"pipeline that has trained: {error}"
        ) from error
    families = dict(FAMILIES)
    if family is not None and is_reference(str(family)):
        families[family] = family_of(family)
    found = [
        name
        for name, record in families.items()
        if record.backbone.endswith(f":{class_name}") and record.takes_initial_weights
    ]
    if not found:
        raise ValueError(
            f"initial_weights {folder!r} must be of a family of the zoo that learns by "
            f"gradient, not {class_name} (KerasHub's: family keras_hub with preset and "
            "pretrained)"
        )
    context_length = config.pop("max_sequence_length")
    hyperparameters = {
        name: value for name, value in config.items() if name not in _NO_HYPERPARAMETERS
    }
    return {
        "family": found[-1],
        "context_length": context_length,
        **hyperparameters,
        "initial_weights": str(preset),
    }


def imported(config: Mapping[str, Any]) -> tuple[Family, Imported]:
    """The family that takes a folder of Hugging Face's, and how.

    Args:
        config: the folder's `config.json`.

    Raises:
        ValueError: if no family does.
    """
    kinds = {kind: it for it in FAMILIES.values() for kind in it.hugging_face}
    kind = config["model_type"]
    if kind not in kinds:
        raise ValueError(
            f"config.json: model_type must be one of {', '.join(kinds)}, not {kind!r}"
        )
    return kinds[kind], kinds[kind].hugging_face[kind]


def _of_hugging_face(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    family, how = imported(config)
    try:
        found = load(how.hyperparameters)(config)
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from error
    weight_files(folder)
    return {"family": family.name, **found, "initial_weights": str(folder)}


def _preset_folder(folder: Path) -> Path:
    """The folder itself, or the newest preset in that of a pipeline."""
    presets = folder.glob("artifacts/Trainer/model_run/*/preset")
    numbered = [path for path in presets if path.parent.name.isdigit()]
    return max(numbered, key=lambda path: int(path.parent.name), default=folder)
