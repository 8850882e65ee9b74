"""The settings of a family as the flat arguments of its backbone.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from typing import Any

_SIZES = {
    "max_sequence_length": "Longest input that the model is made for.",
    "source_vocabulary_size": "Number of token ids of the source, if its tokenizer is "
    "another than the target's.",
    "dtype": "`keras.DTypePolicy` or its name, of computations and weights.",
}
_SETTINGS = re.compile(r"^ +\*\*settings: .*\n(?: {9,}.*\n)*", re.MULTILINE)


def sizes_of(family: Any) -> tuple[str, ...]:
    """The arguments of a family's backbone that are no settings of it."""
    of_source = ("source_vocabulary_size",) if family.reads_a_source else ()
    return ("vocabulary_size", *of_source, "max_sequence_length")


def signature_of(family: Any) -> inspect.Signature:
    """The arguments of a family's backbone: its settings, flat."""
    hints = typing.get_type_hints(family.settings)
    length = family.settings.model_fields["context_length"].default
    arguments: list[tuple[str, Any, Any]] = [
        ("vocabulary_size", int, inspect.Parameter.empty),
        *((name, hints[name], default) for name, default in _defaults(family)),
        *((name, int | None, None) for name in sizes_of(family)[1:-1]),
        ("max_sequence_length", int, length),
        ("dtype", Any, None),
    ]
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=default,
            annotation=annotation,
        )
        for name, annotation, default in arguments
    ]
    others = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    return inspect.Signature([*parameters, others])


def _defaults(family: Any) -> list[tuple[str, Any]]:
    """The hyperparameters and their defaults; first those that must be given."""
    return sorted(
        family.hyperparameters().items(),
        key=lambda item: item[1] is not inspect.Parameter.empty,
    )


def with_arguments(text: str | None, family: Any) -> str | None:
    """The docstring of a backbone with all arguments in place of `**settings`."""
    fields = family.settings.model_fields
    meanings = {name: field.description for name, field in fields.items()} | _SIZES
    lines = []
    for parameter in list(signature_of(family).parameters.values())[1:-1]:
        kind = inspect.formatannotation(parameter.annotation)
        told = [f"{kind}.", *(meanings[parameter.name] or "").split()]
        if parameter.default is not inspect.Parameter.empty:
            told += ["Defaults", "to", f"`{parameter.default!r}`."]
        lines += textwrap.wrap(
            f"{parameter.name}: {' '.join(told)}",
            width=88,
            initial_indent=" " * 8,
            subsequent_indent=" " * 12,
        )
    arguments = "".join(f"{line}\n" for line in lines)
    return text and _SETTINGS.sub(lambda _: arguments, text)
