"""Records: what components leave for others, as JSON; one type writes and reads each.

NaN and infinity are the strings "NaN", "Infinity" and "-Infinity" in a file, as JSON
has no numbers for them. Importing this module imports neither TensorFlow nor TFX, but
for a folder that is named by a scheme, such as `gs://`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pydantic

from . import storage
from .errors import InputError


class Record(pydantic.BaseModel):
    """A part of a JSON file; what a later version has added is left out."""

    model_config = pydantic.ConfigDict(
        extra="ignore",
        frozen=True,
        ser_json_inf_nan="strings",
        protected_namespaces=(),
        # The text under a field is its description.
        use_attribute_docstrings=True,
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `dump` made, now or in an older version."""
        return cls.model_validate_json(text)

    def dump(self) -> str:
        """The record as JSON, in ASCII."""
        return self.model_dump_json(indent=1, ensure_ascii=True)


class FileRecord(Record):
    """A whole JSON file, which lies in an artifact or a folder by its name."""

    FILE: ClassVar[str]

    @classmethod
    def find(cls, folder: str | None) -> Self | None:
        """Reads the file in a folder; `None` where there is no folder, or no file.

        Raises:
            InputError: Where it is not what was written.
        """
        file = f"{folder.rstrip('/')}/{cls.FILE}" if folder else ""
        text = storage.read_text(file) if file else ""
        try:
            return cls.parse(text) if text else None
        except ValueError as error:
            raise InputError(f"{file} cannot be read: it is broken") from error

    @classmethod
    def read(cls, folder: str) -> Self:
        """Reads the file in a folder.

        Raises:
            FileNotFoundError: Where there is none.
        """
        found = cls.find(folder)
        if found is None:
            raise FileNotFoundError(f"{folder.rstrip('/')}/{cls.FILE}")
        return found

    def write(self, folder: str) -> None:
        """Writes the file into a folder, which is made where it is missing."""
        storage.write_text(f"{folder.rstrip('/')}/{self.FILE}", self.dump())


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], key: str = ""
) -> list[str]:
    """Where nested mappings differ: `corpus.documents paragraph instead of file`."""
    found = []
    for name in sorted({*ours, *theirs}):
        place = f"{key}.{name}" if key else name
        one, other = ours.get(name), theirs.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, place)
        elif one != other:
            said = ["nothing" if value is None else value for value in (one, other)]
            found.append("{} {} instead of {}".format(place, *said))
    return found
