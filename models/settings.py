"""Settings: what a person may say, checked where it is said.

A setting's name, type, range, default and meaning stand in one class, beside the code
that uses it. Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import pydantic


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
