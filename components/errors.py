"""The error that a component raises for what a user can cause."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used: a missing corpus, a folder that cannot be written.

    Its message is one line that names the file or setting and what would be right;
    the command line prints it without a traceback.
    """


def line_of(error: Exception) -> str:
    """What a failure of the file system says, in one line."""
    return str(getattr(error, "message", error)).strip().split("\n")[0]
