"""The compiled pipeline, as the kfp SDK reads it."""

from __future__ import annotations

import json

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from langzoo.components.errors import InputError
from langzoo.components.evaluator.gate.baseline import BlessedRecord
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow.compiler import compile_pipeline

PLACED = """{
  memory_gb: 4, retries: 2, cache: true, environment: {A: a, B: b},
  volumes: {models: /models}, secrets: {s3: {AWS_ACCESS_KEY_ID: id}},
  trainer: {accelerator: nvidia.com/gpu, image: "langzoo:gpu", environment: {B: c},
            secrets: {s3: {AWS_SECRET_ACCESS_KEY: key}, hub: {HF_TOKEN: token}},
            node_selector: {pool: gpus}, tolerations: [{key: gpu, effect: NoSchedule}]},
}"""


@pytest.fixture(scope="module")
def specification(tmp_path_factory):
    path = tmp_path_factory.mktemp("kubeflow") / "pipeline.yaml"
    rules = "gate.rules=[{metric: bits_per_byte, against: ngram, significant: true}]"
    settings = ["root=gs://bucket/langzoo", "search={}", rules, f"kubeflow={PLACED}"]
    compile_pipeline(loading.load(settings=settings), path)
    return path


@pytest.fixture(scope="module")
def loaded(specification):
    """The specification and what Kubernetes is told besides, as the SDK has them."""
    pipeline = components.load_component_from_text(specification.read_text())
    return (
        json_format.MessageToDict(pipeline.pipeline_spec),
        json_format.MessageToDict(pipeline.platform_spec),
    )


def container(loaded, component):
    return loaded[0]["deploymentSpec"]["executors"][f"{component}_executor"][
        "container"
    ]


def test_the_kfp_sdk_loads_every_component(specification):
    pipeline = components.load_component_from_file(str(specification))
    tasks = set(pipeline.pipeline_spec.root.dag.tasks)
    assert tasks >= {
        "TextExampleGen",
        "StatisticsGen",
        "SchemaGen",
        "ExampleValidator",
        "TokenizerTrainer",
        "Transform",
        "Tuner",
        "Trainer",
        "NgramTrainer",
        "Evaluator",
        "ServingValidator",
        "Pusher",
    }


def test_the_training_waits_for_the_best_hyperparameters(specification):
    pipeline = components.load_component_from_file(str(specification))
    trainer = pipeline.pipeline_spec.root.dag.tasks["Trainer"]
    source = trainer.inputs.artifacts["hyperparameters"].task_output_artifact
    assert source.producer_task == "Tuner"
    assert source.output_artifact_key == "best_hyperparameters"


def test_the_rules_travel_with_the_evaluator(specification):
    pipeline = components.load_component_from_file(str(specification))
    evaluator = pipeline.pipeline_spec.root.dag.tasks["Evaluator"]
    settings = evaluator.inputs.parameters["settings"].runtime_value.constant
    assert '"against": "ngram"' in settings.string_value
    source = evaluator.inputs.artifacts["ngram_model"].task_output_artifact
    assert source.producer_task == "NgramTrainer"


def test_the_evaluator_knows_the_folder_that_the_pusher_pushes_to(loaded):
    tasks = loaded[0]["root"]["dag"]["tasks"]
    told = tasks["Evaluator"]["inputs"]["parameters"]["blessed_record"]
    # A truth value has no quotes, and is none before the run is started.
    accept = "{{$.inputs.parameters['accept_baseline']}}"
    record = told["runtimeValue"]["constant"].replace(f" {accept}", " true")
    assert BlessedRecord.parse(record).accept
    assert json.loads(record) == {
        "accept": True,
        "file": "gs://bucket/langzoo/demo/blessed.json",
        "push_folder": "{{$.inputs.parameters['push_folder']}}",
    }


def test_artifacts_lie_under_the_configured_root(specification):
    assert "gs://bucket/langzoo/demo" in specification.read_text()


def test_they_lie_on_a_volume_where_kubeflow_has_an_address_for_them(tmp_path):
    address, path = "minio://mlpipeline/v2/artifacts", tmp_path / "pipeline.yaml"
    settings = ["root=/runs", f"kubeflow.pipeline_root={address}"]
    compile_pipeline(loading.load(settings=settings), path)
    specification = yaml.safe_load(path.read_text())
    assert specification["defaultPipelineRoot"] == address
    for executor in specification["deploymentSpec"]["executors"].values():
        assert (
            "langzoo.pipelines.kubeflow.container" in executor["container"]["command"]
        )
        variables = {one["name"]: one["value"] for one in executor["container"]["env"]}
        assert variables["LANGZOO_ARTIFACTS"] == f"{address}=/runs/demo/artifacts"


