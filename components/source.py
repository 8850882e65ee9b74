"""Fingerprints for the cache keys of components: of source code, and of presets."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


@functools.cache
def source_hash(*parts: str) -> str:
    """Hashes the Python source of parts of this package.

    TFX's cache ignores source code, so each component carries the hash of the code it
    runs as a parameter; a change there makes its cached results unreachable.

    Args:
        *parts: Folders or files relative to the package, such as `"models"` or
            `"components/trainer"`.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = _PACKAGE / part
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            digest.update(str(file.relative_to(_PACKAGE)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def preset_hash(preset: str) -> str:
    """Hashes name, size and time of change of the files of a local model preset.

    Returns:
        16 hexadecimal digits; "" where `preset` is no folder or file of this machine.
    """
    folder = Path(preset).expanduser()
    if not preset or not folder.exists():
        return ""
    digest = hashlib.sha256()
    files = [folder] if folder.is_file() else folder.rglob("*")
    for file in sorted(file for file in files if file.is_file()):
        stat = file.stat()
        name = file.relative_to(folder)
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
