"""Asks an exported model in this process, without a server, as `client.Client` does."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TypeVar, Unpack

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from .client import (
    GenerateSettings,
    Generation,
    NextTokens,
    Score,
    TokenScores,
    questions,
)
from .client.questions import Answer, Each, Question, Texts
from .errors import ServingError
from .server.servable import load_servable

Result = TypeVar("Result")

_SAVED_MODEL = "saved_model.pb"


class ExportedModel:
    """A SavedModel with the signatures of `export_causal_lm`, loaded as a server does.

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

    def next_tokens(self, texts: Texts) -> list[NextTokens]:
        """The likeliest next tokens after each text."""
        return self._ask(questions.next_tokens(texts))

    def score(self, texts: Texts) -> list[Score]:
        """How well the model predicts each text."""
        return self._ask(questions.score(texts))

    def token_scores(self, texts: Texts) -> list[TokenScores]:
        """How well the model predicts each token of each text."""
        return self._ask(questions.token_scores(texts))

    def generate(
        self,
        prompts: Texts,
        max_new_tokens: Each[int] | None = None,
        **settings: Unpack[GenerateSettings],
    ) -> list[Generation]:
        """Continues each prompt; see `GenerateSettings`."""
        given = {"max_new_tokens": max_new_tokens, **settings}
        return self._ask(questions.generate(prompts, given))

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
        results: list[Result] = []
        for batch in question.batches(self._batch_size):
            columns = {
                name: np.array(values, tf.dtypes.as_dtype(int(dtype)).as_numpy_dtype)
                for name, (dtype, values) in batch.columns.items()
            }
            outputs = signature.run(columns)
            answer = Answer(outputs, np.ndarray.tolist, batch.rows, self.directory)
            results += batch.read(answer)
        return results


def signatures(directory: str | os.PathLike[str]) -> list[str]:
    """Names of the signatures of a SavedModel; none where there is no SavedModel."""
    file = os.path.join(os.fspath(directory), _SAVED_MODEL)
    if not tf.io.gfile.exists(file):
        return []
    with tf.io.gfile.GFile(file, "rb") as stream:
        (graph,) = SavedModel.FromString(stream.read()).meta_graphs
    return sorted(graph.signature_def)


def saved_model_folder(directory: str | os.PathLike[str]) -> str:
    """The folder of the SavedModel: `directory`, or the newest version in it.

    Raises:
        ServingError: there is none.
    """
    folder = os.fspath(directory)
    if tf.io.gfile.exists(os.path.join(folder, _SAVED_MODEL)):
        return folder
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    versions = [name for name in (n.rstrip("/") for n in names) if name.isdecimal()]
    if versions:
        newest = os.path.join(folder, max(versions, key=int))
        if tf.io.gfile.exists(os.path.join(newest, _SAVED_MODEL)):
            return newest
    raise ServingError(
        StatusCode.NOT_FOUND,
        f"{folder} is no exported model: neither it nor its newest version holds a "
        f"{_SAVED_MODEL}",
    )
