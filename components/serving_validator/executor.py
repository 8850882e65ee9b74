"""Executor of ServingValidator."""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from ...serving.client import Client
from ...serving.server.process import running_server
from ..documents import split
from ..limits import LONGEST
from ..progress import report
from .records import BLESSED_FILE, NOT_BLESSED_FILE

# Of the artifact, as TFX's InfraValidator sets it and its Pusher reads.
_BLESSED_PROPERTY = "blessed"

_NUM_DOCUMENTS = 4
_NEW_TOKENS = 8
_READY_SECONDS = 120


class Executor(base_executor.BaseExecutor):
    """Serves the candidate from a temporary folder of versions and asks it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
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
        documents = [text[:LONGEST] for text in first]
        try:
            self._validate(model_path, documents)
        # Whatever goes wrong between the model and a client speaks against the model.
        except Exception as error:
            _mark(blessing, f"refused: {error}")
            report(f"the model server refused the model: {error}")
        else:
            _mark(blessing, None)

    def _validate(self, model_path: str, documents: list[str]) -> None:
        base_path = os.path.join(self._get_tmp_dir(), "serving")
        io_utils.copy_dir(model_path, os.path.join(base_path, "1"))
        with running_server(base_path) as address, Client(address) as client:
            client.wait_until_ready(_READY_SECONDS)
            check_answers(client, documents)


def check_answers(client: Client, documents: list[str]) -> None:
    """Asks a server everything that a client may ask.

    Args:
        client: Connected to a model of this package.
        documents: Texts to score and to continue.

    Raises:
        ValueError: Where an answer cannot be right.
        ServingError: Where the server answers with an error.
    """
    scores = client.score(documents)
    for document, score in zip(documents, scores, strict=True):
        counted = score.nll > 0 and score.spelling_nll >= 0 and score.tokens > 0
        if not (counted and math.isfinite(score.bits)):
            raise ValueError(f"score answered {score}")
        if score.bytes != len(document.encode()):
            raise ValueError(f"score counts {score.bytes} bytes in {document!r}")
    for answer in client.next_tokens(documents):
        if not 0 < sum(answer.probabilities) <= 1 + 1e-3:
            raise ValueError(f"next tokens have probabilities {answer.probabilities}")
    for generation in client.generate(documents, max_new_tokens=_NEW_TOKENS):
        if generation.new_tokens > _NEW_TOKENS:
            raise ValueError(f"generate answered {generation.new_tokens} new tokens")


def _mark(blessing: types.Artifact, refusal: str | None) -> None:
    blessed = refusal is None
    blessing.set_int_custom_property(_BLESSED_PROPERTY, int(blessed))
    verdict = BLESSED_FILE if blessed else NOT_BLESSED_FILE
    io_utils.write_string_file(os.path.join(blessing.uri, verdict), refusal or "")
