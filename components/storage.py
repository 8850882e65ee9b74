"""Files by path, on this machine or in an object store.

Importing this module imports neither TensorFlow nor TFX; what is named by a scheme,
such as `gs://`, needs both.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from .errors import InputError


def is_remote(path: str) -> bool:
    """Whether a path is named by a scheme, such as `gs://`."""
    return "://" in path


def exists(path: str) -> bool:
    """Whether there is such a file or folder."""
    if not is_remote(path):
        return os.path.exists(path)
    with reached(path) as fileio:
        found: bool = fileio.exists(path)
        return found


def read_text(path: str) -> str:
    """The text of a file; "" where there is none."""
    if not exists(path):
        return ""
    if not is_remote(path):
        return Path(path).read_text(encoding="utf-8")
    with reached(path) as fileio, fileio.open(path) as file:
        text: str = file.read()
        return text


def write_text(path: str, text: str) -> None:
    """Writes a file; its folder is made where it is missing.

    On this machine it is there whole or not at all.
    """
    folder = os.path.dirname(path)
    if not is_remote(path):
        os.makedirs(folder or ".", exist_ok=True)
        new = Path(_beside(path))
        try:
            new.write_text(text, encoding="utf-8")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        return
    with reached(path) as fileio:
        fileio.makedirs(folder)
        with fileio.open(path, "w") as file:
            file.write(text)


def make_passable(folder: Path) -> None:
    """Makes a folder of this machine, and those above it, where they are missing.

    Everybody can reach what is in them, whatever the umask, but not list it.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        path.chmod(path.stat().st_mode | 0o011)


def write_whole(path: str, text: str) -> None:
    """Writes a file that is there whole or not at all, in an object store too."""
    if not is_remote(path):
        write_text(path, text)
        return
    new = _beside(path)
    write_text(new, text)
    with reached(path) as fileio:
        fileio.rename(new, path, overwrite=True)


def _beside(path: str) -> str:
    """A name for what shall take a file's place, which no other process has."""
    return f"{path}.{uuid.uuid4().hex}.new"


def names(folder: str) -> list[str]:
    """Names of what is in a folder; none where there is no such folder."""
    if not is_remote(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    with reached(folder) as fileio:
        found = fileio.listdir(folder) if fileio.exists(folder) else []
        return sorted(name.rstrip("/") for name in found)


def numbers(folder: str) -> list[int]:
    """The names in a folder that are numbers, the highest last."""
    return sorted(int(name) for name in names(folder) if name.isdecimal())


@contextlib.contextmanager
def read_here(folder: str) -> Iterator[str]:
    """Gives a folder of this machine with what is in a folder: itself, or a copy.

    It is for readers that know no addresses. The copy lasts as long as the context.
    """
    if not is_remote(folder):
        yield folder
        return
    from tfx.utils import io_utils

    with tempfile.TemporaryDirectory() as scratch:
        with reached(folder):
            io_utils.copy_dir(folder, scratch)
        yield scratch


@contextlib.contextmanager
def written_here(folder: str) -> Iterator[str]:
    """Gives a folder of this machine to write to: itself, or one that is copied there.

    It is for writers that know no addresses. Where they fail, nothing is copied.
    """
    if not is_remote(folder):
        os.makedirs(folder, exist_ok=True)
        yield folder
        return
    from tfx.utils import io_utils

    with tempfile.TemporaryDirectory() as scratch:
        yield scratch
        with reached(folder):
            io_utils.copy_dir(scratch, folder)


@contextlib.contextmanager
def reached(path: str) -> Iterator[ModuleType]:
    """Gives TFX's fileio for what is named by a scheme; says what is wrong in a line.

    Raises:
        InputError: Where no filesystem has such a scheme, or it fails.
    """
    import tensorflow as tf
    from tfx.dsl.io import fileio, filesystem_registry
    from tfx.dsl.io.plugins.tensorflow_gfile import TensorflowFilesystem

    from . import s3  # Makes fileio know its scheme.

    scheme = path.partition("://")[0]
    registry = filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY
    # TFX hands to TensorFlow whatever it does not know itself.
    if registry.get_filesystem_for_path(path) is TensorflowFilesystem:
        known = {*filter(None, tf.io.gfile.get_registered_schemes()), s3.SCHEME[:-3]}
        if scheme not in known:
            raise InputError(
                f"{path}: no filesystem is known by the scheme {scheme}://, but by "
                f"{', '.join(f'{name}://' for name in sorted(known))}"
            )
    try:
        yield fileio
    except (OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be used: {reason}") from error
