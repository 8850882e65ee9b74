"""A compiled pipeline, executed on this machine as Kubeflow Pipelines would.

Each container's command runs as a process, told what to do by an ExecutorInput as
Kubeflow's launcher writes it; what it says of its outputs in its `executor_output.json`
goes on to the next. The images are not used: a command finds this environment in their
place.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import graphlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from ... import ENVIRONMENT
from ...components import storage
from ...components.errors import InputError
from ...serving.wording import visible
from .resources import Resources, run_measured

RESOURCES_FILE = "resources.json"
# What the backend asks of every container, and its launcher writes.
_LOGS = "executor-logs"
_LINES_SHOWN = 20
_TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "STRING": ("a text", str),
    "NUMBER_INTEGER": ("a whole number", int),
    "NUMBER_DOUBLE": ("a number", float),
    "BOOLEAN": ("true or false", lambda text: bool(("false", "true").index(text))),
}


class TaskError(InputError):
    """A container that has failed, told as Kubeflow would: task, code, last lines.

    Args:
        message: Which task, how, and where its log is.
        lines: The last of the log.
    """

    def __init__(self, message: str, lines: str) -> None:
        super().__init__(message)
        self.args = (f"{self}\n{visible(lines)}",)


@dataclasses.dataclass(frozen=True)
class Specification:
    """A compiled pipeline.

    Attributes:
        name: The pipeline's name.
        root: Folder for artifacts, if the specification names one.
        parameters: What can be set, with type and default.
        components: Interfaces, by name.
        executors: What runs, by label.
        tasks: What is done with which inputs, by name.
    """

    name: str
    root: str
    parameters: dict[str, dict[str, Any]]
    components: dict[str, dict[str, Any]]
    executors: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Specification:
        """Reads what `langzoo compile` has written.

        Raises:
            InputError: Where the file is no specification of a pipeline.
        """
        try:
            # JSON is YAML; what only Kubernetes knows is in a second document.
            content = next(yaml.safe_load_all(path.read_text(encoding="utf-8")), None)
            if not isinstance(content, dict):
                raise ValueError("it must hold keys and values")
            content = content.get("pipelineSpec", content)
            proto = pipeline_spec_pb2.PipelineSpec()
            json_format.ParseDict(content, proto)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, yaml.YAMLError, json_format.Error) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path} is no specification of a pipeline, as `langzoo compile` "
                f"writes it: {reason}"
            ) from error
        parsed = json_format.MessageToDict(proto)
        root = parsed.get("root", {})
        if not root.get("dag"):
            raise InputError(f"{path} has no tasks: `langzoo compile` writes some")
        return cls(
            name=parsed["pipelineInfo"]["name"],
            root=parsed.get("defaultPipelineRoot", ""),
            parameters=root.get("inputDefinitions", {}).get("parameters", {}),
            components=parsed["components"],
            executors=parsed["deploymentSpec"]["executors"],
            tasks=root["dag"]["tasks"],
        )

    def order(self) -> graphlib.TopologicalSorter[str]:
        """Names of the tasks, each after those that it needs."""
        graph = {name: self._needed(task) for name, task in self.tasks.items()}
        return graphlib.TopologicalSorter(graph)

    def _needed(self, task: dict[str, Any]) -> list[str]:
        artifacts = task.get("inputs", {}).get("artifacts", {}).values()
        producers = [one["taskOutputArtifact"]["producerTask"] for one in artifacts]
        return [*task.get("dependentTasks", []), *producers]

    def executor(self, task: str) -> dict[str, Any]:
        """What runs for a task."""
        component = self.components[self.tasks[task]["componentRef"]["name"]]
        return self.executors[component["executorLabel"]]

    def values(self, settings: Sequence[str]) -> dict[str, Any]:
        """The parameters' values.

        Args:
            settings: Those that are not the defaults, as `NAME=VALUE`.

        Raises:
            InputError: Where there is no such parameter, it cannot have the value, or
                one without a default has none.
        """
        values = {
            name: parameter["defaultValue"]
            for name, parameter in self.parameters.items()
            if "defaultValue" in parameter
        }
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals or name not in self.parameters:
                raise InputError(
                    f"--set {setting}: write NAME=VALUE, of "
                    f"{', '.join(sorted(self.parameters)) or 'no parameter'}"
                )
            kind, parse = _TYPES[self.parameters[name]["parameterType"]]
            try:
                values[name] = parse(text)
            except ValueError:
                raise InputError(
                    f"--set {setting}: {text!r} is not {kind}, which {name} is"
                ) from None
        missing = sorted(self.parameters.keys() - values.keys())
        if missing:
            raise InputError(f"--set is needed for {', '.join(missing)}")
        return values


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal did.

    Attributes:
        folder: Where logs, inputs and outputs of each task are; its artifacts, too,
            unless the root is an object store.
        outputs: Artifacts of each task by key, as RuntimeArtifact's JSON.
        resources: What each task took that was not cached, all its attempts together.
    """

    folder: Path
    outputs: dict[str, dict[str, dict[str, Any]]]
    resources: dict[str, Resources]

    def uri(self, task: str, key: str) -> str:
        """Folder of an artifact."""
        uri: str = self.outputs[task][key]["uri"]
        return uri

    def metadata(self, task: str, key: str) -> dict[str, Any]:
        """What a task said of an artifact."""
        metadata: dict[str, Any] = self.outputs[task][key].get("metadata", {})
        return metadata


