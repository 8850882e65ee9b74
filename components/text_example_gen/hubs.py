"""Datasets by name: Hugging Face's `datasets` and TensorFlow Datasets.

A name is `hf://NAME`, `hf://NAME:CONFIGURATION` or `tfds://NAME`, as these packages
know it, with `@SPLIT` behind it where that is not `train`: `hf://glue:sst2@validation`,
`tfds://wiki40b/en`. A Hugging Face name may be a local folder.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ..errors import InputError
from .streams import BrokenOffError

_PACKAGES = {"hf://": "datasets", "tfds://": "tensorflow_datasets"}
_EXTRA = "langzoo[datasets]"


def is_dataset(path: str) -> bool:
    """Whether a path is the name of a dataset."""
    return path.startswith(tuple(_PACKAGES))


def require_package(path: str) -> None:
    """Checks that a dataset could be read.

    Raises:
        InputError: Where its package is not installed.
    """
    package = _PACKAGES[_scheme(path)]
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{path} needs the package {package}: pip install '{_EXTRA}'")


def read(path: str) -> Iterator[dict[str, Any]]:
    """Streams the records of a dataset.

    Raises:
        InputError: Where its package is not installed.
        BrokenOffError: Where there is no such dataset, or it cannot be read to its end.
    """
    package, name, split = _parts(path)
    records = _hugging_face if _scheme(path) == "hf://" else _tensorflow
    try:
        yield from records(package, name, split)
    except Exception as error:  # theirs are of many classes
        raise BrokenOffError.of(path, error) from error


def version(path: str) -> str:
    """What a dataset is at present, as far as its package knows: its version and hash.

    Raises:
        InputError: Where its package is not installed.
        BrokenOffError: Where there is no such dataset, or it cannot be reached.
    """
    package, name, _ = _parts(path)
    try:
        if _scheme(path) == "tfds://":
            return str(package.builder(name).info.full_name)
        builder = package.load_dataset_builder(*_configured(name))
        return f"{builder.info.version} {builder.hash}"
    except Exception as error:  # theirs are of many classes
        raise BrokenOffError.of(path, error) from error


def _scheme(path: str) -> str:
    return next(scheme for scheme in _PACKAGES if path.startswith(scheme))


def _parts(path: str) -> tuple[ModuleType, str, str]:
    """The package, and the dataset's name in it and split."""
    require_package(path)
    scheme = _scheme(path)
    name, _, split = path.removeprefix(scheme).partition("@")
    return importlib.import_module(_PACKAGES[scheme]), name, split or "train"


def _configured(name: str) -> tuple[str, str | None]:
    name, _, configuration = name.partition(":")
    return name, configuration or None


def _hugging_face(package: ModuleType, name: str, split: str) -> Any:
    return package.load_dataset(*_configured(name), split=split, streaming=True)


def _tensorflow(package: ModuleType, name: str, split: str) -> Any:
    return package.as_numpy(package.load(name, split=split))
