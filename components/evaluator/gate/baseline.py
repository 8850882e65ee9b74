"""The model that a candidate is compared with: blessed last, or brought back since."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

from tfx import types
from tfx.utils import path_utils

from ... import records, s3, storage
from ...push_folder.push_folder import PushFolder, Rollback, containing
from ..records import Baseline
from . import last_blessed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a candidate is compared with as the last blessed model.

    Attributes:
        baseline: That model, if there is one.
        taken_back: The versions that a rollback has taken back, by model.
    """

    baseline: Baseline | None = None
    taken_back: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def model(self) -> Iterator[str | None]:
        """Gives the folder of the SavedModel; one on `s3://` is copied here."""
        folder = self.baseline.model if self.baseline else None
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
        rollback = folder.rollback(number)
        if rollback:
            return _with(rollback)
    return Comparison(Baseline(model=path_utils.serving_model_path(uri)))


class BlessedRecord(records.Record):
    """Where the model to compare with is found where no resolver is run."""

    file: str
    """The file of `last_blessed`."""
    push_folder: str
    """What is served from there may be a model that was brought back."""

    def comparison(self, candidate: str) -> Comparison:
        """What a candidate is compared with, given its artifact's folder."""
        live = PushFolder(self.push_folder).live_rollback
        # What is served does not have to be better than itself.
        if live and live.model != candidate:
            return _with(live)
        taken_back = live.taken_back if live else {}
        model = last_blessed.read(self.file, candidate, *taken_back)
        if model is None:
            return Comparison()
        return Comparison(Baseline(model=path_utils.serving_model_path(model)))

    def bless(self, candidate: str, comparison: Comparison) -> None:
        """Writes that a candidate was blessed."""
        last_blessed.write(self.file, candidate, *comparison.taken_back)


def _with(live: Rollback) -> Comparison:
    baseline = Baseline(model=live.folder, version=live.number, again=live.version)
    return Comparison(baseline, live.taken_back)
