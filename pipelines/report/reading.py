"""Reads what is known of runs: from MLMD, their artifacts and their folders.

Importing this module imports neither TensorFlow nor TFX: `langzoo runs` is quick.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from ...components.errors import InputError
from ...components.evaluator.records import BLESSED_FILE, Evaluation, Verdict
from ...components.serving_validator.records import read_refusal
from ...components.text_example_gen.records import Summary
from ...components.trainer.records import TrainingResult
from ...components.transform.records import Tokens
from ...components.tuner.records import Trial, read_trials
from . import data

DATABASE = "metadata.sqlite"
PAGE_FILE = "report.html"
CONFIGURATION_FILE = "config.yaml"
VERSIONS_FILE = "versions.json"
# Where a model's artifact has its SavedModel, as TFX says.
SERVING_MODEL = "Format-Serving"
COMPARISON_NODE = "ComparisonEvaluator"
EVALUATOR_NODES = ("Evaluator", COMPARISON_NODE)

_Event = metadata_store_pb2.Event
_INPUT_EVENTS = (_Event.INPUT, _Event.DECLARED_INPUT)
_OUTPUT_EVENTS = (_Event.OUTPUT, _Event.DECLARED_OUTPUT)


def run_folder(folder: Path, run_id: str) -> Path:
    """Where a run's configuration, versions and report lie."""
    return folder / "runs" / run_id.replace(":", "-")


class Runs:
    """The runs of a pipeline.

    Args:
        folder: The pipeline's folder.

    Raises:
        InputError: Where there is no run in it.
    """

    def __init__(self, folder: Path) -> None:
        database = folder / DATABASE
        if not database.exists():
            raise InputError(
                f"there is no run in {folder}: `langzoo run` makes one, and name and "
                "root of the configuration say where"
            )
        connection = metadata_store_pb2.ConnectionConfig()
        connection.sqlite.filename_uri = str(database)
        connection.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
        )
        self._folder = folder
        self._store = mlmd.MetadataStore(connection)

    @property
    def ids(self) -> list[str]:
        """Names of the runs, the oldest first."""
        contexts = self._store.get_contexts_by_type("pipeline_run")
        return [context.name for context in sorted(contexts, key=lambda c: c.id)]

    def find(self, name: str | None) -> str:
        """The name of a run, given its beginning; by default the last one's.

        Raises:
            InputError: Where none begins so, or several do.
        """
        wanted = (name or self.ids[-1]).replace(":", "-")
        found = [
            run_id for run_id in self.ids if run_id.replace(":", "-").startswith(wanted)
        ]
        if len(found) != 1:
            raise InputError(
                f"{len(found) or 'no'} runs in {self._folder} begin with {name!r}: "
                f"`langzoo runs` lists them, the last is {self.ids[-1]}"
            )
        return found[0]

    def read(self, run_id: str) -> data.RunReport:
        """Reads all that is known of a run."""
        run = self._store.get_context_by_type_and_name("pipeline_run", run_id)
        found = sorted(
            self._store.get_executions_by_context(run.id), key=lambda e: e.id
        )
        executions = self._executions(found)
        return _Reader(
            self._folder,
            run_id,
            found,
            executions,
            self._artifacts(executions),
        ).report()

    def states(self, run_id: str) -> dict[str, str]:
        """How the executions of a run's nodes have ended, as MLMD says, by node."""
        run = self._store.get_context_by_type_and_name("pipeline_run", run_id)
        return {
            self._node(execution): _state(execution)
            for execution in self._store.get_executions_by_context(run.id)
        }

    def _executions(
        self, found: list[metadata_store_pb2.Execution]
    ) -> list[data.Execution]:
        events = self._store.get_events_by_execution_ids([e.id for e in found])

        def numbers(execution: int, types: tuple[int, ...]) -> dict[str, list[int]]:
            by_key: dict[str, list[int]] = {}
            for event in events:
                if event.execution_id == execution and event.type in types:
                    key = event.path.steps[0].key
                    by_key.setdefault(key, []).append(event.artifact_id)
            return by_key

        return [
            data.Execution(
                id=execution.id,
                node=self._node(execution),
                state=_state(execution),
                seconds=_seconds(
                    execution.create_time_since_epoch,
                    execution.last_update_time_since_epoch,
                ),
                inputs=numbers(execution.id, _INPUT_EVENTS),
                outputs=numbers(execution.id, _OUTPUT_EVENTS),
            )
            for execution in found
        ]

    def _node(self, execution: metadata_store_pb2.Execution) -> str:
        for context in self._store.get_contexts_by_execution(execution.id):
            if context.type == "node":
                return context.name.partition(".")[2]
        return execution.type.rpartition(".")[2]

    def _artifacts(self, executions: list[data.Execution]) -> list[data.Artifact]:
        used = {
            number
            for execution in executions
            for numbers in (*execution.inputs.values(), *execution.outputs.values())
            for number in numbers
        }
        events = self._store.get_events_by_artifact_ids(sorted(used)) if used else []
        # A result from the cache is an output of every execution that took it.
        producers: dict[int, int] = {}
        for event in events:
            if event.type in _OUTPUT_EVENTS:
                first = producers.get(event.artifact_id, event.execution_id)
                producers[event.artifact_id] = min(first, event.execution_id)
        return [
            data.Artifact(
                id=artifact.id,
                type=artifact.type,
                uri=artifact.uri,
                producer=producers.get(artifact.id),
                destination=artifact.custom_properties[
                    "pushed_destination"
                ].string_value,
            )
            for artifact in self._store.get_artifacts_by_id(sorted(used))
        ]


