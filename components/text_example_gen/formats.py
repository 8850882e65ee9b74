"""What a file of a corpus is, by its name and its first bytes."""

from __future__ import annotations

import codecs
import fnmatch
from typing import NamedTuple

_COMPRESSIONS = {
    ".gz": "gzip",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".lzma": "xz",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".deflate": "deflate",
}
_SHORT = {
    ".tgz": ".tar.gz",
    ".tbz2": ".tar.bz2",
    ".txz": ".tar.xz",
    ".tzst": ".tar.zst",
}
_FORMATS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".conll": "conll",
    ".tar": "tar",
    ".zip": "zip",
}
ARCHIVES = ("tar", "zip")
TEXT = "text"

# Names that no one means who names a folder, by what they are.
_LEFT_OUT = {
    "hidden": (".*",),
    "backups and unfinished files": (
        *("*~", "#*#", "*.bak", "*.orig", "*.swp", "*.swo"),
        *("*.tmp", "*.temp", "*.part", "*.partial", "*.crdownload"),
    ),
    "markers of Spark": (
        *("_SUCCESS", "_committed_*", "_started_*", "_temporary", "_spark_metadata"),
        *("_metadata", "_common_metadata", "_delta_log"),
    ),
    "checkpoints": ("checkpoint", "*.ckpt", "*.ckpt.*", "*.ckpt-*"),
    "notebooks": ("*.ipynb",),
    "the system's files": ("__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini"),
}

_MARKS = {  # Of UTF-32 first, which begins as UTF-16 does.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WIDE = ("utf-16", "utf-32")


class Kind(NamedTuple):
    """What a name tells: `text` where it tells no format, "" where no compression."""

    format: str
    compression: str


def kind_of(name: str) -> Kind:
    """What the endings of a file's name tell."""
    name = name.lower()
    for short, long in _SHORT.items():
        if name.endswith(short):
            name = name.removesuffix(short) + long
    compression = ""
    for ending, told in _COMPRESSIONS.items():
        if name.endswith(ending):
            name, compression = name.removesuffix(ending), told
            break
    told_formats = (f for ending, f in _FORMATS.items() if name.endswith(ending))
    return Kind(next(told_formats, TEXT), compression)


def left_out(path: str, pattern: str = "") -> tuple[str, str] | None:
    """Whether a path is one that no one means, and its pattern does not spell.

    Returns:
        The path down to the folder or file for which it is left out, and what that is;
        `None` where it is not left out.
    """
    spelled = pattern.split("/")
    parts = path.split("/")
    for depth, part in enumerate(parts, 1):
        for what, names in _LEFT_OUT.items():
            for name in names:
                if part not in (".", "..") and fnmatch.fnmatchcase(part, name):
                    meant = (p for p in spelled if fnmatch.fnmatchcase(p, name))
                    if not any(p == part or fnmatch.fnmatch(part, p) for p in meant):
                        return "/".join(parts[:depth]), what
    return None


def encoding_of(head: bytes, told: str) -> str:
    """How text is encoded that begins so: a mark at its beginning is believed first."""
    found = (name for mark, name in _MARKS.items() if head.startswith(mark))
    return next(found, told)


def why_no_text(head: bytes, encoding: str) -> str:
    """Why what begins so cannot be text of an encoding; "" where it can."""
    if head.startswith(b"%PDF-"):
        return "PDF, not text"
    if b"\0" not in head or codecs.lookup(encoding).name.startswith(_WIDE):
        return ""
    if name := unmarked_utf_16(head):
        return f"{name} without a mark, where corpus.encoding is {encoding}"
    return f"binary (byte {head.index(0)} is 0)"


def unmarked_utf_16(head: bytes) -> str:
    """Which UTF-16 text seems to be that has no mark and begins so; "" for none."""
    for name, high in (("utf-16-le", 1), ("utf-16-be", 0)):
        # The high bytes of most scripts are small, and of spaces 0.
        if b"\0" in head[high::2] and b"\0" not in head[1 - high :: 2]:
            text = codecs.getincrementaldecoder(name)("replace").decode(head)
            if all(letter.isprintable() or letter.isspace() for letter in text):
                return name
    return ""
