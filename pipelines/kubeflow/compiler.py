"""The same pipeline, compiled for Kubeflow Pipelines.

TFX writes the specification; what it has no word for is added here: parameters that can
be set for each run, and where each container runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from ... import ENVIRONMENT, __version__
from ...components.errors import InputError
from ...components.evaluator.gate import last_blessed
from ...components.text_example_gen.records import LastRun
from ...models.tasks import TASKS
from ...models.tasks.task import Task
from ..configuration.config import Config
from ..configuration.kubeflow import ContainerSettings
from ..pipeline import Choices, make_components
from . import container as entry

_IMAGE = f"langzoo:{__version__}"
_GIGABYTE = 10**9


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What can be set when a run is started.

    Attributes:
        name: Its name.
        type: That of its value, as the specification names it.
        description: What it is, for who starts a run.
        places: Where its value goes: a component, one of its properties, which holds
            JSON, and the way to the value in that.
    """

    name: str
    type: str
    description: str
    places: tuple[tuple[str, str, tuple[str | int, ...]], ...]

    @property
    def placeholder(self) -> str:
        """What stands for the value."""
        return f"{{{{$.inputs.parameters['{self.name}']}}}}"


_CORPUS = Parameter(
    "corpus",
    "STRING",
    "A file, a folder, a pattern or a dataset; demo: Python's own documentation.",
    (
        ("TextExampleGen", "sources", (0, "path")),
        ("Pusher", "custom_config", ("card", "sources", 0)),
    ),
)
_STEPS = Parameter(
    "steps",
    "NUMBER_INTEGER",
    "Updates of the weights.",
    (("Trainer", "custom_config", ("training", "steps")),),
)
_OTHERS = (
    Parameter(
        "accept_baseline",
        "BOOLEAN",
        "Whether a model is blessed though it be no better than the last blessed one.",
        (("Evaluator", "blessed_record", ("accept",)),),
    ),
    Parameter(
        "push_folder",
        "STRING",
        "Folder that the model server watches.",
        (
            ("Pusher", "push_destination", ("filesystem", "base_directory")),
            ("Evaluator", "blessed_record", ("push_folder",)),
        ),
    ),
)


def compile_pipeline(config: Config, output: Path) -> None:
    """Writes the pipeline as a Kubeflow Pipelines v2 specification.

    Args:
        config: The configuration. `root` and the push folder should lie on storage
            that all containers of the cluster reach.
        output: The file; `.yaml` or `.json`. JSON has no place for volumes, secrets,
            node selectors and tolerations.

    Raises:
        InputError: Where the file cannot be written, or what is configured cannot be
            written in it.
    """
    if output.suffix not in (".yaml", ".json"):
        raise InputError(f"{output}: the file's name must end in .yaml or .json")
    if "_" in config.name:
        raise InputError(
            f"name {config.name!r} cannot be one of Kubeflow's: take - in place of _"
        )
    job = _compiled(config)
    specification = job["pipelineSpec"]
    # Of several sources there is no one path to set.
    several = bool(config.corpus.sources)
    gated = _gated(TASKS[config.task])
    parameters = (*(() if several else (_CORPUS,)), _STEPS, *gated, *_OTHERS)
    for parameter in parameters:
        _add_parameter(specification, parameter)
    _unquote_numbers(specification, parameters)
    executors = specification["deploymentSpec"]["executors"]
    located = _located(config)
    for name, task in specification["root"]["dag"]["tasks"].items():
        container = executors[f"{name}_executor"]["container"]
        container["command"] = ["python", "-P", "-m", entry.__name__]
        _place(task, container, config.kubeflow.of(name), located)
    documents = [specification, *_platform(config, list(executors))]
    if output.suffix == ".json":
        if len(documents) > 1:
            raise InputError(
                f"{output}: volumes, secrets, node selectors and tolerations need a "
                ".yaml file"
            )
        text = json.dumps(job, sort_keys=True)
    else:
        text = yaml.safe_dump_all(documents)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from error


def _compiled(config: Config) -> dict[str, Any]:
    """TFX's own compilation, as a PipelineJob."""
    folder = config.checkpoint_root.rpartition("/")[0]
    pipeline = tfx_pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=f"{folder}/artifacts",
        components=make_components(
            config,
            # The cluster's files are not seen from here: there is no fingerprint.
            Choices(
                corpus=config.corpus,
                checkpoint_root=config.checkpoint_root,
                ingestion_record=f"{folder}/{LastRun.FILE}",
                watch=config.watch.model_dump(),
                # The open-source backend has no resolvers ("not implemented").
                blessed_record=f"{folder}/{last_blessed.FILE}",
            ),
        ),
        beam_pipeline_args=config.beam_pipeline_args,
    )
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        config=kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            display_name=config.name,
            default_image=_IMAGE,
            # Of constants the open-source backend knows only the form of 2.1.
            use_pipeline_spec_2_1=True,
        )
    )
    job: dict[str, Any] = runner.run(pipeline, write_out=False)
    own = config.kubeflow.pipeline_root
    job["pipelineSpec"]["defaultPipelineRoot"] = own or f"{folder}/artifacts"
    return job


