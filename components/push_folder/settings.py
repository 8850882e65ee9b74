"""How the model is exported and where it is pushed: a section of the configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from ...models.settings import PathText
from ...serving.export.settings import ExportSettings


class ServingSettings(ExportSettings):
    """How the model is exported and where it is pushed."""

    push_folder: PathText | None = None
    """Folder that the model server watches; default `ROOT/NAME/serving`."""
