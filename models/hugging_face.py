"""Folders of Hugging Face's: what a model is, and the files that its weights are in.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"


def config_of(folder: Path) -> dict[str, Any] | None:
    """What `config.json` says, if the folder is Hugging Face's: that has `model_type`.

    Raises:
        ValueError: if it is no JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    known = isinstance(content, dict) and "model_type" in content
    return content if known else None


def weight_files(folder: Path) -> list[Path]:
    """The files of `safetensors`, one or all shards.

    Raises:
        ValueError: in one line, if one is missing, or weights are there as a pickle
            only, which may run anything and is never read.
    """
    index, whole = folder / _SHARDS, folder / _WEIGHTS
    names = [_WEIGHTS]
    if not whole.is_file() and index.is_file():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(shards.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{_SHARDS} has no weight_map: {error!r}") from error
    for name in names:
        # Of this folder, whatever the index says.
        if Path(name).name != name or not (folder / name).is_file():
            pickles = sorted(file.name for file in folder.glob("*.bin"))
            instead = f"; {pickles[0]}, a pickle, is never read" if pickles else ""
            raise ValueError(f"there is no file {name} with the weights{instead}")
    return [folder / name for name in names]
