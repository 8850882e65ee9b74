"""Asks an exported model in this process, without a server, as `client.Client` does."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import TypeVar

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from .client.base import Asker, Deadline
from .client.questions import Answer, Question
from .errors import ServingError
from .export.checks import graphs_of
from .export.contract import SAVED_MODEL_FILE
from .server.caller import Caller
from .server.servable import Signature, load_servable

Result = TypeVar("Result")


class ExportedModel(Asker):
    """A SavedModel with the signatures of `contract`, loaded as a server does.

    At a `timeout` of a method, and at Ctrl-C, the graph is stopped; by default there is
    no timeout.

    Args:
        directory: the folder of a SavedModel, or a folder of versions, of which the
            newest is taken.
        batch_size: int. Most texts that are given to the graph at once.

    Raises:
        ServingError: there is no SavedModel, or it cannot be loaded.

    Example:
    ```python
    with ExportedModel("langzoo-runs/demo/serving") as model:
        [score] = model.score(["To be, or not to be"])
        print(score.bits_per_byte)
    ```
    """

    def __init__(self, directory: str | os.PathLike[str], batch_size: int = 32) -> None:
        self.directory = saved_model_folder(directory)
        self._batch_size = batch_size
        self._servable = load_servable(0, self.directory)

    def close(self) -> None:
        """Frees what the model holds."""
        self._servable.close()

    def __enter__(self) -> ExportedModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, question: Question[Result]) -> list[Result]:
        signature = self._servable.signature(question.signature)
        if signature is None:
            raise ServingError(
                StatusCode.NOT_FOUND,
                f"{self.directory} has no signature {question.signature}",
            )
        seconds = math.inf if question.timeout is None else question.timeout
        deadline = Deadline(seconds, self.directory)
        results: list[Result] = []
        for batch in question.batches(self._batch_size):
            columns = {
                name: np.array(values, tf.dtypes.as_dtype(int(dtype)).as_numpy_dtype)
                for name, (dtype, values) in batch.columns.items()
            }
            outputs = _run(signature, columns, deadline)
            answer = Answer(outputs, np.ndarray.tolist, batch.rows, self.directory)
            results += batch.read(answer)
        return results


def _run(
    signature: Signature, columns: dict[str, np.ndarray], deadline: Deadline
) -> dict[str, np.ndarray]:
    """The outputs of a signature; a thread that waits for them can be interrupted."""
    caller = Caller()
    with ThreadPoolExecutor(1) as executor:
        try:
            return executor.submit(signature.run, columns, (), caller).result(
                min(deadline.left(), TIMEOUT_MAX)
            )
        except TimeoutError:
            raise deadline.exceeded() from None
        finally:
            caller.leave()


def signatures(directory: str | os.PathLike[str]) -> list[str]:
    """Names of the signatures of a SavedModel; none where there is no SavedModel."""
    if not tf.io.gfile.exists(os.path.join(directory, SAVED_MODEL_FILE)):
        return []
    (graph,) = graphs_of(directory)
    return sorted(graph.signature_def)


def saved_model_folder(directory: str | os.PathLike[str]) -> str:
    """The folder of the SavedModel: `directory`, or the newest version in it.

    Raises:
        ServingError: there is none.
    """
    folder = os.fspath(directory)
    if tf.io.gfile.exists(os.path.join(folder, SAVED_MODEL_FILE)):
        return folder
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    versions = [name for name in (n.rstrip("/") for n in names) if name.isdecimal()]
    if versions:
        newest = os.path.join(folder, max(versions, key=int))
        if tf.io.gfile.exists(os.path.join(newest, SAVED_MODEL_FILE)):
            return newest
    raise ServingError(
        StatusCode.NOT_FOUND,
        f"{folder} is no exported model: neither it nor its newest version holds a "
        f"{SAVED_MODEL_FILE}",
    )
