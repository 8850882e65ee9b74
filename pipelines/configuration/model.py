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


ModelSettings = Annotated[
    pydantic.SerializeAsAny[FamilySettings],
    pydantic.PlainValidator(_of_its_family),
    # Of every family; the reference of the configuration tells what each has besides.
    pydantic.WithJsonSchema(FamilySettings.model_json_schema()),
]
