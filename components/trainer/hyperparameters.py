"""What a search has found, in the place of what was configured."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .settings import idle_settings

# Sections of a configuration, by what Trainer and Tuner call them.
_SECTIONS = {"model": "model", "trainer": "training"}


def with_hyperparameters(
    config: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Puts hyperparameters into the configuration of a Trainer or a Tuner.

    Args:
        config: Its `custom_config`, which stays as it is.
        values: By keys such as `model.hidden_dim` or
            `trainer.augmentation.token_dropout`.
    """
    changed = copy.deepcopy(dict(config))
    for key, value in values.items():
        section, *path, name = key.split(".")
        target = changed[_SECTIONS[section]]
        for part in path:
            target = target.setdefault(part, {})
        target[name] = value
    # A combination can have settings of an optimizer that another one chooses.
    for name, _, _ in idle_settings(changed["training"]) if values else ():
        del changed["training"][name]
    return changed
