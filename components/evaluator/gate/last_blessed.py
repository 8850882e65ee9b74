"""Which model a pipeline blessed last, in a file.

Where TFX's metadata are at hand, a resolver asks them. The open-source Kubeflow
Pipelines run no resolver, and there the Evaluator keeps this record itself.
"""

from __future__ import annotations

import json
import os

from tfx.dsl.io import fileio

_KEY = "model_uri"


def read(record: str, *others: str) -> str | None:
    """Reads the folder of the model that was blessed last.

    Args:
        record: The file.
        others: Folders of models that are not meant: that which is judged, which shall
            not have to be better than itself, and those that were taken back.

    Returns:
        `None` where there is no such model, or no more.
    """
    if not fileio.exists(record):
        return None
    with fileio.open(record) as file:
        # The newest last; that before it stands where the candidate was blessed before.
        blessed = [model[_KEY] for model in json.load(file)]
    meant = [uri for uri in blessed if uri not in others and fileio.exists(uri)]
    return meant[-1] if meant else None


def write(record: str, model: str, *taken_back: str) -> None:
    """Writes that a model was blessed.

    Args:
        record: The file, which keeps this model and that before it.
        model: The model's folder.
        taken_back: Folders of models that a rollback has taken back.
    """
    before = read(record, model, *taken_back)
    entries = [{_KEY: uri} for uri in (before, model) if uri is not None]
    fileio.makedirs(os.path.dirname(record))
    with fileio.open(f"{record}.new", "w") as file:
        json.dump(entries, file)
    fileio.rename(f"{record}.new", record, overwrite=True)
