"""A training as a run of Weights & Biases, where that is installed."""

from __future__ import annotations

import importlib.util
import os
import uuid
from typing import Any

import tensorflow as tf

from ...errors import InputError
from ...progress import report
from .history import History

_ID_FILE = "wandb-id"


def require_installed() -> None:
    """Raises `InputError` where the package is not there."""
    specification = importlib.util.find_spec("wandb")
    # A folder `wandb`, which the package leaves where it runs, looks like one, too.
    if specification is None or specification.origin is None:
        raise InputError(
            "watch.wandb_project needs Weights & Biases: pip install 'langzoo[wandb]'"
        )


class WandbRun:
    """A run that is gone on with where a training is.

    Whether it is sent, and where to, is for the package's own settings to say, such as
    the variables of the environment `WANDB_API_KEY` and `WANDB_MODE`.

    Args:
        project: Its project.
        folder: Where its files lie, and its identity, which a resumed training takes
            up; it outlives the process.
        settings: What the run is shown to be configured with.
        history: That of the training, which says what there is to see of its rows.

    Raises:
        InputError: Where the package is not installed, or cannot begin.
    """

    def __init__(
        self, project: str, folder: str, settings: dict[str, Any], history: History
    ) -> None:
        require_installed()
        import wandb

        tf.io.gfile.makedirs(folder)
        try:
            self._run = wandb.init(
                project=project,
                id=_identity(folder),
                resume="allow",
                dir=None if "://" in folder else folder,  # It writes local files only.
                config=settings,
                # The runner has its own ideas of where standard output goes.
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise InputError(f"watch.wandb_project: {reason}") from error
        self._table = wandb.Table
        self._history = history
        if self._run.url:  # It has none offline.
            report(f"watch it: {self._run.url}")

    def show(self, group: str, row: dict[str, float]) -> None:
        """Adds points to the curves `group/name`.

        Steps before the last one that the run has had, which a training that was killed
        does again, it leaves as they are.
        """
        curves = self._history.curves_of(row)
        values = {f"{group}/{name}": value for name, value in curves.items()}
        self._run.log(values, step=int(row["step"]))

    def write(self, group: str, sample: dict[str, Any]) -> None:
        """Adds a text."""
        table = self._table(columns=["text"], data=[[sample["text"]]])
        self._run.log({f"{group}/sample": table}, step=sample["step"])

    def close(self) -> None:
        """Ends the run; one with its identity goes on with it."""
        self._run.finish()


def _identity(folder: str) -> str:
    path = os.path.join(folder, _ID_FILE)
    if not tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(uuid.uuid4().hex[:16])
    with tf.io.gfile.GFile(path) as file:
        return str(file.read())
