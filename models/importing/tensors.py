"""Weights of a Hugging Face folder, by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..hugging_face import weight_files


class Tensors:
    """The weights of a folder's `safetensors`, whole or in shards, read when taken.

    Args:
        folder: of Hugging Face's.

    Attributes:
        left: set of strings. Names of those that were not taken yet.

    Raises:
        ValueError: in one line, if there are none that can be read.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {}
        for path in weight_files(folder):
            try:
                file = safe_open(path, framework="np")
            except SafetensorError as error:
                raise ValueError(f"{path.name} is no safetensors: {error}") from error
            self._files.update(dict.fromkeys(file.keys(), file))
        self.left = set(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def take(self, name: str, *shape: int, rows: int | None = None) -> np.ndarray:
        """A weight as float32.

        Args:
            name: string. Its name.
            *shape: ints. The shape that it must have.
            rows: int or `None`. How many of its rows to take, the first ones. Defaults
                to `None`, all.

        Raises:
            ValueError: if there is none, or it is another's.
        """
        if name not in self._files:
            raise ValueError(f"the weights lack the tensor {name}")
        part = self._files[name].get_slice(name)
        found, kind = part.get_shape(), part.get_dtype()
        if found != list(shape):
            raise ValueError(
                f"the tensor {name} must have the shape {list(shape)}, not {found}"
            )
        if kind not in ("F64", "F32", "F16", "BF16"):
            raise ValueError(f"the tensor {name} must be of floats, not {kind}")
        self.left.discard(name)
        return np.asarray(part[:rows], "float32")
