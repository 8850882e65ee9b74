"""Records: what components leave for others, as JSON; one type writes and reads each.

NaN and infinity are the strings "NaN", "Infinity" and "-Infinity" in a file, as JSON
has no numbers for them. Importing this module imports neither TensorFlow nor TFX, but
for a folder that is named by a scheme, such as `gs://`.
"""

from __future__ import annotations

from typing import ClassVar, Self

import pydantic

from . import storage


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
        """Reads the file in a folder; `None` where there is no folder, or no file."""
        text = storage.read_text(f"{folder.rstrip('/')}/{cls.FILE}") if folder else ""
        return cls.parse(text) if text else None

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
