"""How components tell a person what they do.

Components log to the logger `langzoo`. The command line shows those records on the
terminal while the libraries' own logs go to a file; elsewhere they are ordinary logs.
"""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("langzoo")


def report(message: str) -> None:
    """Shows one line that stays."""
    LOGGER.info(message)


def show(message: str) -> None:
    """Shows a state that the next one replaces, such as a training step."""
    LOGGER.info(message, extra={"transient": True})
