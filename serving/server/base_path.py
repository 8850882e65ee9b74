"""Which base paths there may be."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*://")


def refusal(path: str) -> str | None:
    """Why versions cannot be followed at a path: it names a store; None if they can."""
    if not _SCHEME.match(path):
        return None
    return f"{path} is no folder of this machine: mount it, or copy its versions to one"
