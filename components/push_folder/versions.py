"""The atomic push into a folder of this machine that a model server watches.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from .. import storage
from ..errors import InputError


def push(
    model_path: str, push_folder: str, texts: Mapping[str, str] | None = None
) -> Path:
    """Copies a model into a new numeric subfolder, atomically.

    The copy is made in a sibling folder whose name is not numeric, flushed to disk,
    and renamed. The version is the time in seconds, or the first free number after it.

    Args:
        model_path: Folder of a SavedModel.
        push_folder: Folder of versions; made where it is missing.
        texts: What goes into the version besides, by path.

    Returns:
        The new version's folder.

    Raises:
        InputError: Where the push folder cannot be written.
    """
    require_writable(push_folder)
    folder = Path(push_folder)
    _remove_abandoned(folder)
    prefix = f"{_staging_prefix()}{os.getpid()}-"
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    try:
        with storage.read_here(model_path) as here:
            shutil.copytree(here, staging, dirs_exist_ok=True)
        for path, text in (texts or {}).items():
            (staging / path).parent.mkdir(exist_ok=True)
            (staging / path).write_text(text, encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp's mode would shut the model server out.
        _flush(staging)
        return _rename_to_free_version(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def require_writable(push_folder: str) -> None:
    """Makes the push folder where it is missing, and sees that it can be written.

    Raises:
        InputError: Where it cannot.
    """
    try:
        os.makedirs(push_folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=push_folder):
            pass
    except OSError as error:
        raise InputError(
            f"the push folder {push_folder} cannot be written ({error.strerror}): "
            "set serving.push_folder to a folder that can"
        ) from error


def next_number(push_folder: str) -> int:
    """The time in seconds, or the first number above those of all versions."""
    there = storage.numbers(push_folder)
    return max([int(time.time()), *(number + 1 for number in there[-1:])])


def _rename_to_free_version(staging: Path, folder: Path) -> Path:
    version = next_number(str(folder))
    while True:
        target = folder / str(version)
        try:
            # Fails on a folder that is not empty, so of two pushes one goes on.
            os.rename(staging, target)
        except OSError:
            if not target.exists():
                raise
            version += 1
        else:
            _flush_folder(folder)
            return target


def _staging_prefix() -> str:
    return f".push-{socket.gethostname()}-"


def _remove_abandoned(folder: Path) -> None:
    """Removes the staging folders of this host's pushes whose process is gone."""
    prefix = _staging_prefix()
    for staging in folder.glob(f"{prefix}*"):
        process = staging.name.removeprefix(prefix).split("-")[0]
        if not Path("/proc", process).exists():
            shutil.rmtree(staging, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
