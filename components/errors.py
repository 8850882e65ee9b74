"""The error that a component raises for what a user can cause, and how it is told."""

from __future__ import annotations

from ..serving.wording import in_one_line


class InputError(ValueError):
    """Input that cannot be used: a missing corpus, a folder that cannot be written.

    Its message is one line that names the file or setting and what would be right;
    the command line prints it without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


def printable(text: str) -> str:
    """What came as bytes that are not UTF-8, such as a file's name, shown as such."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def line_of(error: Exception) -> str:
    """What a failure of the file system says, in one line."""
    return str(getattr(error, "message", error)).strip().split("\n")[0]
