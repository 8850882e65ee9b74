"""The model that a candidate is compared with: blessed last, or brought back since."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

from tfx import types
from tfx.utils import path_utils

from ....serving.export.contract import SAVED_MODEL_FILE
from ... import records, s3, storage
from ...errors import InputError
from ...push_folder.push_folder import PushFolder, containing
from ..records import Baseline
from . import last_blessed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a candidate is compared with as the last blessed model.

    Attributes:
        baseline: That model, if there is one.
        taken_back: The versions that a rollback has taken back, by model.
        accepted: Whether the candidate is accepted in its place on purpose.
        trouble: Why it cannot be compared with, though there was one.
    """

    baseline: Baseline | None = None
    taken_back: Mapping[str, int] = dataclasses.field(default_factory=dict)
    accepted: bool = False
    trouble: str = ""

    @contextlib.contextmanager
    def model(self) -> Iterator[str | None]:
        """Gives the folder of the SavedModel; one on `s3://` is copied here."""
        folder = self.baseline.model if self.baseline and not self.trouble else None
        if folder is None or not s3.is_s3(folder):
            # TensorFlow reads from other stores, whichever machine Beam has it on.
            yield folder
            return
        with storage.read_here(folder) as here:
            yield here


def resolved(artifacts: list[types.Artifact]) -> Comparison:
    """Reads what a resolver has found: a model, or a version in a push folder."""
    if not artifacts:
        return Comparison()
    uri = artifacts[0].uri.rstrip("/")
    if uri.rpartition("/")[2].isdecimal():
        folder, number = containing(uri)
        # An artifact's folder is a number, too.
        if folder.rollback(number) or folder.model(number):
            return _version(folder, number)
    return _artifact(uri)


class BlessedRecord(records.Record):
    """Where the model to compare with is found where no resolver is run."""

    file: str
    """The file of `last_blessed`."""
    push_folder: str
    """What is served from there may be a model that was brought back."""
    accept: bool = False
    """Whether the candidate is accepted, though it be no better."""

    def comparison(self, candidate: str) -> Comparison:
        """What a candidate is compared with, given its artifact's folder.

        It is what a rollback has made live, or else what was blessed last. Where that
        is gone, or the record of it is, the version that was pushed last stands in. A
        candidate that was accepted in its place once is so again.
        """
        accepted = self.accept or last_blessed.is_accepted(self.file, candidate)
        return dataclasses.replace(self._compared(candidate), accepted=accepted)

    def _compared(self, candidate: str) -> Comparison:
        folder = PushFolder(self.push_folder)
        live = folder.live_rollback
        # What is served does not have to be better than itself.
        if live and live.model != candidate:
            return _version(folder, live.number)
        taken_back = live.taken_back if live else {}
        found = Comparison()
        try:
            blessed = last_blessed.read(self.file, candidate, *taken_back)
            if blessed:
                found = _artifact(blessed.model_uri)
        except InputError as error:
            found = Comparison(trouble=str(error))
        if not found.baseline or found.trouble:
            number = folder.newest_besides(candidate, *taken_back)
            found = _version(folder, number) if number else found
        return dataclasses.replace(found, taken_back=taken_back)

    def bless(self, candidate: str, comparison: Comparison) -> None:
        """Writes that a candidate was blessed."""
        blessed = last_blessed.Blessed(
            model_uri=candidate, accepted=comparison.accepted
        )
        last_blessed.write(self.file, blessed, *comparison.taken_back)


def _artifact(uri: str) -> Comparison:
    return _of(Baseline(model=path_utils.serving_model_path(uri)))


def _version(folder: PushFolder, number: int) -> Comparison:
    back = folder.rollback(number)
    again, taken_back = (back.version, back.taken_back) if back else (None, {})
    baseline = Baseline(model=folder.folder(number), version=number, again=again)
    return _of(baseline, taken_back)


def _of(baseline: Baseline, taken_back: Mapping[str, int] | None = None) -> Comparison:
    there = storage.exists(f"{baseline.model}/{SAVED_MODEL_FILE}")
    trouble = "" if there else f"{baseline} is gone from {baseline.model}"
    return Comparison(baseline, taken_back or {}, trouble=trouble)
