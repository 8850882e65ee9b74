"""What a ServingValidator leaves in its artifact `blessing`.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from .. import storage

# What TFX's InfraValidator writes and its Pusher reads.
BLESSED_FILE = "INFRA_BLESSED"
NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"


def read_refusal(blessing: str) -> str:
    """Reads why a model was refused; "" where it was not."""
    return storage.read_text(f"{blessing}/{NOT_BLESSED_FILE}") if blessing else ""
