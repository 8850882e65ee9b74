"""Which model a candidate is measured against."""

from __future__ import annotations

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.types import standard_artifacts
from tfx.types.artifact import ArtifactState

from ...components.evaluator.gate.baseline import resolved
from ...components.push_folder.push_folder import PushFolder
from ..report.reading import COMPARISON_NODE

MODEL_KEY = "model"
BLESSING_KEY = "model_blessing"
CANDIDATE_KEY = "candidate"
ACCEPTED_KEY = "accepted"
# The input of the Evaluator's, by the key here.
_INPUTS = {"baseline_model": MODEL_KEY, "accepted_model": ACCEPTED_KEY}
_Event = metadata_store_pb2.Event


class PreviousBlessedModelStrategy(ResolverStrategy):
    """Resolves the model that was blessed last, or that a rollback has made live since.

    TFX's LatestBlessedModelStrategy would measure a blessed candidate against itself
    when a pipeline is run again: that evaluation is not in the cache, and by any
    margin it refuses the model that is being served. A model that was blessed in a
    comparison is not served, so it is none to beat; nor is one that was taken back.
    Where the one to beat is gone, or what was blessed is not known any more, the
    version that was pushed last stands in.

    Args:
        push_folder: Where what is served lies.
        accept: Whether the candidate is accepted in its place, though no better. One
            that was accepted once is so again.
    """

    def __init__(self, push_folder: str, accept: bool = False) -> None:
        self._push_folder = PushFolder(push_folder)
        self._key = ACCEPTED_KEY if accept else MODEL_KEY

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Resolves `model` and `model_blessing` to one artifact each, or to none.

        Args:
            store: Says which blessings are of comparisons.
            input_dict: All `model` and `model_blessing` artifacts of the pipeline and
                the `candidate`.

        Returns:
            The model is `accepted` where it need not be beaten.
        """
        found = _Blessings(store, input_dict)
        numbers = self._push_folder.numbers
        live = self._push_folder.model(numbers[-1]) if numbers else ""
        rollback = self._push_folder.live_rollback
        (candidate,) = input_dict[CANDIDATE_KEY]
        is_live = live == candidate.uri and bool(found.of_candidate)
        key = self._key
        if is_live:
            model, key = found.compared_with(found.of_candidate[0])
            blessing = None
        elif rollback:
            model, blessing = _registered(store, rollback.folder, candidate), None
        else:
            model, blessing = found.last()
        if resolved([model]).trouble if model else not is_live:
            taken_back = rollback.taken_back if rollback else ()
            number = self._push_folder.newest_besides(candidate.uri, *taken_back)
            if number:
                folder = self._push_folder.folder(number)
                model, blessing = _registered(store, folder, candidate), None
        return {
            MODEL_KEY: [],
            ACCEPTED_KEY: [],
            key: [model] if model else [],
            BLESSING_KEY: [blessing] if blessing else [],
            CANDIDATE_KEY: input_dict[CANDIDATE_KEY],
        }


class _Blessings:
    """The blessings of a pipeline, except those of comparisons.

    Args:
        store: MLMD.
        input_dict: As `resolve_artifacts` takes it.

    Attributes:
        of_candidate: Those of the candidate, the oldest first.
    """

    def __init__(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> None:
        self._store = store
        candidates = {model.id for model in input_dict[CANDIDATE_KEY]}
        blessings = sorted(input_dict[BLESSING_KEY], key=lambda artifact: artifact.id)
        self._others = [
            blessing
            for blessing in blessings
            if _blessed_model_id(blessing) not in (None, *candidates)
        ]
        self.of_candidate = [
            blessing
            for blessing in blessings
            if _blessed_model_id(blessing) in candidates
            and not self._is_of_comparison(blessing)
        ]

    def last(self) -> tuple[types.Artifact | None, types.Artifact | None]:
        """The last blessed model that is not the candidate, with its blessing."""
        for blessing in reversed(self._others):
            if not self._is_of_comparison(blessing):
                return self._model(_blessed_model_id(blessing)), blessing
        return None, None

    def compared_with(
        self, blessing: types.Artifact
    ) -> tuple[types.Artifact | None, str]:
        """The model that a blessed one was compared with, and the key of it."""
        (produced,) = self._producers(blessing)[:1]
        for event in self._store.get_events_by_execution_ids([produced]):
            name = event.path.steps[0].key
            if event.type == _Event.INPUT and name in _INPUTS:
                return self._model(event.artifact_id), _INPUTS[name]
        return None, MODEL_KEY

    def _model(self, number: int | None) -> types.Artifact:
        """A model of MLMD's; it may be a version, which no run has made."""
        model = standard_artifacts.Model()
        (found,) = self._store.get_artifacts_by_id([number])
        model.set_mlmd_artifact(found)
        return model

    def _producers(self, artifact: types.Artifact) -> list[int]:
        """The executions that have an artifact among their outputs, the first first."""
        events = self._store.get_events_by_artifact_ids([artifact.id])
        return sorted(e.execution_id for e in events if e.type == _Event.OUTPUT)

    def _is_of_comparison(self, blessing: types.Artifact) -> bool:
        return any(
            context.type == "node" and context.name.endswith(f".{COMPARISON_NODE}")
            for execution in self._producers(blessing)
            for context in self._store.get_contexts_by_execution(execution)
        )


def _blessed_model_id(blessing: types.Artifact) -> int | None:
    key = constants.ARTIFACT_PROPERTY_BLESSED_KEY
    if blessing.get_int_custom_property(key) != constants.BLESSED_VALUE:
        return None
    return blessing.get_int_custom_property(
        constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY
    )


def _registered(
    store: mlmd.MetadataStore, folder: str, candidate: types.Artifact
) -> types.Artifact:
    """A version, given its folder, as an artifact that an input can be.

    The version itself and not the model that it was pushed from, which may be gone.
    """
    version = standard_artifacts.Model()
    version.uri = folder
    version.type_id = candidate.type_id
    version.state = ArtifactState.PUBLISHED
    known = store.get_artifacts_by_uri(folder)
    (version.id,) = (
        [known[0].id] if known else store.put_artifacts([version.mlmd_artifact])
    )
    return version
