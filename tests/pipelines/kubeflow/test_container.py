"""What a container runs on Kubeflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import langzoo
from langzoo.pipelines.kubeflow import container

# What the driver of the open-source backend makes of a type that is no longer known.
LOST = {"instanceSchema": ""}
LOGS = {"schemaTitle": "system.Artifact"}
ADDRESS = "minio://mlpipeline/v2/artifacts"
# An executor that copies its only input.
COPIER = """
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio

class Copier(base_executor.BaseExecutor):
    def Do(self, inputs, outputs, properties):
        (given,), (made,) = inputs["given"], outputs["made"]
        fileio.makedirs(made.uri)
        fileio.copy(given.uri + "/file", made.uri + "/file")
        made.set_string_custom_property("found", given.uri)
"""


SCHEMA = {"instanceSchema": "title: tfx.Schema\ntype: object\n"}


def artifact(uri, kind):
    return {"artifacts": [{"name": "1", "uri": uri, "type": kind}]}


def test_artifacts_lie_on_the_volume_and_kubeflow_keeps_its_addresses(tmp_path):
    (tmp_path / "copier.py").write_text(COPIER)
    given, made = "demo/run/First/1/given", "demo/run/Second/2/made"
    (tmp_path / "volume" / given).mkdir(parents=True)
    (tmp_path / "volume" / given / "file").write_text("some text")
    told = {
        "inputs": {"artifacts": {"given": artifact(f"{ADDRESS}/{given}", LOST)}},
        "outputs": {
            "artifacts": {
                "made": artifact(f"{ADDRESS}/{made}", SCHEMA),
                "executor-logs": artifact(f"{ADDRESS}/logs", LOGS),
            },
            "outputFile": str(tmp_path / "outputs" / "said.json"),
        },
    }
    interface = {"artifacts": {"given": {"artifactType": SCHEMA}}}
    path = [str(tmp_path), str(Path(langzoo.__file__).parents[1])]
    subprocess.run(
        [
            *(sys.executable, "-m", container.__name__),
            *("--executor_class_path", "copier.Copier"),
            *("--json_serialized_invocation_args", json.dumps(told)),
            *("--json_serialized_inputs_spec_args", json.dumps(interface)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]),
            container.ARTIFACTS: f"{ADDRESS}={tmp_path / 'volume'}",
        },
        check=True,
    )
    assert (tmp_path / "volume" / made / "file").read_text() == "some text"
    said = json.loads((tmp_path / "outputs" / "said.json").read_text())
    (found,) = said["artifacts"]["made"]["artifacts"]
    assert found["uri"] == f"{ADDRESS}/{made}"
    assert found["metadata"]["found"] == str(tmp_path / "volume" / given)
