"""Training by several processes, on one machine or many (`multi_worker`).

TensorFlow joins a cluster before it does anything else, once in a process, and ends
with it where another process dies. So every member trains in a child process: the
chief's is started by Trainer, those of the others by `langzoo worker`, which waits for
the chief's job. Where one is lost, all children end, are started anew and go on from
the checkpoint. Data and checkpoints must lie where every process reaches them.

Only the chief writes: checkpoints, and at the end what was learned.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ... import importing
from .. import storage
from ..errors import InputError
from ..progress import LOGGER, report, show
from .distribution import check_cluster, is_chief, make_strategy
from .records import JOB_FILE, WEIGHTS_FILE, TrainingResult

if TYPE_CHECKING:
    from .jobs import Job

_ATTEMPTS = 20
_POLL_SECONDS = 1.0
_SAVE_SECONDS = 120.0
# How a child ends.
_BAD_INPUT = 2
_LOST = 3
_LOST_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def train(job: Job) -> tuple[Any, TrainingResult]:
    """Trains as the chief, with all workers that TF_CONFIG names.

    Returns:
        The model, on one device, and what the training did.

    Raises:
        InputError: Where the job cannot be done, or workers are lost again and again.
    """
    check_cluster()
    tf.io.gfile.makedirs(job.checkpoints)
    path = os.path.join(job.checkpoints, JOB_FILE)
    storage.write_whole(path, json.dumps(dataclasses.asdict(job)))
    try:
        for _ in range(_ATTEMPTS):
            code = _run_child(path)
            if code == 0:
                break
            report("a worker is lost: waiting for all, to go on from the checkpoint")
        else:
            raise InputError(
                f"trainer.strategy multi_worker: workers were lost {_ATTEMPTS} times; "
                "run again to go on from the checkpoint"
            )
    finally:
        tf.io.gfile.remove(path)  # The workers are told that it is over.
    with tf.io.gfile.GFile(os.path.join(job.checkpoints, WEIGHTS_FILE), "rb") as file:
        weights = list(np.load(io.BytesIO(file.read())).values())
    return job.with_weights(weights), TrainingResult.read(job.checkpoints)


def work(folder: str) -> None:
    """Waits for a chief's job and takes part in it until it is over.

    Args:
        folder: The checkpoints of all jobs of a pipeline, `ROOT/NAME/checkpoints`.

    Raises:
        InputError: Where TF_CONFIG does not name this process, or the job cannot be
            done.
    """
    check_cluster()
    pattern = os.path.join(folder, "*", JOB_FILE)
    show(f"waiting for a training in {folder}")
    while not (paths := tf.io.gfile.glob(pattern)):
        time.sleep(_POLL_SECONDS)
    while tf.io.gfile.exists(paths[0]):
        if _run_child(paths[0]) == 0:
            return
        report("the others are lost: waiting for all, to go on from the checkpoint")
        time.sleep(_POLL_SECONDS)


def _run_child(path: str) -> int:
    """Runs this module with a job, and shows what it says.

    Returns:
        0 where it is done; what else says that it may be tried again.

    Raises:
        InputError: Where the job is at fault.
    """
    error = ""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, path],
        stdin=subprocess.PIPE,  # Its end tells the child of this process's.
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C comes from here, once.
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                said = _said(line)
                (show if said["transient"] else report)(said["message"])
                error = said["message"]
            code = child.wait()
        except BaseException:
            child.send_signal(signal.SIGINT)
            child.wait(_SAVE_SECONDS)
            raise
    if code == _BAD_INPUT:
        raise InputError(error)
    if code > 0 and code != _LOST:
        raise RuntimeError(f"a training process failed with code {code}: {error}")
    return code


def _said(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:  # a library's
        return {"message": line.rstrip(), "transient": True}


class _ToParent(logging.Handler):
    """Gives what a child reports to its parent."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        _tell(record.getMessage(), getattr(record, "transient", False))


def _tell(message: str, transient: bool = False) -> None:
    print(json.dumps({"message": message, "transient": transient}), flush=True)


def _take_part(path: str) -> None:
    """Does a job as a member of the cluster; the chief leaves what was learned."""
    with importing():
        from .jobs import Job
    strategy = make_strategy("multi_worker")
    with tf.io.gfile.GFile(path) as file:
        job = Job(**json.loads(file.read()))
    model, result = job.train(strategy)
    if is_chief(strategy):
        weights = io.BytesIO()
        np.savez(weights, *model.get_weights())
        path = os.path.join(job.checkpoints, WEIGHTS_FILE)
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(weights.getvalue())
        result.write(job.checkpoints)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(_LOST)


def _main() -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(_ToParent())
    try:
        _take_part(sys.argv[1])
    except InputError as error:
        _tell(str(error))
        return _BAD_INPUT
    except _LOST_ERRORS as error:
        _tell(f"{type(error).__name__}: {str(error).splitlines()[0]}", transient=True)
        return _LOST
    return 0


if __name__ == "__main__":
    code = _main()
    sys.stdout.flush()
    # A member whose cluster is broken would wait for it at its end.
    os._exit(code)
