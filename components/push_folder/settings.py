"""How the model is exported and where it is pushed: a section of the configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...serving.export.settings import ExportSettings


class ServingSettings(ExportSettings):
    """How the model is exported and where it is pushed."""

    push_folder: Annotated[str, Field(min_length=1)] | None = None
    """Folder that the model server watches; default `ROOT/NAME/serving`."""
