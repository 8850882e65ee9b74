"""A model server that speaks TensorFlow Serving's gRPC and REST protocols.

`ModelServer` runs it inside a process, `python -m langzoo.serving.server` as one of
its own. From the wire inwards:

- `grpc_service` and `rest` speak the protocols, `tensors` and `json_tensors` convert
  between them and NumPy;
- `core` finds the model a request means, and answers what is not a prediction;
- `inference` answers what is one, `warmup` does so before a version serves;
- `models` are all of them and their labels, `repository` follows the base path of one
  and swaps its versions;
- `servable` is one loaded version, `tflite` one of another kind, `batching` joins the
  requests that they are asked;
- `config_files` reads what TensorFlow Serving's flags name, `base_path` says which
  paths it may follow, `metrics` counts.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["ModelServer", "PortInUseError", "ServerOptions", "ServerStartError"]


def __getattr__(name: str) -> Any:
    # Lazily, so that the command line answers before TensorFlow is imported.
    if name in __all__:
        return getattr(importlib.import_module(".app", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
