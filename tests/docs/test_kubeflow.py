"""The commands, keys and names of the guide to Kubeflow are those that there are."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from pathlib import Path

import kubernetes_validate
import langzoo
import pytest
import typer
import yaml
from kfp import components
from kfp.cli import cli as kfp_cli
from langzoo import cli
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow import container
from langzoo.pipelines.kubeflow.compiler import compile_pipeline

ROOT = Path(langzoo.__file__).parent
GUIDE = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
BASE = ROOT / "serving" / "deployment" / "kubernetes" / "base"
KUBERNETES = "1.32"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


COMMANDS = [
    words
    for line in "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    if (words := shlex.split(line, comments=True))
]
# What runs in the pod of the tools is a command of ours as well.
LANGZOO = [
    words[words.index("langzoo") + 1 :] for words in COMMANDS if "langzoo" in words
]
KFP = [words[1:] for words in COMMANDS if words[0] == "kfp"]
YAML = [yaml.safe_load(block) for block in blocks("yaml")]
OBJECTS = [content for content in YAML if "apiVersion" in content]
(COMPLETE,) = (content for content in YAML if "name" in content)
SECTIONS = [one for one in YAML if one not in OBJECTS and one is not COMPLETE]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the files that the guide has made."""
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(COMPLETE))
    for name in ("pipeline.yaml", "rehearsal.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(command, words):
    """The values that a click command finds in words, which it must accept."""
    with command.make_context(words[0], words[1:]) as context:
        return context.params


def kfp_values(words):
    group, *rest = words
    return parsed(kfp_cli.cli.get_command(None, group).commands[rest[0]], rest)


def compile_commands():
    return [words for words in LANGZOO if words[0] == "compile"]


def settings_of(words):
    return [words[i + 1] for i, word in enumerate(words) if word == "--set"]


@pytest.mark.parametrize("words", KFP, ids=" ".join)
def test_kfp_knows_its_commands(words, folder):
    kfp_values(words)


@pytest.mark.parametrize("words", LANGZOO, ids=" ".join)
def test_langzoo_knows_its_commands(words, folder):
    parsed(typer.main.get_command(cli.app).commands[words[0]], words)
    if words[0] != "rehearse":
        loading.load(folder / "my.yaml", settings_of(words))


def test_every_command_is_of_a_known_program():
    programs = {words[0] for words in COMMANDS}
    assert programs == {"docker", "export", "kfp", "kubectl", "langzoo", "sed"}


def test_kubeflow_is_that_of_the_sdk():
    assert f"PIPELINE_VERSION={importlib.metadata.version('kfp')}\n" in GUIDE


@pytest.fixture(scope="module")
def specification(tmp_path_factory):
    path = tmp_path_factory.mktemp("guide")
    (path / "my.yaml").write_text(yaml.safe_dump(COMPLETE))
    compile_pipeline(loading.load(path / "my.yaml"), path / "pipeline.yaml")
    return path / "pipeline.yaml"


def test_runs_are_given_parameters_of_the_pipeline(specification, folder):
    loaded = components.load_component_from_file(str(specification))
    kinds = {name: one.type for name, one in loaded.component_spec.inputs.items()}
    for words in KFP:
        given = dict(one.split("=", 1) for one in kfp_values(words).get("args") or ())
        assert given.keys() <= kinds.keys()
        if words[0] == "recurring-run":
            # It sends text, and the server takes none for a number.
            assert {kinds[name] for name in given} <= {"String"}


def test_the_schedule_is_enabled_and_of_six_fields(folder):
    (words,) = (w for w in KFP if w[:2] == ["recurring-run", "create"])
    values = kfp_values(words)
    assert values["enabled"]
    assert values["max_concurrency"] == 1
    assert len(values["cron_expression"].split()) == 6


def test_the_compiled_pipeline_mounts_what_the_manifests_claim(specification):
    documents = list(yaml.safe_load_all(specification.read_text()))
    placed = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    names = {(one["kind"], one["metadata"]["name"]) for one in manifests()}
    for entry in placed.values():
        mounted = {one["constant"]: one["mountPath"] for one in entry["pvcMount"]}
        assert mounted == {"langzoo-runs": "/runs", "langzoo-models": "/models"}
        assert {("PersistentVolumeClaim", claim) for claim in mounted} <= names
    variables = documents[0]["deploymentSpec"]["executors"]["Trainer_executor"]
    where = {one["name"]: one["value"] for one in variables["container"]["env"]}
    assert where[container.ARTIFACTS].endswith("=/runs/demo/artifacts")


def manifests():
    return [
        content
        for path in BASE.glob("*.yaml")
        for content in yaml.safe_load_all(path.read_text())
        if "metadata" in content
    ]


@pytest.mark.parametrize("content", OBJECTS, ids=lambda content: content["kind"])
def test_objects_keep_to_the_schemas_of_kubernetes(content):
    kubernetes_validate.validate(content, KUBERNETES, strict=True)


@pytest.mark.parametrize("content", SECTIONS, ids=str)
def test_sections_are_accepted_by_the_configuration(content, tmp_path):
    merged = {key: {**COMPLETE.get(key, {}), **value} for key, value in content.items()}
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(COMPLETE))
    complete = loading.load(path).kubeflow.of("Trainer")
    path.write_text(yaml.safe_dump({**COMPLETE, **merged}))
    assert loading.load(path).kubeflow.of("Trainer") != complete


def test_services_and_deployments_are_in_the_manifests():
    named = set(re.findall(r"\b(service|deployment)/(langzoo-\w+)", GUIDE))
    names = {(one["kind"].lower(), one["metadata"]["name"]) for one in manifests()}
    assert named
    assert named <= names


def test_the_image_is_one_and_the_manifests_take_it():
    tags = set(re.findall(r"registry\.example\.com/langzoo:([\w.-]+\w)", GUIDE))
    assert tags == {langzoo.__version__, f"{langzoo.__version__}-gpu"}
    (edit, path) = next(words[-2:] for words in COMMANDS if words[0] == "sed")
    old, new = re.fullmatch(r"s\|(.*)\|(.*)\|", edit).groups()
    content = yaml.safe_load((ROOT / path).read_text().replace(old, new))
    (image,) = content["images"]
    assert f"{image['newName']}:{image['newTag']}" == COMPLETE["kubeflow"]["image"]


def test_the_paths_are_those_of_the_repository():
    paths = re.findall(r"\b(?:serving|pipelines|tests|docker)/[\w./-]*\w", GUIDE)
    own = [path for path in paths if not path.startswith("pipelines/manifests")]
    assert own
    for path in own:
        assert (ROOT / path).exists(), path
    for words in COMMANDS:
        if "-k" in words and "github.com" not in words[words.index("-k") + 1]:
            target = ROOT / words[words.index("-k") + 1]
            assert (target / "kustomization.yaml").exists()