class _Reader:
    """Puts together the report of one run.

    Args:
        folder: The pipeline's folder.
        run_id: The run's name.
        found: Its executions, as MLMD has them.
        executions: The same, as the report has them.
        artifacts: What they read or wrote.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        found: list[metadata_store_pb2.Execution],
        executions: list[data.Execution],
        artifacts: list[data.Artifact],
    ) -> None:
        self._run_id = run_id
        self._run_folder = run_folder(folder, run_id)
        self._found = found
        self._executions = executions
        self._artifacts = artifacts

    def report(self) -> data.RunReport:
        """Reads the artifacts and the run's folder."""
        nodes = [execution.node for execution in self._executions]
        evaluator = next((node for node in EVALUATOR_NODES if node in nodes), "")
        evaluation = self._output(evaluator, "evaluation")
        blessing = self._output(evaluator, "blessing")
        blessed = Path(blessing, BLESSED_FILE).exists() if blessing else None
        page = self._run_folder / PAGE_FILE
        versions = _text(self._run_folder / VERSIONS_FILE)
        return data.RunReport(
            pipeline=self._run_folder.parent.parent.name,
            run_id=self._run_id,
            started=self._run_id[:19],
            seconds=self._seconds(),
            failed=[
                execution.node
                for execution in self._executions
                if execution.state not in ("COMPLETE", "CACHED")
            ],
            compared=COMPARISON_NODE in nodes,
            blessed=blessed,
            corpus=self._corpus(),
            model=self._model(),
            training=self._training(),
            trials=self._trials(),
            evaluation=Evaluation.find(evaluation),
            verdict=Verdict.find(blessing),
            serving=self._serving(blessed),
            size_mb=_size_mb(self._output("Trainer", "model")),
            configuration=_text(self._run_folder / CONFIGURATION_FILE),
            versions=json.loads(versions or "{}"),
            executions=self._executions,
            artifacts=self._artifacts,
            page=str(page) if page.exists() else "",
        )

    def _output(self, node: str, key: str) -> str:
        """Folder of an output of the run; "" where there is none."""
        uris = {artifact.id: artifact.uri for artifact in self._artifacts}
        for execution in self._executions:
            if execution.node == node:
                return uris[execution.outputs[key][0]] if execution.outputs else ""
        return ""

    def _seconds(self) -> float:
        if not self._found:
            return 0.0
        return _seconds(
            min(execution.create_time_since_epoch for execution in self._found),
            max(execution.last_update_time_since_epoch for execution in self._found),
        )

    def _properties(self, node: str) -> Any:
        """What a node of the run was told."""
        for ours, execution in zip(self._executions, self._found, strict=True):
            if ours.node == node:
                return execution.custom_properties
        return {}

    def _corpus(self) -> data.Corpus | None:
        summary = Summary.find(self._output("TextExampleGen", "examples"))
        if summary is None:
            return None
        found = Tokens.find(self._output("Transform", "transformed_examples"))
        tokens = found.model_dump()["splits"] if found else {}
        told = self._properties("TextExampleGen")
        sources = json.loads(told["sources"].string_value) if "sources" in told else []
        return data.Corpus(
            sources=[
                source[key]
                for source in sources
                for key in ("path", "target")
                if source.get(key)
            ],
            splits=[
                data.Split(
                    name=name,
                    documents=count,
                    **{"bytes": summary.bytes[name]} | tokens.get(name, {}),
                )
                for name, count in summary.documents.items()
            ],
            files=summary.files,
            skipped=summary.skipped,
            left_out=summary.left_out,
            cleaning=summary.cleaning,
            contamination={n: str(s) for n, s in summary.contamination.items()},
        )

    def _model(self) -> data.Model | None:
        told = self._properties("Trainer")
        if "custom_config" not in told:
            return None
        model = json.loads(told["custom_config"].string_value)["model"]
        for trial in self._trials()[:1]:
            for key, value in trial.values.items():
                section, _, name = key.partition(".")
                if section == "model":
                    model[name] = value
        return data.Model(
            family=model.pop("family"),
            context_length=model.pop("context_length", None),
            hyperparameters=model,
        )

    def _training(self) -> TrainingResult | None:
        return TrainingResult.find(self._output("Trainer", "model_run"))

    def _trials(self) -> list[Trial]:
        results = self._output("Tuner", "tuner_results")
        return read_trials(results) if results else []

    def _serving(self, blessed: bool | None) -> data.Serving | None:
        pushed = self._output("Pusher", "pushed_model")
        if not pushed:
            return None
        (artifact,) = (one for one in self._artifacts if one.uri == pushed)
        folder, _, version = artifact.destination.rpartition("/")
        blessing = self._output("ServingValidator", "blessing")
        return data.Serving(
            refusal=read_refusal(blessing) if blessed else "",
            version=version,
            folder=folder,
        )


def _state(execution: metadata_store_pb2.Execution) -> str:
    return metadata_store_pb2.Execution.State.Name(execution.last_known_state)


def _seconds(start: int, end: int) -> float:
    return max(end - start, 0) / 1000


def _size_mb(folder: str) -> float | None:
    """Size of an exported model; `None` where it is gone."""
    saved = Path(folder, SERVING_MODEL)
    if not folder or not saved.exists():
        return None
    return _total(file for file in saved.rglob("*") if file.is_file()) / 1e6


def _total(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""
