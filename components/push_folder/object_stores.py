"""A push to an object store, where no folder can be renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

from tfx.dsl.io import fileio

from ...serving.export.contract import SAVED_MODEL_FILE
from .. import storage
from .records import Marker
from .versions import next_number


def require_writable(push_folder: str) -> None:
    """Sees that files can be written into a push folder.

    Raises:
        InputError: Where its scheme is unknown, or they cannot.
    """
    probe = f"{push_folder}/.writable-{uuid.uuid4().hex}"
    with storage.reached(push_folder):
        storage.write_text(probe, "It can be removed.")
        fileio.remove(probe)


def push(
    model_path: str, push_folder: str, texts: Mapping[str, str] | None = None
) -> str:
    """Copies a model into a new numeric subfolder, its graph last.

    It is not atomic: while it lasts a server sees the version's number, cannot load it,
    and tries again. A `Marker` is written when all is there.

    Args:
        model_path: Folder of a SavedModel.
        push_folder: Folder of versions, on a filesystem that TensorFlow knows.
        texts: What goes into the version besides, by path.

    Returns:
        The new version's folder.
    """
    target = f"{push_folder.rstrip('/')}/{next_number(push_folder)}"
    # Of what is no file there, the version's own folder comes first.
    fileio.makedirs(target)
    texts = texts or {}
    # A version that is pushed again has a marker of its own.
    copied = set(_files(model_path)) - {Marker.FILE, *texts}
    # The graph makes the folder a model to a server.
    files = sorted(copied, key=lambda path: (path == SAVED_MODEL_FILE, path))
    for path, text in texts.items():
        storage.write_text(f"{target}/{path}", text)
    for path in files:
        fileio.makedirs(os.path.dirname(f"{target}/{path}"))
        fileio.copy(os.path.join(model_path, path), f"{target}/{path}")
    Marker(files=len(files)).write(target)
    return target


def _files(folder: str) -> list[str]:
    """Paths of all files below a folder, from there."""
    return [
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in fileio.walk(folder)
        for name in names
    ]
