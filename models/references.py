"""Objects by name, `module:Name`, imported when they are first needed.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def is_reference(name: str) -> bool:
    """Whether a name is `module:Name`."""
    return re.match(PATTERN, name) is not None


def load(reference: str) -> Any:
    """Imports what a name stands for; modules of the working directory count.

    Args:
        reference: string, `module:Name`.

    Raises:
        ImportError: in one line, if there is no such module, or nothing of that name
            in it, or the module itself raises an error when it is imported.
    """
    module, _, name = reference.partition(":")
    look_in_working_directory()
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise no_such_module(reference) from error
        raise ImportError(f"{reference}: {error}") from error
    except Exception as error:  # Whatever the module does.
        reason = " ".join(str(error).split())
        raise ImportError(f"{reference}: {type(error).__name__}: {reason}") from error
    if not hasattr(found, name):
        raise ImportError(f"{reference}: the module has no {name}")
    return getattr(found, name)


def no_such_module(reference: str) -> ImportError:
    """The error for a name whose module does not exist."""
    return ImportError(
        f"{reference}: no such module in {os.getcwd()} or among the installed packages"
    )


def look_in_working_directory() -> None:
    """Lets modules of the working directory be found, after all others."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        # An installed command does not, unlike `python -m`.
        sys.path.append(os.getcwd())
