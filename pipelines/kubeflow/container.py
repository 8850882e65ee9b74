"""What a container on Kubeflow runs: TFX's executor, on artifacts on a volume.

Kubeflow names artifacts by addresses in its object store, never by paths. TFX reads
and writes at the addresses, where it knows such a store. With `ARTIFACTS` in the
environment it gets paths instead, and Kubeflow its addresses back; the store then holds
none of the files.

The open-source backend forgets the types of artifacts on their way from one container
to the next; the component's interface, which is among the arguments, knows them. And it
asks each container for one artifact more, `executor-logs`, which its launcher writes.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import importing

# ADDRESS=FOLDER: what lies under the address for Kubeflow, lies in the folder.
ARTIFACTS = "LANGZOO_ARTIFACTS"

_EXECUTOR = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
_INPUT = "--json_serialized_invocation_args"
_LOGS = "executor-logs"
_INTERFACE = "--json_serialized_inputs_spec_args"


def main() -> None:
    """Runs TFX's command with this one's arguments."""
    # For Beam's workers, as `-P` is for this process.
    os.environ["PYTHONSAFEPATH"] = "1"
    address, _, folder = os.environ.get(ARTIFACTS, "").partition("=")
    place = sys.argv.index(_INPUT) + 1
    told = json.loads(sys.argv[place])
    interface = json.loads(sys.argv[sys.argv.index(_INTERFACE) + 1])
    told["outputs"].get("artifacts", {}).pop(_LOGS, None)
    _restore_types(told.get("inputs", {}), interface)
    if folder:
        for side in ("inputs", "outputs"):
            _move(told.get(side, {}), address, folder)
    sys.argv[place] = json.dumps(told)
    with importing():
        importlib.import_module(_EXECUTOR)
    try:
        runpy.run_module(_EXECUTOR, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
    if folder:
        file = Path(told["outputs"]["outputFile"])
        said = json.loads(file.read_text(encoding="utf-8"))
        _move(said, folder, address)
        file.write_text(json.dumps(said), encoding="utf-8")


def _restore_types(inputs: Mapping[str, Any], interface: Mapping[str, Any]) -> None:
    for name, found in inputs.get("artifacts", {}).items():
        for artifact in found["artifacts"]:
            artifact["type"] = interface["artifacts"][name]["artifactType"]


def _move(content: Mapping[str, Any], old: str, new: str) -> None:
    """Has artifacts at another place, where they are at the old one."""
    for found in content.get("artifacts", {}).values():
        for artifact in found["artifacts"]:
            if artifact["uri"].startswith(f"{old}/"):
                artifact["uri"] = new + artifact["uri"].removeprefix(old)


if __name__ == "__main__":
    main()
