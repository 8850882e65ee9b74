"""The files of serving/deployment name what is there, in words their readers know.

Kubernetes' objects are checked against its own schemas, Compose's file against that of
the Compose specification. For KServe, and for what names what, no validator could be
installed, so that is written out here.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import langzoo
import pytest
import yaml
from google.protobuf import text_format
from langzoo.serving.client import Client
from langzoo.serving.server import ServerOptions
from langzoo.serving.server.config_files import (
    read_batching_parameters,
    read_metrics_path,
)
from langzoo.serving.server.flags import build_parser
from tensorflow_serving.config import model_server_config_pb2

ROOT = Path(langzoo.__file__).parent
FOLDER = ROOT / "serving" / "deployment"
CONFIG = FOLDER / "config"
COMPOSE = FOLDER / "compose" / "compose.yaml"
TARGETS = ("base", "overlays/gpu", "overlays/local")
# The oldest release that the manifests are kept to.
KUBERNETES = "1.32"
SERVING_VERSION = importlib.metadata.version("tensorflow-serving-api")

Object = dict[str, Any]


def read_yaml(path: Path) -> Any:
    """The only document of a file."""
    return yaml.safe_load(path.read_text())


def build(folder: Path) -> list[Object]:
    """The objects that `kubectl kustomize` makes of a folder, for the keys we use."""
    content = read_yaml(folder / "kustomization.yaml")
    assert (content.pop("apiVersion"), content.pop("kind")) == (
        "kustomize.config.k8s.io/v1beta1",
        "Kustomization",
    )
    objects = []
    for entry in content.pop("resources", ()):
        path = folder / entry
        objects += build(path) if path.is_dir() else _documents(path)
    for entry in content.pop("configMapGenerator", ()):
        data = {name: (folder / name).read_text() for name in entry.pop("files")}
        name = entry.pop("name")
        assert not entry
        metadata = {"name": name}
        objects.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
            | {"data": data}
        )
    for entry in content.pop("patches", ()):
        for patch in _documents(folder / entry.pop("path")):
            _apply(patch, objects)
        assert not entry
    for entry in content.pop("images", ()):
        _rename_image(entry, objects)
    assert not content, f"{folder}: {list(content)} is not known to this test"
    return objects


def _documents(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text()))


def _key(content: Object) -> tuple[str, str, str]:
    return content["apiVersion"], content["kind"], content["metadata"]["name"]


def _apply(patch: Object, objects: list[Object]) -> None:
    """A strategic merge patch, as far as its rules are needed."""
    (place,) = (i for i, each in enumerate(objects) if _key(each) == _key(patch))
    if patch.get("$patch") == "delete":
        del objects[place]
    else:
        objects[place] = _merged(objects[place], patch)


def _merged(base: Any, patch: Any) -> Any:
    if isinstance(base, dict) and isinstance(patch, dict):
        common = {key: _merged(base[key], patch[key]) for key in base if key in patch}
        return base | patch | common
    if all(_named(items) for items in (base, patch)):
        ours = {item["name"]: item for item in base}
        theirs = {item["name"]: item for item in patch}
        return list(_merged(ours, theirs).values())
    return patch


def _named(items: Any) -> bool:
    return isinstance(items, list) and all(
        isinstance(item, dict) and "name" in item for item in items
    )


def _rename_image(entry: Object, objects: list[Object]) -> None:
    for content in _deployments(objects):
        for container in _pod(content)["containers"]:
            if container["image"] == entry["name"]:
                container["image"] = f"{entry['newName']}:{entry['newTag']}"


def _deployments(objects: list[Object]) -> Iterator[Object]:
    return (each for each in objects if each["kind"] == "Deployment")


def _pod(deployment: Object) -> Object:
    return deployment["spec"]["template"]["spec"]


def _pod_labels(deployment: Object) -> Object:
    return deployment["spec"]["template"]["metadata"]["labels"]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """A folder that is handed to `kubectl apply -k`."""
    return request.param


@pytest.fixture
def objects(target: str) -> list[Object]:
    """What the target is made of."""
    return build(FOLDER / "kubernetes" / target)


@pytest.fixture
def services() -> dict[str, Object]:
    """The services of Compose, by name."""
    return read_yaml(COMPOSE)["services"]


def _containers(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    for deployment in _deployments(objects):
        for container in _pod(deployment)["containers"]:
            yield _pod(deployment), container


# Kubernetes


def test_objects_keep_to_the_schemas_of_kubernetes(objects: list[Object]) -> None:
    for content in objects:
        kubernetes_validate.validate(content, KUBERNETES, strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_makes_the_same_objects(target: str, objects: list[Object]) -> None:
    output = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "kubernetes" / target)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # The ConfigMap's name ends in a hash of its content.
    output = re.sub(r"(langzoo-serving-config)-[a-z0-9]{10}\b", r"\1", output)
    made = {_key(content): content for content in yaml.safe_load_all(output)}

    assert made == {_key(content): content for content in objects}


def test_target_holds_server_gateway_and_tensorboard(objects: list[Object]) -> None:
    names = {_key(content)[1:] for content in objects}

    for name in ("langzoo-serving", "langzoo-gateway", "langzoo-tensorboard"):
        assert {("Deployment", name), ("Service", name)} <= names


def test_every_selector_finds_the_pods_of_one_deployment(objects: list[Object]) -> None:
    deployments = list(_deployments(objects))
    for content in objects:
        spec = content.get("spec", {})
        selector = spec.get("selector", {})
        selector = selector.get("matchLabels", selector)
        if not selector:
            assert content["kind"] not in ("Deployment", "Service")
            continue
        found = [d for d in deployments if selector.items() <= _pod_labels(d).items()]
        assert [d["metadata"]["name"] for d in found] == [content["metadata"]["name"]]


def test_every_service_leads_to_a_named_port(objects: list[Object]) -> None:
    ports = {
        deployment["metadata"]["name"]: {
            port["name"]
            for container in _pod(deployment)["containers"]
            for port in container["ports"]
        }
        for deployment in _deployments(objects)
    }
    for content in objects:
        if content["kind"] == "Service":
            for port in content["spec"]["ports"]:
                assert port["targetPort"] in ports[content["metadata"]["name"]]


def test_every_probe_asks_a_port_of_its_container(objects: list[Object]) -> None:
    for _, container in _containers(objects):
        named = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            kind = {"httpGet", "tcpSocket"} & set(container[probe])
            assert container[probe][kind.pop()]["port"] in named


def test_every_volume_is_mounted_and_exists(objects: list[Object]) -> None:
    names = {_key(content)[1:] for content in objects}
    for pod, container in _containers(objects):
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            config = volume.get("configMap")
            assert not claim or ("PersistentVolumeClaim", claim["claimName"]) in names
            assert not config or ("ConfigMap", config["name"]) in names


def test_policies_of_the_network_are_of_pods_and_ports_that_exist(
    objects: list[Object],
) -> None:
    pods = {d["metadata"]["name"]: d for d in _deployments(objects)}
    labels = [_pod_labels(pod).items() for pod in pods.values()]
    policies = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert {each["metadata"]["name"] for each in policies} == set(pods)
    for policy in policies:
        deployment = pods[policy["metadata"]["name"]]
        selector = policy["spec"]["podSelector"]["matchLabels"]
        assert selector.items() <= _pod_labels(deployment).items()
        containers = _pod(deployment)["containers"]
        named = {port["name"] for each in containers for port in each["ports"]}
        for rule in policy["spec"].get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= named
            for source in rule.get("from", []):
                if "namespaceSelector" not in source:
                    wanted = source["podSelector"]["matchLabels"]
                    assert any(wanted.items() <= each for each in labels)


def test_the_gateways_keys_are_where_it_looks(objects: list[Object]) -> None:
    ((pod, gateway),) = (
        (pod, each) for pod, each in _containers(objects) if each["name"] == "gateway"
    )
    (mount,) = (one for one in gateway["volumeMounts"] if one["name"] == "keys")
    (volume,) = (one for one in pod["volumes"] if one["name"] == "keys")
    (file,) = (one for one in gateway["args"] if one.startswith("--api-key-file="))
    folder, _, key = file.partition("=")[2].rpartition("/")
    assert mount["mountPath"] == folder
    readme = (FOLDER / "README.md").read_text()
    made = f"create secret generic {volume['secret']['secretName']} -n langzoo"
    assert f"{made} --from-literal={key}=" in readme


def test_autoscaler_scales_a_deployment_that_sets_no_replicas(
    objects: list[Object],
) -> None:
    scaled = {
        content["spec"]["scaleTargetRef"]["name"]
        for content in objects
        if content["kind"] == "HorizontalPodAutoscaler"
    }
    fixed = {
        content["metadata"]["name"]
        for content in _deployments(objects)
        if "replicas" in content["spec"]
    }

    assert not scaled & fixed
    assert scaled | fixed == {c["metadata"]["name"] for c in _deployments(objects)}


def test_pods_are_not_root_and_cannot_write(objects: list[Object]) -> None:
    for pod, container in _containers(objects):
        context = pod["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        _assert_hardened(container)
        for mount in container["volumeMounts"]:
            assert mount.get("readOnly") or mount["mountPath"] == "/tmp"


def _assert_hardened(container: Object) -> None:
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]


def test_pod_has_time_to_end(objects: list[Object]) -> None:
    for pod, container in _containers(objects):
        command = container.get("lifecycle", {"preStop": {"exec": {"command": [0]}}})
        before = int(command["preStop"]["exec"]["command"][-1])
        assert pod["terminationGracePeriodSeconds"] >= before + 5


def test_gpu_overlay_asks_for_a_card_and_the_image_for_it() -> None:
    server = _server_container(build(FOLDER / "kubernetes" / "overlays" / "gpu"))

    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert server["image"] == f"tensorflow/serving:{SERVING_VERSION}-gpu"


def _server_container(objects: list[Object]) -> Object:
    (server,) = (c for _, c in _containers(objects) if c["name"] == SERVER)
    return server


# What is asked of the server and of the gateway, in each place

SERVER = "tensorflow-serving"


def _server_commands() -> Iterator[tuple[str, list[str], dict[str, Path]]]:
    """Place, arguments, and where the folders that they name are mounted from."""
    for target in TARGETS:
        arguments = _server_container(build(FOLDER / "kubernetes" / target))["args"]
        yield target, arguments, {"/config": CONFIG}
    service = read_yaml(COMPOSE)["services"][SERVER]
    sources = dict(_mounts(service))
    yield "compose", service["command"], {"/config": sources["/config"]}


def _mounts(service: Object) -> Iterator[tuple[str, Path]]:
    """Target and source of the folders and files that a service gets."""
    for volume in service.get("volumes", ()):
        source, target, *_ = volume.rsplit(":", 2)
        if source.startswith("."):
            yield target, (COMPOSE.parent / source).resolve()


@pytest.mark.parametrize(
    ("place", "arguments", "folders"),
    [pytest.param(*each, id=each[0]) for each in _server_commands()],
)
def test_server_knows_its_flags_and_finds_its_files(
    place: str, arguments: list[str], folders: dict[str, Path]
) -> None:
    options = build_parser("tensorflow_model_server").parse_args(arguments)

    assert (options.port, options.rest_api_port) == (8500, 8501)
    for path in (
        options.model_config_file,
        options.batching_parameters_file,
        options.monitoring_config_file,
    ):
        folder, _, name = path.rpartition("/")
        assert (folders[folder] / name).is_file()


def _images() -> set[str]:
    images = {s["image"] for s in read_yaml(COMPOSE)["services"].values()}
    for target in TARGETS:
        objects = build(FOLDER / "kubernetes" / target)
        images |= {container["image"] for _, container in _containers(objects)}
    return images


def test_serving_is_everywhere_the_version_of_its_protocol() -> None:
    runtime = read_yaml(FOLDER / "kserve" / "inference-service.yaml")
    version = runtime["spec"]["predictor"]["model"]["runtimeVersion"]
    tags = {i.partition(":")[2] for i in _images() if i.startswith("tensorflow/")}

    assert version == SERVING_VERSION
    assert tags == {SERVING_VERSION, f"{SERVING_VERSION}-gpu"}


def test_our_image_is_everywhere_of_this_version() -> None:
    tags = {re.sub(r"\$\{\w+:-(.*)\}", r"\1", image) for image in _images()}

    ours = {tag for tag in tags if tag.startswith("langzoo")}
    assert ours == {f"langzoo:{langzoo.__version__}"}
    assert f"langzoo:{langzoo.__version__} " in (ROOT / "Dockerfile").read_text()


def _gateway_commands() -> Iterator[tuple[str, list[str]]]:
    objects = build(FOLDER / "kubernetes" / "base")
    (gateway,) = (c for _, c in _containers(objects) if c["name"] == "gateway")
    yield "kubernetes", gateway["args"]
    yield "compose", read_yaml(COMPOSE)["services"]["gateway"]["command"]


@pytest.mark.parametrize(("place", "arguments"), list(_gateway_commands()))
def test_gateway_knows_its_options(place: str, arguments: list[str]) -> None:
    import typer
    from langzoo.cli import app

    name, *options = arguments
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if name not in commands:
        pytest.skip("langzoo gateway is not there yet")
    known = {option for p in commands[name].params for option in p.opts}

    assert {option.partition("=")[0] for option in options} <= known


def test_gateway_asks_the_server_for_a_model_it_has(
    services: dict[str, Object],
) -> None:
    objects = build(FOLDER / "kubernetes" / "base")
    servers = {"kubernetes": "langzoo-serving:8500", "compose": f"{SERVER}:8500"}

    assert ("Service", "langzoo-serving") in {_key(content)[1:] for content in objects}
    assert SERVER in services
    for place, arguments in _gateway_commands():
        assert f"--server={servers[place]}" in arguments
        assert f"--model={_model().name}" in arguments


# The server's own files


def _model() -> model_server_config_pb2.ModelConfig:
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((CONFIG / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    return model


def test_push_folder_is_mounted_where_the_model_is_looked_for(
    services: dict[str, Object],
) -> None:
    base_path = _model().base_path
    mounted = {
        mount["mountPath"]
        for target in TARGETS
        for mount in _server_container(build(FOLDER / "kubernetes" / target))[
            "volumeMounts"
        ]
        if mount["name"] == "models"
    }
    pushed, *_ = services[SERVER]["volumes"]

    assert mounted == {base_path}
    assert pushed.startswith("${PUSH_FOLDER:?")
    assert pushed.endswith(f":{base_path}:ro")


def test_what_a_client_asks_at_once_runs_in_one_batch(
    tmp_path: Path, telling_model: Path, push: Any, serve: Any
) -> None:
    # The answers have as many columns as the longest in a batch, so that those of a
    # request in pieces could not be joined.
    batching = read_batching_parameters(str(CONFIG / "batching.config"))
    push(telling_model, tmp_path, 1)
    with (
        serve(tmp_path, options=ServerOptions(batching=batching)) as server,
        Client(server.grpc_address) as client,
    ):
        texts = ["a" * length for length in range(1, client.batch_size + 1)]
        scores = client.token_scores(texts)
        assert [len(score.tokens) for score in scores] == [
            len(text) + 1 for text in texts
        ]


def test_metrics_are_where_prometheus_looks() -> None:
    path = read_metrics_path(str(CONFIG / "monitoring.config"), "/")
    prometheus = read_yaml(FOLDER / "monitoring" / "prometheus.yaml")
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    annotations = {
        deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
        for deployment in _deployments(build(FOLDER / "kubernetes" / "base"))
        if deployment["metadata"]["name"] == "langzoo-serving"
    }

    assert jobs[SERVER]["metrics_path"] == path
    assert annotations == {path}


# Compose


def test_compose_file_keeps_to_the_specification() -> None:
    schema = "vendor.compose-spec"
    result = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, COMPOSE],
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stdout


def test_compose_mounts_files_that_exist(services: dict[str, Object]) -> None:
    mounts = [mount for service in services.values() for mount in _mounts(service)]

    assert len(mounts) == 6
    for _, source in mounts:
        assert source.exists()


def test_compose_names_services_and_volumes_that_exist() -> None:
    content = read_yaml(COMPOSE)
    for service in content["services"].values():
        assert set(service.get("depends_on", ())) <= set(content["services"])
        for volume in service.get("volumes", ()):
            source = volume.rsplit(":", 2)[0].partition(":")[0]
            assert source[0] in "./$" or source in content["volumes"]


def test_compose_opens_ports_of_this_machine_only(services: dict[str, Object]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]

    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)


def test_compose_starts_the_server_alone_by_default(
    services: dict[str, Object],
) -> None:
    profiles = {name: service.get("profiles") for name, service in services.items()}

    assert profiles == {
        SERVER: None,
        "gateway": ["gateway"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
        "cadvisor": ["monitoring"],
    }


def test_compose_services_cannot_write(services: dict[str, Object]) -> None:
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert services[SERVER]["user"].split(":")[0] not in ("0", "root")


def test_prometheus_scrapes_ports_of_services(services: dict[str, Object]) -> None:
    prometheus = read_yaml(FOLDER / "monitoring" / "prometheus.yaml")
    hosts = set()
    for job in prometheus["scrape_configs"]:
        for found in job.get("static_configs", ()):
            hosts |= {target.partition(":")[0] for target in found["targets"]}
        for found in job.get("dns_sd_configs", ()):
            hosts |= set(found["names"])

    assert hosts == {SERVER, "gateway", "cadvisor"}
    assert hosts <= set(services)


# KServe

# The keys of v1beta1 that are used, beside those of a container.
_SERVICE_KEYS = {
    "predictor": {
        "minReplicas": int,
        "maxReplicas": int,
        "scaleMetric": str,
        "scaleTarget": int,
        "timeout": int,
        "model": dict,
    },
    "model": {
        "modelFormat": dict,
        "protocolVersion": str,
        "runtime": str,
        "runtimeVersion": str,
        "storageUri": str,
    },
}
# What KServe's own runtime starts TensorFlow Serving with.
_RUNTIME_ARGUMENTS = [
    "--model_name=langzoo",
    "--port=9000",
    "--rest_api_port=8080",
    "--model_base_path=/mnt/models",
    "--rest_api_timeout_in_ms=60000",
]


@pytest.fixture
def predictor() -> Object:
    """The predictor of the InferenceService."""
    content = read_yaml(FOLDER / "kserve" / "inference-service.yaml")
    assert set(content) == {"apiVersion", "kind", "metadata", "spec"}
    assert content["apiVersion"] == "serving.kserve.io/v1beta1"
    assert content["kind"] == "InferenceService"
    assert set(content["spec"]) == {"predictor"}
    assert content["metadata"]["name"] == _model().name
    return content["spec"]["predictor"]


def test_inference_service_has_keys_that_kserve_knows(predictor: Object) -> None:
    model = predictor["model"]
    for key, kind in _SERVICE_KEYS["predictor"].items():
        assert isinstance(predictor[key], kind)
    assert set(predictor) == set(_SERVICE_KEYS["predictor"])
    for key, kind in _SERVICE_KEYS["model"].items():
        assert isinstance(model.pop(key), kind)
    # The rest of a model is a container.
    pod = {"containers": [{"name": "kserve-container", "image": "x", **model}]}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod},
        KUBERNETES,
        strict=True,
    )


def test_inference_service_is_hardened(predictor: Object) -> None:
    _assert_hardened(predictor["model"])
    assert predictor["model"]["securityContext"]["runAsNonRoot"]


def test_inference_service_serves_the_push_folder(predictor: Object) -> None:
    claims = {
        content["metadata"]["name"]
        for content in _documents(FOLDER / "kubernetes" / "base" / "storage.yaml")
    }
    scheme, _, claim = predictor["model"]["storageUri"].partition("://")

    assert scheme == "pvc"
    assert claim in claims


def test_server_knows_the_flags_of_the_inference_service(predictor: Object) -> None:
    arguments = _RUNTIME_ARGUMENTS + predictor["model"]["args"]
    options = build_parser("tensorflow_model_server").parse_args(arguments)

    for probe in ("readinessProbe", "livenessProbe"):
        kind = {"httpGet", "tcpSocket"} & set(predictor["model"][probe])
        port = predictor["model"][probe][kind.pop()]["port"]
        assert port == options.rest_api_port


# The README


def test_readme_names_files_that_exist() -> None:
    text = (FOLDER / "README.md").read_text()
    paths = set(re.findall(r"serving/deployment/[\w./-]*\w", text))

    assert len(paths) > 5
    assert all((ROOT / path).exists() for path in paths)
    links = re.findall(r"\]\((\w+)\)", text)
    assert all((FOLDER / link).is_dir() for link in links)
    overlays = set(re.findall(r"\boverlays/[\w-]+", text))
    assert overlays == {target for target in TARGETS if "/" in target}
