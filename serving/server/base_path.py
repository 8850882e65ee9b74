"""Which base paths there may be, and which of them a client may ask for."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Collection

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*://")


class Reload(enum.Enum):
    """What `HandleReloadConfigRequest` may do; whoever reaches the port may send it."""

    OFF = "off"  # nothing
    CONFINED = "confined"  # no model goes, and new ones come from the server's roots
    ANY = "any"  # what TensorFlow Serving lets it do: all


def refusal(path: str) -> str | None:
    """Why versions cannot be followed at a path: it names a store; None if they can."""
    if not _SCHEME.match(path):
        return None
    return f"{path} is no folder of this machine: mount it, or copy its versions to one"


def lies_within(path: str, roots: Collection[str]) -> bool:
    """Whether a path is one of these folders or in one, whatever links it takes."""
    real = os.path.realpath(path)
    return any(
        os.path.commonpath([real, root]) == root
        for root in map(os.path.realpath, roots)
    )
