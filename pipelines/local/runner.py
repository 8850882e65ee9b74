"""The local runner: TFX's LocalDagRunner with a lock, a log and a summary."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import ml_metadata as mlmd
from rich.console import Console
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from ...components import storage
from ...components.evaluator.gate.decision import Decision
from ...components.push_folder.push_folder import PushFolder
from ...components.serving_validator.records import read_refusal
from ...components.source import source_hash
from ...components.text_example_gen import demo_corpus, files
from ...components.text_example_gen.records import (
    LastRun,
    Splitting,
    Summary,
    judged_split,
)
from ...components.text_example_gen.settings import CorpusSettings
from ...components.trainer.distribution import check_devices
from ...components.trainer.records import TrainingResult
from ...components.trainer.watching import weights_and_biases
from ...components.tuner.records import Trial, read_trials
from ...models.families import families_of
from ..configuration.config import Config
from ..pipeline import BASELINE_RESOLVER, Choices, make_components
from ..report import page, reading
from ..report.data import RunReport
from . import baseline, worker_processes
from .console import NodeProgress

_PACKAGES = (
    *("tensorflow", "keras", "keras-hub", "tensorflow-text"),
    *("tfx", "apache-beam", "tensorflow-serving-api"),
)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run did.

    Attributes:
        ingestion: Documents and bytes of each split.
        search: The trials, the best first; none where nothing was searched.
        training: Parameters, steps, seconds.
        decision: The gate's outcome.
        infra_refusal: Why the model server refused a blessed model, or "".
        destination: The version's folder, if the model was pushed, or "".
        training_folder: Where the training's figures and logs are.
        report: The page that shows the run; none where it could not be written.
        executed: Components that did work in this run; none where nothing had changed.
    """

    ingestion: Summary
    search: list[Trial]
    training: TrainingResult
    decision: Decision
    infra_refusal: str
    destination: str
    training_folder: Path
    report: Path | None
    executed: list[str]

    @property
    def pushed(self) -> Path | None:
        """The version's folder, if there is one on this machine."""
        here = self.destination and not storage.is_remote(self.destination)
        return Path(self.destination) if here else None


def run(
    config: Config, console: Console, *, accept_baseline: bool = False
) -> RunResult:
    """Runs the pipeline on this machine.

    Args:
        config: The configuration.
        console: Where progress is shown.
        accept_baseline: Whether the model is accepted in the place of the last blessed
            one, though it be no better.

    Raises:
        InputError: Where the corpus or the push folder cannot be used, or a worker
            process has died.
    """
    PushFolder(config.push_folder).require_writable()
    run_id = execute(config, console, accept_baseline=accept_baseline)
    report = _write_report(config.folder, run_id, console)
    return _result(reading.Runs(config.folder).read(run_id), report)


def execute(
    config: Config,
    console: Console,
    *,
    compared: bool = False,
    accept_baseline: bool = False,
) -> str:
    """Runs the nodes of the pipeline.

    Args:
        config: The configuration.
        console: Where progress is shown.
        compared: Whether the model is only to be judged, as `make_components` says.
        accept_baseline: As of `run`.

    Returns:
        The run's name in MLMD.

    Raises:
        InputError: Where the corpus cannot be used, or a worker process has died, or
            the devices here cannot train so.
    """
    if config.watch.wandb_project:
        weights_and_biases.require_installed()
    model = config.model.model_dump()
    if any(family.learns_by_gradient for family in families_of(model)):
        check_devices(config.trainer.of_family(config.model.family))
    storage.make_passable(config.folder)
    with _only_run(config.folder, console):
        corpus = _resolve_corpus(config)
        if not (compared or accept_baseline):
            _warn_of_mixing(config, corpus, console)
        fingerprint = files.fingerprint(corpus.all_sources)
        run_id = datetime.datetime.now().isoformat(timespec="microseconds")
        _record_run(config, run_id)
        _forget_lost_pushes(str(config.folder / reading.DATABASE))
        choices = Choices(
            corpus=corpus,
            checkpoint_root=config.checkpoint_root,
            ingestion_record=str(config.folder / LastRun.FILE),
            watch=_record_watching(config),
            fingerprint=fingerprint,
            baseline_strategy=baseline.PreviousBlessedModelStrategy,
            accept_baseline=accept_baseline,
            compared=compared,
        )
        pipeline = _pipeline(config, choices)
        with NodeProgress(console).attached() as progress, worker_processes.watched():
            _NodeByNodeRunner(run_id, config.folder, progress).run(pipeline)
        return run_id


def _pipeline(config: Config, choices: Choices) -> tfx_pipeline.Pipeline:
    return tfx_pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(config.folder / "artifacts"),
        components=make_components(config, choices),
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(config.folder / reading.DATABASE)
        ),
        beam_pipeline_args=config.beam_pipeline_args,
    )


