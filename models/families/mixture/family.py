"""Mixtures of models of other families.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field

from ...references import load
from ...settings import explain
from ..family import Counts, Family, FamilySettings

# What a mixture says for all of its members, or what none can have.
_NOT_A_MEMBERS = {"context_length", "initial_weights"}


def _members(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with its family and all of its hyperparameters."""
    members = []
    for number, member in enumerate(given):
        try:
            settings = _settings_of(member)
        except pydantic.ValidationError as error:
            raise ValueError(f"members.{number}: {explain(error)}") from None
        except ValueError as error:
            raise ValueError(f"members.{number}: {error}") from None
        members.append(settings.model_dump(exclude=_NOT_A_MEMBERS))
    return members


def _settings_of(member: dict[str, Any]) -> FamilySettings:
    if "family" not in member:
        raise ValueError("the key family is missing")
    record = family_of(member["family"])
    if not record.backbone or record.settings is MixtureSettings:
        raise ValueError(
            f"family {member['family']!r} cannot be a member: it is none that is "
            "trained by itself, token by token"
        )
    if said := sorted(_NOT_A_MEMBERS & set(member)):
        raise ValueError(f"{said[0]} is no key of a member")
    return record.settings.model_validate(member)


def family_of(name: str) -> Family:
    """The family of a member, see `families.family_of`."""
    # By its name, as the table of all families has this one, too.
    return load("langzoo.models.families:family_of")(name)


def num_features(num_members: int) -> int:
    """How many numbers the weights depend on, see `gate.Gate`."""
    return num_members * (num_members + 2)


class MixtureSettings(FamilySettings):
    """Several models, whose probabilities are combined with weights that depend on how
    sure each is. The weights are learned on part of the training text that the members
    have not seen."""

    members: Annotated[
        list[dict[str, Any]],
        Field(min_length=2, validate_default=True),
        pydantic.AfterValidator(_members),
    ] = [{"family": "lstm"}, {"family": "ngram"}]
    """The models: each a family with its hyperparameters. The context length is that of
    the mixture; each learns by the recipe of its family."""
    gate_dim: Annotated[int, Field(ge=1)] = 16
    """Width of the layer between what is known of the members and their weights."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the training text that the weights are learned on: evenly from all of
    it, whole documents and pieces of long ones. Members that count learn it afterwards;
    others never do."""

    @classmethod
    def parts_of(cls, model: Mapping[str, Any]) -> list[dict[str, Any]]:
        given = {name: field.default for name, field in cls.model_fields.items()}
        given |= model
        length = {"context_length": given["context_length"]}
        return [{**member, **length} for member in given["members"]]

    def counts(self, vocabulary_size: int) -> Counts | None:
        counts = [_settings_of(it).counts(vocabulary_size) for it in self.members]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        number, known_of = len(counts), num_features(len(counts))
        gate = Counts(
            products=self.gate_dim * (known_of + number),
            others=2 * known_of + self.gate_dim + number,
            # What each member says, times the logarithm of what each one does.
            attention=number**2 * vocabulary_size,
        )
        return Counts(*map(sum, zip(*known, gate, strict=True)))


MIXTURE = Family(
    name="mixture",
    settings=MixtureSettings,
    backbone="langzoo.models.families.mixture.backbone:MixtureBackbone",
    tasks={"causal_lm": "langzoo.models.families.mixture.causal_lm:MixtureCausalLM"},
    # What each of its members can.
    carries_state=True,
    cache_goes_back=True,
    learns_by_gradient=False,
    multiplies_output_weights=False,
    has_hidden_states=False,
)