def _located(config: Config) -> dict[str, str]:
    """Variables that say where artifacts are, if not where Kubeflow says."""
    address = config.kubeflow.pipeline_root
    if address is None:
        return {}
    folder = config.checkpoint_root.rpartition("/")[0]
    return {entry.ARTIFACTS: f"{address}={folder}/artifacts"}


def _gated(task: Task) -> tuple[Parameter, Parameter]:
    """The parameters of what models of a task are gated on."""
    return (
        Parameter(
            f"max_{task.metric}",
            "NUMBER_DOUBLE",
            "A model above it is refused.",
            (("Evaluator", "settings", ("rules", 0, "max")),),
        ),
        Parameter(
            "min_improvement",
            "NUMBER_DOUBLE",
            f"{task.words.capitalize()} that a model must be better than the last "
            "blessed one.",
            (("Evaluator", "settings", ("rules", 1, "margin")),),
        ),
    )


def _add_parameter(specification: dict[str, Any], parameter: Parameter) -> None:
    """Puts a placeholder in the place of a value in JSON; the value is the default.

    Kubeflow's launcher replaces placeholders of a task's inputs in the arguments of its
    container, those in the values of other inputs included.
    """
    default = None
    for component, key, way in parameter.places:
        inputs = specification["root"]["dag"]["tasks"][component]["inputs"]
        constant = inputs["parameters"][key]["runtimeValue"]
        content = json.loads(constant["constant"])
        if way[0] == "card" and not content["card"]:
            continue
        *path, last = way
        section = content
        for part in path:
            section = section[part]
        if default is None:
            default = section[last]
        section[last] = parameter.placeholder
        constant["constant"] = json.dumps(content, sort_keys=True)
        inputs["parameters"][parameter.name] = {
            "componentInputParameter": parameter.name
        }
        interface = specification["components"][component]["inputDefinitions"]
        interface["parameters"][parameter.name] = {"parameterType": parameter.type}
    definitions = specification["root"].setdefault("inputDefinitions", {})
    definitions.setdefault("parameters", {})[parameter.name] = {
        "parameterType": parameter.type,
        "defaultValue": default,
        "description": parameter.description,
        "isOptional": True,
    }


def _unquote_numbers(
    specification: dict[str, Any], parameters: Sequence[Parameter]
) -> None:
    """Takes the quotes from placeholders of no texts; what is left is no JSON yet."""
    for parameter in parameters:
        if parameter.type == "STRING":
            continue
        for component, key, _ in parameter.places:
            inputs = specification["root"]["dag"]["tasks"][component]["inputs"]
            constant = inputs["parameters"][key]["runtimeValue"]
            constant["constant"] = constant["constant"].replace(
                f'"{parameter.placeholder}"', parameter.placeholder
            )


def _place(
    task: dict[str, Any],
    container: dict[str, Any],
    wanted: ContainerSettings,
    located: dict[str, str],
) -> None:
    """Says where a container runs, and with what."""
    container["image"] = wanted.image or _IMAGE
    # TFX is imported before this package, which sets them too late for that.
    environment = {**ENVIRONMENT, **located, **wanted.environment}
    container["env"] = [
        {"name": name, "value": value} for name, value in environment.items()
    ]
    # Backends before 2.5 read the numbers, those after it the quantities.
    resources: dict[str, Any] = {}
    if wanted.cpu:
        resources |= {"cpuLimit": wanted.cpu, "resourceCpuLimit": f"{wanted.cpu:g}"}
    if wanted.memory_gb:
        size = f"{round(wanted.memory_gb * _GIGABYTE)}"
        resources |= {"memoryLimit": wanted.memory_gb, "resourceMemoryLimit": size}
    if wanted.accelerator:
        resources["accelerator"] = {
            "type": wanted.accelerator,
            "count": str(wanted.accelerator_count),
            "resourceType": wanted.accelerator,
            "resourceCount": str(wanted.accelerator_count),
        }
    if resources:
        container["resources"] = resources
    if wanted.retries:
        task["retryPolicy"] = {"maxRetryCount": wanted.retries}
    task["cachingOptions"] = {"enableCache": True} if wanted.cache else {}


def _platform(config: Config, executors: list[str]) -> Iterator[dict[str, Any]]:
    """What only Kubernetes knows: a document of its own, where there is any."""
    placed = {}
    for executor in executors:
        wanted = config.kubeflow.of(executor.removesuffix("_executor"))
        entry: dict[str, Any] = {}
        if config.kubeflow.volumes:
            entry["pvcMount"] = [
                {"constant": claim, "mountPath": path}
                for claim, path in config.kubeflow.volumes.items()
            ]
        if wanted.secrets:
            entry["secretAsEnv"] = [
                {
                    "secretName": secret,
                    "keyToEnv": [
                        {"secretKey": key, "envVar": variable}
                        for variable, key in keys.items()
                    ],
                }
                for secret, keys in wanted.secrets.items()
            ]
        if wanted.node_selector:
            entry["nodeSelector"] = {"labels": wanted.node_selector}
        if wanted.tolerations:
            entry["tolerations"] = [
                {
                    key: value
                    for key, value in toleration.model_dump(exclude_none=True).items()
                    if value
                }
                for toleration in wanted.tolerations
            ]
        if entry:
            placed[executor] = entry
    if placed:
        yield {"platforms": {"kubernetes": {"deploymentSpec": {"executors": placed}}}}