def rehearse(
    path: Path,
    settings: Sequence[str] = (),
    root: str | None = None,
    show: Callable[[str], None] = print,
) -> Rehearsal:
    """Executes a compiled pipeline.

    As on a cluster, tasks of which none needs the other run at once: as many as this
    machine has cores. What each took is in `RESOURCES_FILE` of the rehearsal's folder,
    too.

    Args:
        path: The specification.
        settings: Parameters as `NAME=VALUE`.
        root: Folder or object store for artifacts; by default the specification's.
            Where it is a store, what else is written goes into a folder beside `path`,
            with the name of the pipeline.
        show: Is told of every task.

    Raises:
        TaskError: Where a container fails, as often as it may be retried.
        InputError: Where the specification, a parameter or the root cannot be used, or
            a task is of a kind that the open-source backend does not run.
    """
    specification = Specification.read(path)
    values = specification.values(settings)
    _require_containers(specification)
    run_id = f"rehearsal-{datetime.datetime.now():%Y-%m-%dT%H-%M-%S-%f}"
    root = root or specification.root
    is_remote = storage.is_remote(root)
    if not root or (is_remote and not root.startswith("gs://")):
        raise InputError(
            f"the root {root!r} is neither a folder of this machine nor of gs://: give "
            "one with --root"
        )
    parent = path.parent if is_remote else Path(root)
    folder = _new_folder(parent / specification.name / run_id)
    below = f"{root.rstrip('/')}/{specification.name}/{run_id}"
    artifacts = below if is_remote else str(folder)
    return _run_tasks(specification, values, folder, artifacts, show)


def _run_tasks(
    specification: Specification,
    values: Mapping[str, Any],
    folder: Path,
    artifacts: str,
    show: Callable[[str], None],
) -> Rehearsal:
    """Runs every task when those that it needs have ended."""
    outputs: dict[str, dict[str, dict[str, Any]]] = {}
    resources: dict[str, Resources] = {}
    ending = threading.Event()

    def run(name: str) -> _Task:
        task = _Task(specification, name, folder, artifacts, ending)
        try:
            outputs[name] = task.run(values, outputs)
        finally:
            if not task.cached:
                resources[name] = task.resources
        return task

    order = specification.order()
    order.prepare()
    running: dict[futures.Future[_Task], str] = {}
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            while order.is_active():
                running |= {pool.submit(run, name): name for name in order.get_ready()}
                ended, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                for one in ended:
                    _write_resources(folder, dict(resources))
                    task, name = one.result(), running.pop(one)
                    seconds = f"{task.resources.wall_seconds:.0f} s"
                    show(f"{name}  {'cached' if task.cached else seconds}")
                    order.done(name)
        except BaseException:  # An interrupt, too, is one of the containers as well.
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Rehearsal(folder, outputs, resources)