def test_an_output_that_is_neither_yaml_nor_json_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.yaml or \.json"):
        compile_pipeline(loading.load(), tmp_path / "pipeline.txt")


def test_all_parameters_have_the_configured_values_as_defaults(loaded):
    parameters = loaded[0]["root"]["inputDefinitions"]["parameters"]
    demo = loading.load()
    assert {name: one["defaultValue"] for name, one in parameters.items()} == {
        "corpus": "demo",
        "steps": demo.trainer.steps,
        "max_bits_per_byte": demo.gate.max_bits_per_byte,
        "min_improvement": demo.gate.min_improvement,
        "accept_baseline": False,
        "push_folder": "gs://bucket/langzoo/demo/serving",
    }
    assert all(one["isOptional"] for one in parameters.values())


def test_there_is_nothing_that_the_open_source_backend_does_not_run(loaded):
    specification, _ = loaded
    for executor in specification["deploymentSpec"]["executors"].values():
        assert list(executor) == ["container"]
        assert "lifecycle" not in executor["container"]
    for task in specification["root"]["dag"]["tasks"].values():
        for parameter in task.get("inputs", {}).get("parameters", {}).values():
            # Of values it knows constants as of 2.1.
            value = parameter.get("runtimeValue", {"constant": ""})
            assert list(value) == ["constant"]


def test_a_component_is_placed_as_is_configured_for_it_or_for_all(loaded):
    _, platform = loaded
    trainer, pusher = container(loaded, "Trainer"), container(loaded, "Pusher")
    accelerator = trainer["resources"]["accelerator"]
    assert (accelerator["type"], accelerator["count"]) == ("nvidia.com/gpu", "1")
    assert "accelerator" not in pusher["resources"]
    assert trainer["image"] == "langzoo:gpu"
    assert pusher["image"].startswith("langzoo:")
    for one, value in ((trainer, "c"), (pusher, "b")):
        assert one["resources"]["memoryLimit"] == 4
        environment = {entry["name"]: entry["value"] for entry in one["env"]}
        assert environment["A"] == "a"
        assert environment["B"] == value
        # TFX is imported before this package, whose variables it must find.
        assert environment["TF_USE_LEGACY_KERAS"] == "0"
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    volumes = [{"constant": "models", "mountPath": "/models"}]
    store = {"secretKey": "id", "envVar": "AWS_ACCESS_KEY_ID"}
    of_all = {"secretName": "s3", "keyToEnv": [store]}
    assert placed["Pusher_executor"] == {"pvcMount": volumes, "secretAsEnv": [of_all]}
    own = {"secretKey": "key", "envVar": "AWS_SECRET_ACCESS_KEY"}
    hub = {"secretKey": "token", "envVar": "HF_TOKEN"}
    assert placed["Trainer_executor"] == {
        "pvcMount": volumes,
        "secretAsEnv": [
            {"secretName": "s3", "keyToEnv": [store, own]},
            {"secretName": "hub", "keyToEnv": [hub]},
        ],
        "nodeSelector": {"labels": {"pool": "gpus"}},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }


def test_every_task_is_retried_and_cached_but_the_evaluation_not_cached(loaded):
    for name, task in loaded[0]["root"]["dag"]["tasks"].items():
        assert task["retryPolicy"]["maxRetryCount"] == 2
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (name != "Evaluator")


def test_a_corpus_of_several_sources_is_no_parameter(tmp_path):
    path = tmp_path / "pipeline.json"
    sources = "corpus.sources=[{path: a.txt}, {path: b.txt}]"
    compile_pipeline(loading.load(settings=[sources]), path)
    specification = json.loads(path.read_text())["pipelineSpec"]
    assert "corpus" not in specification["root"]["inputDefinitions"]["parameters"]


def test_a_name_that_kubeflow_does_not_know_is_refused(tmp_path):
    with pytest.raises(InputError, match="name 'my_model' cannot be"):
        compile_pipeline(loading.load(settings=["name=my_model"]), tmp_path / "a.yaml")


def test_volumes_need_a_yaml_file(tmp_path):
    with pytest.raises(InputError, match=r"need a \.yaml file"):
        compile_pipeline(
            loading.load(settings=["kubeflow.volumes={models: /models}"]),
            tmp_path / "pipeline.json",
        )
