"""langzoo: raw text to a gated, served language model on TensorFlow.

Importing the package is cheap: it only fixes the environment that the libraries read
when they are imported, so import it before `tensorflow` or `keras`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator

__version__ = "0.1.0"

ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    # TensorFlow Transform turns Keras 2 on where this is unset.
    "TF_USE_LEGACY_KERAS": "0",
    # Off by default on AMD processors, where it makes matrix products faster.
    "TF_ENABLE_ONEDNN_OPTS": "1",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m langzoo`, or a module of it: what lies in the working directory goes
    # after what is installed, as for the command `langzoo`.
    sys.path.append(sys.path.pop(0))


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For the imports of a process of ours, of which the collector takes no notice.

    To look again and again through what stays takes as long as half of TFX's imports,
    and comes once more at the end of the process.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def __getattr__(name: str) -> object:
    """Finds `Tokenizer`, an artifact's type, where Kubeflow's name of it says it is."""
    if name != "Tokenizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(".components.types", __name__).Tokenizer
