"""Executor of ServingValidator."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable

import tensorflow as tf
from grpc import StatusCode
from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from ...serving.client import Client
from ...serving.errors import ServingError
from ...serving.export import contract
from ...serving.server.process import ServerError, UnservableError, running_server
from ..documents import split
from ..errors import InputError, line_of
from ..limits import LONGEST
from ..progress import report
from ..types import Artifacts, Properties
from .records import BLESSED_FILE, NOT_BLESSED_FILE

# Of the artifact, as TFX's InfraValidator sets it and its Pusher reads.
_BLESSED_PROPERTY = "blessed"

_NUM_DOCUMENTS = 4
_NEW_TOKENS = 8
_CHARACTERS = 1000
_READY_SECONDS = 120
# Where a server cannot answer, or not now.
_NOT_THE_MODELS = {
    StatusCode.UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.CANCELLED,
}


class Executor(base_executor.BaseExecutor):
    """Serves the candidate from a temporary folder of versions and asks it."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> None:
        """Writes the infra `blessing` artifact."""
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        model_blessing = artifact_utils.get_single_instance(
            input_dict["model_blessing"]
        )
        if not model_utils.is_model_blessed(model_blessing):
            _mark(blessing, "not served: the evaluation has not blessed the model")
            return
        model = artifact_utils.get_single_instance(input_dict["model"])
        model_path = path_utils.serving_model_path(model.uri)
        evaluated = split(input_dict["examples"], "eval")
        first = itertools.islice(evaluated, _NUM_DOCUMENTS)
        refusal = self._refusal(model_path, [text[:LONGEST] for text in first])
        _mark(blessing, refusal and f"refused: {refusal}")
        if refusal:
            report(f"the model server refused the model: {refusal}")

    def _refusal(self, model_path: str, documents: list[str]) -> str | None:
        """What speaks against the model.

        Raises:
            InputError: Where the machine has not let the server find out, so that the
                next run tries again: TFX's cache keeps a refusal.
        """
        try:
            base_path = os.path.join(self._get_tmp_dir(), "serving")
            io_utils.copy_dir(model_path, os.path.join(base_path, "1"))
            with running_server(base_path) as address, Client(address) as client:
                client.wait_until_ready(_READY_SECONDS)
                return wrong_answer(client, documents)
        except UnservableError as error:
            return str(error)
        except (OSError, tf.errors.OpError, ServerError, ServingError) as error:
            raise InputError(
                f"the model is not validated, which the next run tries again: "
                f"{line_of(error)}"
            ) from error


def wrong_answer(client: Client, documents: list[str]) -> str | None:
    """What is wrong with a server's answers; `None` where they are right.

    Args:
        client: Connected to a model of this package.
        documents: Texts to score and to continue.

    Raises:
        ServingError: Where there is no answer, through no fault of the model.
    """
    try:
        check_answers(client, documents)
    except ServingError as error:
        if error.code in _NOT_THE_MODELS:
            raise
        return error.message
    except ValueError as error:
        return str(error)
    return None


def check_answers(client: Client, documents: list[str]) -> None:
    """Asks a server everything that a client may ask.

    Args:
        client: Connected to a model of this package.
        documents: Texts to score and to continue.

    Raises:
        ValueError: Where an answer cannot be right.
        ServingError: Where the server answers with an error.
    """
    answered = client.metadata().signatures
    scores = answered.get(contract.SCORE.name)
    if scores and contract.PSEUDO_SCORE.outputs.keys() <= scores.outputs.keys():
        # It takes a reading for each token.
        documents = [document[:_CHARACTERS] for document in documents]
    for name, check in _CHECKS.items():
        asked = answered.get(name)
        if asked and len(asked.inputs.keys() - asked.defaults.keys()) == 1:
            check(client, documents)


def _check_scores(client: Client, documents: list[str]) -> None:
    scores = client.score(documents)
    for document, score in zip(documents, scores, strict=True):
        counted = score.nll > 0 and score.spelling_nll >= 0 and score.tokens > 0
        if not (counted and math.isfinite(score.bits)):
            raise ValueError(f"score answered {score}")
        if score.bytes != len(document.encode()):
            raise ValueError(f"score counts {score.bytes} bytes in {document!r}")


def _check_defaults(client: Client, documents: list[str]) -> None:
    for answer in client.serving_default(documents):
        probabilities = answer.get("probability", [1.0])
        # Next tokens share one; labels may have one each, and tags of words have.
        most = 1 if "token" in answer else len(probabilities)
        if not 0 < sum(probabilities) <= most + 1e-3:
            raise ValueError(f"serving_default has probabilities {probabilities}")


def _check_generations(client: Client, documents: list[str]) -> None:
    for generation in client.generate(documents, max_new_tokens=_NEW_TOKENS):
        if generation.new_tokens > _NEW_TOKENS:
            raise ValueError(f"generate answered {generation.new_tokens} new tokens")


_CHECKS: dict[str, Callable[[Client, list[str]], None]] = {
    contract.SCORE.name: _check_scores,
    contract.NEXT.name: _check_defaults,
    contract.GENERATE.name: _check_generations,
}
"""By signature what is tried of it, where a model has it and it takes texts alone."""


def _mark(blessing: types.Artifact, refusal: str | None) -> None:
    blessed = refusal is None
    blessing.set_int_custom_property(_BLESSED_PROPERTY, int(blessed))
    verdict = BLESSED_FILE if blessed else NOT_BLESSED_FILE
    io_utils.write_string_file(os.path.join(blessing.uri, verdict), refusal or "")
