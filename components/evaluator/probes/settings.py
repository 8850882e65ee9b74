"""What the probes can be told; the section `gate.probes` of a configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from ....models.settings import PathText, Section, explain
from ...errors import InputError
from . import templates


class ProbeSettings(Section):
    """How much the probes do, so that they cost seconds."""

    documents: Annotated[int, Field(ge=1)] = 32
    """Documents of the evaluation split that are perturbed."""
    characters: Annotated[int, Field(ge=1)] = 1000
    """Of each of them, its first so many characters."""
    noise_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the characters at which a typing error is made."""
    whitespace_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the runs of white space that become other white space."""
    templates: PathText | None = None
    """A YAML file of sentences and group words, in place of the shipped English one."""
    prompts: Annotated[int, Field(ge=1)] = 64
    """Prompts taken from each split to see what is memorized."""
    prompt_words: Annotated[int, Field(ge=1)] = 20
    """Words of a prompt."""
    continuation_characters: Annotated[int, Field(ge=1)] = 24
    """Characters after the prompt that must come back verbatim."""
    seed: int = 0
    """Of the choice of documents and places, and of the noise."""

    @property
    def templates_hash(self) -> str:
        """What says that the template file has changed, 16 hexadecimal digits.

        Settings only name it, and the shipped one is no source code.
        """
        path = Path(self.templates or templates.SHIPPED)
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def check_settings(settings: Mapping[str, Any] | ProbeSettings) -> ProbeSettings:
    """The settings with their defaults.

    Raises:
        InputError: A key is unknown, a value out of range, or the template file cannot
            be read or is malformed.
    """
    try:
        checked = ProbeSettings.model_validate(settings)
    except pydantic.ValidationError as error:
        raise InputError(f"gate.probes: {explain(error)}") from error
    templates.read_pairs(checked.templates)
    return checked
