"""The folder of a model's versions, on this machine or in an object store.

Importing this module imports neither TensorFlow nor TFX; an object store needs both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...serving.export.contract import SAVED_MODEL_FILE
from .. import storage
from ..errors import InputError
from . import versions
from .records import Source, WentBack


class Kept(NamedTuple):
    """What a pipeline has kept of a version.

    Attributes:
        model: The model that was pushed, as the pipeline's artifact.
        folders: Folders that hold its SavedModel, if they are still there.
        push_folder: Where it was pushed to.
    """

    model: str
    folders: tuple[str, ...]
    push_folder: str


@dataclasses.dataclass(frozen=True)
class Rollback:
    """A version that is an earlier one again, as it says of itself.

    Attributes:
        number: Its own number.
        version: The version that it is again.
        folder: Where it lies.
        model: The pipeline's model that it is; "" where that is not known.
        taken_back: The versions that are newer than the one that it is again, by the
            pipeline's models that they are.
    """

    number: int
    version: int
    folder: str
    model: str
    taken_back: Mapping[str, int]


class PushFolder:
    """A folder whose numeric subfolders a model server loads.

    Args:
        path: The folder, or a prefix of an object store such as `gs://bucket/models`.

    Attributes:
        path: Likewise.
    """

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")

    def require_writable(self) -> None:
        """Sees that versions can be written.

        Raises:
            InputError: Where they cannot.
        """
        if storage.is_remote(self.path):
            from . import object_stores

            object_stores.require_writable(self.path)
        else:
            versions.require_writable(self.path)

    def push(self, model_path: str, texts: Mapping[str, str] | None = None) -> str:
        """Copies a model into a new numeric subfolder.

        Args:
            model_path: Folder of a SavedModel.
            texts: What goes into the version besides, by path.

        Returns:
            The new version's folder.

        Raises:
            InputError: Where it cannot be written.
        """
        if not storage.is_remote(self.path):
            return str(versions.push(model_path, self.path, texts))
        from . import object_stores

        with storage.reached(self.path):
            return object_stores.push(model_path, self.path, texts)

    @property
    def numbers(self) -> list[int]:
        """The versions, the newest last, which is what is served."""
        found = storage.numbers(self.path)
        if storage.is_remote(self.path):
            # Of a version that is being written, the graph comes last.
            return [number for number in found if _is_model(self.folder(number))]
        return found

    def folder(self, number: int) -> str:
        """Where a version lies."""
        return f"{self.path}/{number}"

    def origin(self, number: int) -> int:
        """The version that a version is: itself, or that to which it went back."""
        back = WentBack.find(self.folder(number))
        return back.version if back else number

    def model(self, number: int) -> str:
        """The pipeline's model that a version is; "" where that is not known."""
        source = Source.find(self.folder(number))
        return source.model if source else ""

    def newest_besides(self, *models: str) -> int | None:
        """The newest version that a pipeline has pushed, and that is none of models."""
        for number in reversed(self.numbers):
            if self.model(number) not in ("", *models):
                return number
        return None

    def rollback(self, number: int) -> Rollback | None:
        """What a version says of the rollback that made it; `None` where none did."""
        folder = self.folder(number)
        back = WentBack.find(folder)
        if back is None:
            return None
        model, taken_back = self.model(number), back.taken_back
        return Rollback(number, back.version, folder, model, taken_back)

    @property
    def live_rollback(self) -> Rollback | None:
        """The version that is served, where a rollback made it."""
        known = self.numbers
        return self.rollback(known[-1]) if known else None

    def roll_back(
        self, to: int | None = None, kept: Mapping[int, Kept] | None = None
    ) -> Rollback:
        """Makes an earlier version the one that is served.

        A model server takes the highest number. So the earlier version is pushed again,
        under a new number and as any: the server loads it before it lets go of the
        other, nothing is deleted, and any server, however configured, follows.

        Args:
            to: The version; by default that which was served before what is.
            kept: What pipelines have kept of versions, where their folders are gone.

        Raises:
            InputError: Where there is no such version, it is served already, or the
                folder cannot be written.
        """
        kept = kept or {}
        known = self.numbers
        live = self.origin(known[-1]) if known else 0
        wanted = self._before(live) if to is None else to
        if wanted == live:
            raise InputError(f"version {wanted} is what is served already")
        copies = {self.origin(number): number for number in reversed(known)}
        if wanted in copies:
            source = self.folder(copies[wanted])
            model = self.model(copies[wanted])
        else:
            source = self._restorable(wanted, sorted(copies), kept.get(wanted))
            model = kept[wanted].model
        here = [(n, one) for n, one in kept.items() if one.push_folder == self.path]
        models = [
            *((one.model, number) for number, one in here),
            *((self.model(number), number) for number in known if number in copies),
        ]
        # One model may have been pushed several times.
        taken_back = {m: n for m, n in models if n > wanted and m not in ("", model)}
        told = (
            WentBack(version=wanted, taken_back=taken_back),
            Source(model=model),
        )
        pushed = self.push(source, {record.FILE: record.dump() for record in told})
        number = int(pushed.rpartition("/")[2])
        return Rollback(number, wanted, pushed, model, taken_back)

    def _before(self, live: int) -> int:
        """The version that was served before one."""
        if not live:
            raise InputError(
                f"there is no version in {self.path}: `langzoo run` pushes one"
            )
        earlier = [number for number in self.numbers if number < live]
        if not earlier:
            raise InputError(f"there is no version in {self.path} before {live}")
        return self.origin(earlier[-1])

    def _restorable(self, wanted: int, there: list[int], kept: Kept | None) -> str:
        """A folder that a version can be restored from."""
        listed = f"there is {', '.join(map(str, there)) or 'none'}"
        if kept is None:
            raise InputError(f"there is no version {wanted} in {self.path}: {listed}")
        for folder in kept.folders:
            if _is_model(folder):
                return folder
        raise InputError(
            f"version {wanted} is gone from {self.path}, and so is the model of the "
            f"run that pushed it ({', '.join(kept.folders)}): {listed}"
        )


def _is_model(folder: str) -> bool:
    return storage.exists(f"{folder}/{SAVED_MODEL_FILE}")


def containing(version: str) -> tuple[PushFolder, int]:
    """The push folder of a version's folder, and the version's number."""
    folder = Path(version).name
    return PushFolder(version.removesuffix(folder)), int(folder)
