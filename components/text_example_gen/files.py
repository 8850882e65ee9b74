"""Finding the files of a corpus."""

from __future__ import annotations

import hashlib
import os

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from ..errors import InputError

_WILDCARDS = "*?["


def find(corpus: str) -> list[FileMetadata]:
    """Lists the files of a corpus, sorted by path.

    Args:
        corpus: A file, a folder (read recursively) or a pattern.

    Returns:
        Beam's metadata of each file: path, size in bytes, time of last change.

    Raises:
        InputError: Where nothing matches.
    """
    patterns = [corpus]
    if not any(wildcard in corpus for wildcard in _WILDCARDS):
        # A folder has no files of its own name; its content has.
        patterns.append(FileSystems.join(corpus, "**"))
    matches = FileSystems.match(patterns)
    files = {
        file.path: file
        for match in matches
        for file in match.metadata_list
        if not _is_folder(file.path)
    }
    if not files:
        raise InputError(
            f"no file matches the corpus {corpus!r}: name a text file, a folder of "
            "text files or a pattern such as 'texts/*.txt'"
        )
    return [files[path] for path in sorted(files)]


def fingerprint(corpus: str) -> str:
    """Hashes path, size and time of change of every file of a corpus.

    Raises:
        InputError: Where nothing matches.
    """
    digest = hashlib.sha256()
    for file in find(corpus):
        line = f"{file.path}\0{file.size_in_bytes}\0{file.last_updated_in_seconds}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def _is_folder(path: str) -> bool:
    # Beam lists local folders beside files when a pattern matches them.
    return os.path.isdir(path)
