"""Options of Beam's: what runs the Beam components, checked before anything starts.

Importing this module imports no Beam, whose own checks come when a component starts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from ...models.settings import redacted
from .kubeflow import is_secret

LOCALLY = [
    # Beam's default runner looks for another one on the network first.
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    # Without an image TFX packs itself for workers elsewhere, in seconds a component.
    "--sdk_container_image=none",
]
_MODES = ("in_memory", "multi_threading", "multi_processing")
# Those that Beam knows by name and whose results are right; others go by their path.
_RUNNERS = (
    *("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner", "PrismRunner"),
    *("PortableRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"),
    *("SwitchingDirectRunner", "InteractiveRunner", "KafkaStreamsRunner"),
)
# What a runner has no default for.
_NEEDED = {
    "PortableRunner": {"job_endpoint": "HOST:PORT of a job service"},
    "DataflowRunner": {
        "project": "PROJECT_ID",
        "region": "REGION",
        "temp_location": "gs://BUCKET/FOLDER",
        "sdk_container_image": "IMAGE that holds this package",
    },
}
# Where the cluster is, and values that mean this machine.
_MASTERS = {
    "FlinkRunner": ("flink_master", r"\[(local|auto)\]"),
    "SparkRunner": ("spark_master_url", r"local(\[.+\])?"),
}
_WORKERS = ("sdk_container_image", "environment_type", "environment_config")


def checked(arguments: list[str]) -> list[str]:
    """Returns the options, with the runner of this machine where they name none.

    Args:
        arguments: As `--name=value`.

    Raises:
        ValueError: Naming the option, and what would be right.
    """
    for argument in arguments:
        if not re.match(r"--\w", argument):
            raise _refusal(f"{argument!r} is no option: write --name=value")
    options = dict(argument[2:].partition("=")[::2] for argument in arguments)
    for name, value in options.items():
        if is_secret(name) or redacted(value) != value:
            raise _refusal(
                f"--{name} looks like a secret, which every record of the run would "
                "show: give it as a variable of the environment"
            )
    _check_runner(options)
    _check_processes(options)
    return arguments if options.get("runner") else [*LOCALLY, *arguments]


def _refusal(text: str) -> ValueError:
    return ValueError(f"beam_pipeline_args: {text}")


def _check_runner(options: Mapping[str, str]) -> None:
    given = options.get("runner", "")
    runner = _known_name(given)
    if "DaskRunner" in runner:
        raise _refusal("DaskRunner loses records: take another")
    if runner not in _RUNNERS and "." not in given and given:
        close = difflib.get_close_matches(given, _RUNNERS, n=1)
        right = f"did you mean {close[0]}?" if close else ", ".join(_RUNNERS)
        raise _refusal(f"--runner {given!r} is not known: {right}")
    for name, value in _NEEDED.get(runner, {}).items():
        if not options.get(name):
            raise _refusal(f"{runner} needs --{name}={value}")
    if runner in _MASTERS:
        option, here = _MASTERS[runner]
        master = options.get(option)
        if master and not re.fullmatch(here, master):
            _check_workers(f"--{option}={master}", options)


def _known_name(given: str) -> str:
    """The runner's name, which Beam takes in any case, and without its last word."""
    last = given.rpartition(".")[2]
    names = {name.lower(): name for name in _RUNNERS}
    return names.get(last.lower()) or names.get(f"{last.lower()}runner", last)


def _check_workers(cluster: str, options: Mapping[str, str]) -> None:
    if not any(options.get(name) for name in _WORKERS):
        raise _refusal(
            f"workers of {cluster} need this package, which Beam's own image lacks: "
            "give --sdk_container_image, or --environment_type with "
            "--environment_config"
        )


def _check_processes(options: Mapping[str, str]) -> None:
    mode = options.get("direct_running_mode", _MODES[0])
    if mode not in _MODES:
        raise _refusal(
            f"--direct_running_mode {mode!r} is not known: it is one of "
            f"{', '.join(_MODES)}"
        )
    workers = options.get("direct_num_workers", "1")
    if not workers.isdecimal():
        raise _refusal(f"--direct_num_workers {workers!r} is no number")
    if mode == _MODES[0] and workers != "1":
        raise _refusal(
            f"--direct_num_workers={workers} needs "
            "--direct_running_mode=multi_processing"
        )
