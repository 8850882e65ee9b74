"""The section `model`, whose keys are those of its family.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

from ...models.families import FAMILIES, family_of
from ...models.families.family import Family, FamilySettings
from ...models.references import is_reference


def _of_its_family(content: Any) -> FamilySettings:
    """The section `model`: what is said of a model, as its family has it."""
    if isinstance(content, FamilySettings):
        return content
    if not isinstance(content, dict):
        raise ValueError(f"model: {content!r} cannot be: it has keys, such as family")
    if "family" not in content:
        raise ValueError("the key model.family is missing")
    return family_named(content["family"]).settings.model_validate(content)


def family_named(name: Any) -> Family:
    """The family of a name that stands in a configuration.

    Raises:
        ValueError: Naming the key, if there is none.
    """
    if str(name) not in FAMILIES and not is_reference(str(name)):
        known = ", ".join(map(repr, FAMILIES))
        raise ValueError(
            f"model.family: {name!r} is not known: it is {known}, or module:NAME for "
            "one of your own"
        )
    try:
        return family_of(name)
    except ValueError as error:
        raise ValueError(f"model.family: {error}") from error


class _InSchema:
    """Tells the families of the zoo in the JSON schema of the section `model`."""

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        sections = []
        for name, family in FAMILIES.items():
            section = handler(family.settings.__pydantic_core_schema__)
            section["properties"]["family"] = {"const": name}
            sections.append(section)
        return {"oneOf": sections, "discriminator": {"propertyName": "family"}}


ModelSettings = Annotated[
    pydantic.SerializeAsAny[FamilySettings],
    pydantic.PlainValidator(_of_its_family),
    _InSchema(),
]
