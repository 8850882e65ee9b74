"""Which model a pipeline blessed last, in a file.

Where TFX's metadata are at hand, a resolver asks them. The open-source Kubeflow
Pipelines run no resolver, and there the Evaluator keeps this record itself. Importing
this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import json

from ... import storage

FILE = "blessed.json"
_KEY = "model_uri"


def entries(record: str) -> list[str]:
    """Folders of the models that a record holds, the newest last.

    It is the model that was blessed last, and that before it, which stands for it
    where the last one is judged again.
    """
    text = storage.read_text(record)
    return [entry[_KEY] for entry in json.loads(text)] if text else []


def read(record: str, *others: str) -> str | None:
    """Reads the folder of the model that was blessed last.

    Args:
        record: The file.
        others: Folders of models that are not meant: that which is judged, which shall
            not have to be better than itself, and those that were taken back.

    Returns:
        `None` where there is no such model, or no more.
    """
    blessed = [uri for uri in entries(record) if uri not in others]
    meant = [uri for uri in blessed if storage.exists(uri)]
    return meant[-1] if meant else None


def write(record: str, model: str, *taken_back: str) -> None:
    """Writes that a model was blessed.

    Args:
        record: The file, which keeps this model and that before it.
        model: The model's folder.
        taken_back: Folders of models that a rollback has taken back.
    """
    before = read(record, model, *taken_back)
    kept = [{_KEY: uri} for uri in (before, model) if uri is not None]
    storage.write_text(f"{record}.new", json.dumps(kept))
    storage.replace(f"{record}.new", record)