def _new_folder(folder: Path) -> Path:
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


def _require_containers(specification: Specification) -> None:
    for name in specification.tasks:
        (kind,) = specification.executor(name)
        if kind != "container":
            raise InputError(
                f"task {name} is a {kind}, not a container: the open-source Kubeflow "
                "Pipelines do not run it here, or at all"
            )
        if "lifecycle" in specification.executor(name)["container"]:
            raise InputError(
                f"task {name} needs a driver, which the open-source Kubeflow Pipelines "
                "do not run"
            )


class _Task:
    """A task of a rehearsal.

    Args:
        specification: The pipeline.
        name: The task's name.
        folder: That of the rehearsal.
        artifacts: Folder or address below which artifacts are written.
        ending: Set once no container may be started any more.

    Attributes:
        cached: Whether its result came from the cache.
        resources: What its container took, all attempts together.
    """

    def __init__(
        self,
        specification: Specification,
        name: str,
        folder: Path,
        artifacts: str,
        ending: threading.Event,
    ) -> None:
        self._task = specification.tasks[name]
        component = self._task["componentRef"]["name"]
        self._interface = specification.components[component]
        self._container = specification.executor(name)["container"]
        self._name = name
        self._folder = folder / name
        self._artifacts = f"{artifacts}/{name}"
        self._ending = ending
        self.cached = False
        self.resources = Resources()

    def run(
        self,
        values: Mapping[str, Any],
        produced: Mapping[str, Mapping[str, dict[str, Any]]],
    ) -> dict[str, dict[str, Any]]:
        """Runs the container, or finds what it did; returns its output artifacts."""
        told = self._executor_input(values, produced)
        remembered = self._remembered(told)
        if remembered and remembered.exists():
            self.cached = True
            outputs: dict[str, dict[str, Any]] = json.loads(remembered.read_text())
            return outputs
        self._folder.mkdir()
        _write_json(self._folder / "executor_input.json", told)
        outputs = self._run_container(told)
        if remembered:
            remembered.parent.mkdir(exist_ok=True)
            _write_json(remembered, outputs)
        return outputs

    def _remembered(self, told: dict[str, Any]) -> Path | None:
        """File with the result of the same container on the same inputs.

        None where the task is not cached.
        """
        if not self._task.get("cachingOptions", {}).get("enableCache"):
            return None
        asked = [self._container, told["inputs"], sorted(self._interface)]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self._folder.parent.parent / "cache" / f"{digest}.json"

    def _run_container(self, told: dict[str, Any]) -> dict[str, dict[str, Any]]:
        command = self._command(told)
        log = self._folder / "log.txt"
        allowed = 1 + self._task.get("retryPolicy", {}).get("maxRetryCount", 0)
        attempts = status = 0
        while not attempts or (attempts < allowed and not self._ending.is_set()):
            status = self._execute(command, log)
            if not status:
                return self._outputs(told)
            attempts += 1
        with log.open(errors="replace") as lines:
            last = "".join(collections.deque(lines, _LINES_SHOWN)).rstrip()
        raise TaskError(
            f"task {self._name} failed: exit code {status}, {attempts} attempt(s), all "
            f"that it wrote is in {log}, which ends",
            last,
        )

    def _execute(self, command: list[str], log: Path) -> int:
        variables = {
            one["name"]: one["value"] for one in self._container.get("env", [])
        }
        binaries = os.path.dirname(sys.executable)
        # This process has set what a container must be told.
        inherited = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
        environment = {
            **inherited,
            # Of what is in an image, `python` is this one.
            "PATH": f"{binaries}{os.pathsep}{inherited.get('PATH', os.defpath)}",
            **variables,
        }
        with log.open("ab") as file:
            status, took = run_measured(
                command,
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.resources += took
        return status

    def _executor_input(
        self,
        values: Mapping[str, Any],
        produced: Mapping[str, Mapping[str, dict[str, Any]]],
    ) -> dict[str, Any]:
        inputs = self._task.get("inputs", {})
        own = self._interface.get("outputDefinitions", {}).get("artifacts", {})
        logs = {"artifactType": {"schemaTitle": "system.Artifact"}}
        outputs = {**own, _LOGS: logs}
        parameters = {
            name: self._value(source, values)
            for name, source in inputs.get("parameters", {}).items()
        }
        artifacts = {}
        for name, source in inputs.get("artifacts", {}).items():
            origin = source["taskOutputArtifact"]
            artifact = produced[origin["producerTask"]][origin["outputArtifactKey"]]
            # The backend has lost the type ("figure out how to get schema").
            handed_on = {**artifact, "type": {"instanceSchema": ""}}
            artifacts[name] = {"artifacts": [handed_on]}
        content = {
            "inputs": {"parameterValues": parameters, "artifacts": artifacts},
            "outputs": {
                "artifacts": {
                    name: {"artifacts": [self._fresh_artifact(name, definition)]}
                    for name, definition in outputs.items()
                },
                "outputFile": str(self._folder / "executor_output.json"),
            },
        }
        told = pipeline_spec_pb2.ExecutorInput()
        json_format.ParseDict(content, told)
        return json_format.MessageToDict(told)

    def _value(self, source: dict[str, Any], values: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in source:
            return values[source["componentInputParameter"]]
        return source["runtimeValue"]["constant"]

    def _fresh_artifact(self, key: str, definition: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": f"{self._folder.parent.name}/{self._name}/{key}",
            "type": definition["artifactType"],
            "uri": f"{self._artifacts}/{key}",
            "metadata": definition.get("metadata", {}),
        }

    def _command(self, told: dict[str, Any]) -> list[str]:
        """The command, with all that stands for something replaced.

        As in Kubeflow's launcher, parameters are replaced after the whole input, so
        that they may stand within the values of others.
        """
        replacements = {"{{$}}": json.dumps(told)}
        for name, value in told["inputs"].get("parameterValues", {}).items():
            replacements[f"{{{{$.inputs.parameters['{name}']}}}}"] = _text(value)
        command = []
        for part in (
            *self._container.get("command", []),
            *self._container.get("args", []),
        ):
            for placeholder, replacement in replacements.items():
                part = part.replace(placeholder, replacement)
            command.append(part)
        return command

    def _outputs(self, told: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The artifacts that were asked for, with what the container said of them."""
        file = Path(told["outputs"]["outputFile"])
        said = json.loads(file.read_text()) if file.exists() else {}
        outputs = {}
        for key, asked in told["outputs"]["artifacts"].items():
            if key == _LOGS:
                continue
            (artifact,) = asked["artifacts"]
            (own,) = said.get("artifacts", {}).get(key, {}).get("artifacts") or [{}]
            metadata = {**artifact.get("metadata", {}), **own.get("metadata", {})}
            uri = own.get("uri") or artifact["uri"]
            outputs[key] = {**artifact, "uri": uri, "metadata": metadata}
        return outputs


def _text(value: Any) -> str:
    """A parameter's value where it stands in a text."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return value if isinstance(value, str) else json.dumps(value)


def _write_resources(folder: Path, resources: Mapping[str, Resources]) -> None:
    content = {name: dataclasses.asdict(took) for name, took in resources.items()}
    _write_json(folder / RESOURCES_FILE, content)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