def _write_report(folder: Path, run_id: str, console: Console) -> Path | None:
    """Writes a run's report; what goes wrong with it does not undo the run."""
    try:
        return page.report_run(folder, run_id)
    except Exception as error:
        logging.getLogger(__name__).exception("no report of run %s", run_id)
        console.print(f"warning: there is no report: {error}", soft_wrap=True)
        return None


class _NodeByNodeRunner(LocalDagRunner):
    """LocalDagRunner, told of one node at a time, so that we see each start and end.

    Args:
        run_id: Identifies the run in MLMD.
        folder: The pipeline's folder.
        progress: Is told of every node.
    """

    def __init__(self, run_id: str, folder: Path, progress: NodeProgress) -> None:
        super().__init__()
        self._run_id = run_id
        self._folder = folder
        self._progress = progress

    def run_with_ir(
        self,
        pipeline: pipeline_pb2.Pipeline,
        run_options: pipeline_pb2.RunOptions | None = None,
    ) -> None:
        """Runs all nodes under one run id."""
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self._run_id}
        )
        for node in pipeline.nodes:
            single = pipeline_pb2.Pipeline()
            single.CopyFrom(pipeline)
            del single.nodes[:]
            single.nodes.append(node)
            node_id = node.pipeline_node.node_info.id
            self._progress.start(node_id)
            super().run_with_ir(single, run_options)
            states = reading.Runs(self._folder).states(self._run_id)
            self._progress.finish(cached=states.get(node_id) == "CACHED")


def _resolve_corpus(config: Config) -> CorpusSettings:
    sources = [
        source.model_copy(update={"path": _resolve_path(source.path, config)})
        for source in config.corpus.all_sources
    ]
    return config.corpus.model_copy(update={"sources": sources})


def _warn_of_mixing(config: Config, corpus: CorpusSettings, console: Console) -> None:
    """Says where what is served cannot be compared with what this run will make."""
    folder = PushFolder(config.push_folder)
    for number in folder.numbers[-1:]:
        served = Splitting.find(folder.folder(number))
        splitting = Splitting.of(corpus.all_sources, config.cleaning, corpus.buckets)
        reason = splitting.seen_by(served, judged_split(corpus.buckets))
        if reason and folder.model(number):
            console.print(
                f"warning: version {number} in {folder.path} is none that the gate "
                f"compares with on this corpus: {reason}. --set name=NAME makes a "
                "pipeline of its own, --accept-baseline goes on with this one",
                soft_wrap=True,
            )


def _resolve_path(path: str, config: Config) -> str:
    return demo_corpus.found(path, Path(config.root))


@contextlib.contextmanager
def _only_run(folder: Path, console: Console) -> Iterator[None]:
    """Lets one run at a time into a pipeline's folder; the others wait."""
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"waiting for another run in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _record_run(config: Config, run_id: str) -> None:
    """Writes down what is needed to repeat the run."""
    folder = reading.run_folder(config.folder, run_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / reading.CONFIGURATION_FILE).write_text(config.to_yaml())
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["langzoo source"] = source_hash(__name__)
    (folder / reading.VERSIONS_FILE).write_text(json.dumps(versions, indent=1))


def _record_watching(config: Config) -> str:
    """Writes down how training is watched, which TFX's cache shall not ask about."""
    return config.watch.write(str(config.folder))


def _forget_lost_pushes(database: str) -> None:
    """Makes the cache miss for a push whose version has been deleted since.

    TFX takes a cached result only while its artifact's folder exists.
    """
    if not os.path.exists(database):
        return
    connection = metadata.sqlite_metadata_connection_config(database)
    store = mlmd.MetadataStore(connection)
    for artifact in store.get_artifacts_by_type("PushedModel"):
        destination = artifact.custom_properties["pushed_destination"].string_value
        if destination and not storage.exists(destination):
            shutil.rmtree(artifact.uri, ignore_errors=True)


def _result(run: RunReport, page_written: Path | None) -> RunResult:
    artifacts = {artifact.id: artifact for artifact in run.artifacts}
    outputs = {
        (execution.node, key): artifacts[numbers[0]]
        for execution in run.executions
        for key, numbers in execution.outputs.items()
    }
    decision = Decision.read(
        outputs["Evaluator", "evaluation"].uri, outputs["Evaluator", "blessing"].uri
    )
    infra_uri = outputs["ServingValidator", "blessing"].uri
    results = outputs.get(("Tuner", "tuner_results"))
    training_folder = outputs["Trainer", "model_run"].uri
    return RunResult(
        ingestion=Summary.read(outputs["TextExampleGen", "examples"].uri),
        search=read_trials(results.uri) if results else [],
        training=TrainingResult.read(training_folder),
        decision=decision,
        infra_refusal=read_refusal(infra_uri) if decision.blessed else "",
        destination=outputs["Pusher", "pushed_model"].destination,
        training_folder=Path(training_folder),
        report=page_written,
        # A resolver is a query that is asked in every run.
        executed=[
            execution.node
            for execution in run.executions
            if execution.state == "COMPLETE" and execution.node != BASELINE_RESOLVER
        ],
    )
