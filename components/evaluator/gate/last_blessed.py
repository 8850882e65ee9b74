"""Which model a pipeline blessed last, in a file.

Where TFX's metadata are at hand, a resolver asks them. The open-source Kubeflow
Pipelines run no resolver, and there the Evaluator keeps this record itself. Importing
this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import contextlib

import pydantic

from ... import storage
from ...errors import InputError
from ...records import Record

FILE = "blessed.json"


class Blessed(Record):
    """A model that was blessed."""

    model_uri: str
    """Its folder."""
    accepted: bool = False
    """Whether it was accepted in the place of that before it, though no better."""


_ENTRIES = pydantic.TypeAdapter(list[Blessed])


def entries(record: str) -> list[Blessed]:
    """The models that a record holds, the newest last; none where there is no file.

    It is the model that was blessed last, and that before it, which stands for it
    where the last one is judged again.

    Raises:
        InputError: Where there is a file that cannot be read.
    """
    if not storage.exists(record):
        return []
    try:
        return _ENTRIES.validate_json(storage.read_text(record))
    except ValueError as error:
        raise InputError(
            f"{record}, which tells the model that was blessed last, cannot be read"
        ) from error


def read(record: str, *others: str) -> Blessed | None:
    """Reads which model was blessed last, whether it is still there or not.

    Args:
        record: The file.
        others: Folders of models that are not meant: that which is judged, which shall
            not have to be better than itself, and those that were taken back.

    Returns:
        `None` where no other was ever blessed.

    Raises:
        InputError: As `entries` does.
    """
    meant = [one for one in entries(record) if one.model_uri not in others]
    return meant[-1] if meant else None


def is_accepted(record: str, model: str) -> bool:
    """Whether a model was accepted, as far as the record tells."""
    with contextlib.suppress(InputError):
        return any(o.accepted and o.model_uri == model for o in entries(record))
    return False


def write(record: str, model: Blessed, *taken_back: str) -> None:
    """Writes that a model was blessed.

    Args:
        record: The file, which keeps this model and that before it.
        model: The model.
        taken_back: Folders of models that a rollback has taken back.
    """
    try:
        before = read(record, model.model_uri, *taken_back)
    except InputError:
        before = None
    kept = [one for one in (before, model) if one]
    storage.write_whole(record, _ENTRIES.dump_json(kept).decode())
