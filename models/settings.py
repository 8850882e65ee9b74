"""Settings: what a person may say, checked where it is said.

A setting's name, type, range, default and meaning stand in one class, beside the code
that uses it. Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Annotated, Any

import pydantic
from pydantic_core import PydanticCustomError

_UNKNOWN = "unknown_key"
# `user:password@` of an address. In the name of a dataset, of `hf://` or `tfds://`, it
# is a configuration or version, and a split.
_PASSWORD = re.compile(r"(?<=://)(?<!\bhf://)(?<!\btfds://)[^\s/:@'\"]*:[^\s/@'\"]*@")


def redacted(text: str) -> str:
    """Leaves out who logs in and with which password, where an address has both."""
    return _PASSWORD.sub("***@", text)


def without_password(text: str) -> str:
    """Sees that an address has no password, which would be written down with it.

    Raises:
        ValueError: Where it has.
    """
    if _PASSWORD.search(text):
        raise ValueError(
            f"{redacted(text)!r} has a password in it, which records and logs would "
            "show: give it as a variable of the environment, such as those of AWS"
        )
    return text


PathText = Annotated[
    str,
    pydantic.Field(min_length=1),
    pydantic.AfterValidator(os.path.expanduser),
    pydantic.AfterValidator(without_password),
]
"""A path or an address; `~/` is the user's own folder, all else is as it is written."""


class Section(pydantic.BaseModel):
    """A section of a configuration: unknown keys and other types are errors."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        protected_namespaces=(),
        # The text under a field is its description.
        use_attribute_docstrings=True,
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, content: Any) -> Any:
        for key in content if isinstance(content, dict) else ():
            if key not in cls.model_fields:
                raise PydanticCustomError(
                    _UNKNOWN,
                    "unknown key {key}: {hint}",
                    {"key": str(key), "hint": hint(str(key), cls.names())},
                )
        return content

    @classmethod
    def names(cls) -> list[str]:
        """Its keys, in the order in which they are told."""
        return list(cls.model_fields)


def hint(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name, or all names that there are."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def key_of(error: pydantic.ValidationError) -> tuple[str, ...]:
    """Where the first problem of sections is; empty where it is of several keys."""
    problem = error.errors()[0]
    unknown = [problem["ctx"]["key"]] if problem["type"] == _UNKNOWN else []
    return (*map(str, problem["loc"]), *unknown)


def explain(error: pydantic.ValidationError) -> str:
    """Puts the first problem of sections into one line; others are counted."""
    problems = error.errors()
    problem = problems[0]
    kind, told = problem["type"], problem.get("ctx", {})
    key = ".".join(key_of(error))
    if kind == _UNKNOWN:
        text = f"unknown key {key}: {told['hint']}"
    elif kind == "missing":
        text = f"the key {key} is missing"
    elif kind == "value_error":
        text = str(told["error"])
    else:
        reason = problem["msg"][0].lower() + problem["msg"][1:]
        text = f"{key}: {problem['input']!r} cannot be: {reason}"
    more = len(problems) - 1
    return f"{text} (and {more} more problem(s))" if more else text
