"""The atomic push into a folder of this machine that a model server watches.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import storage
from ..errors import InputError

_STAGING = ".push-"
_ABANDONED_SECONDS = 24 * 60 * 60


def push(
    model_path: str, push_folder: str, texts: Mapping[str, str] | None = None
) -> Path:
    """Copies a model into a new numeric subfolder, atomically.

    The copy is made in a sibling folder whose name is not numeric, flushed to disk,
    and renamed. The version is the time in seconds, or the first free number after it.
    Whoever runs the model server can read it, whatever the umask.

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
    prefix = f"{_STAGING}{_processes()}-{os.getpid()}-"
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    try:
        with storage.read_here(model_path) as here:
            shutil.copytree(here, staging, dirs_exist_ok=True)
        for path, text in (texts or {}).items():
            (staging / path).parent.mkdir(exist_ok=True)
            (staging / path).write_text(text, encoding="utf-8")
        _open_and_flush(staging)
        return _rename_to_free_version(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def require_writable(push_folder: str) -> None:
    """Makes the push folder where it is missing, and sees that it can be written.

    A folder that is made everybody can read, whatever the umask.

    Raises:
        InputError: Where it cannot.
    """
    folder = Path(push_folder)
    try:
        if not folder.exists():
            storage.make_passable(folder)
            _allow(folder, 0o055)
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


def _processes() -> str:
    """Names what a process's number counts in: a start of a machine, a container.

    Where the system does not tell, no two calls name the same.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return uuid.uuid4().hex


def _remove_abandoned(folder: Path) -> None:
    """Removes the staging folders of pushes that have ended.

    Of a push elsewhere, a container on this machine included, only its age tells.
    """
    ours = f"{_STAGING}{_processes()}-"
    for staging in folder.glob(f"{_STAGING}*"):
        process = staging.name.removeprefix(ours).split("-")[0]
        ended = staging.name.startswith(ours) and not Path("/proc", process).exists()
        if ended or _age(staging) > _ABANDONED_SECONDS:
            shutil.rmtree(staging, ignore_errors=True)


def _age(staging: Path) -> float:
    """Seconds since anything was written into a folder; 0 where it is gone."""
    try:
        return time.time() - max(path.lstat().st_ctime for path in _below(staging))
    except FileNotFoundError:
        return 0.0


def _below(folder: Path) -> Iterator[Path]:
    yield from folder.rglob("*")
    yield folder


def _allow(path: Path, mode: int) -> None:
    had = path.stat().st_mode
    if mode & ~had:
        path.chmod(had | mode)


def _open_and_flush(folder: Path) -> None:
    """Lets everybody read what is in a folder, and writes it to the disk."""
    for path in _below(folder):
        if path.is_file():
            _allow(path, 0o444)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            _allow(path, 0o555)
            _flush_folder(path)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
