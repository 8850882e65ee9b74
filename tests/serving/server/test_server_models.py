"""Which models and versions serve: configurations, policies, labels, warm-up."""

from __future__ import annotations

import queue
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import flexbuffers
from google.protobuf import text_format
from grpc import StatusCode
from langzoo.serving.export.contract import WARMUP_FILE
from langzoo.serving.server import ModelServer, ServerOptions, ServerStartError
from langzoo.serving.server.base_path import Reload, lies_within
from langzoo.serving.server.servable import DirectRunner
from langzoo.serving.server.tflite import load_tflite
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

Push = Callable[[Path, Path, int], None]
ScaleModel = Callable[[int], Path]


class Server:
    """A server of the models in a configuration file, and what it has said."""

    def __init__(self, folder: Path, config: str = "", **options: Any) -> None:
        self.file = folder / "models.config"
        self.file.write_text(config)
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.server = ModelServer(
            config_file=str(self.file),
            host="127.0.0.1",
            grpc_port=0,
            rest_port=0,
            poll_seconds=0.05,
            options=ServerOptions(**options),
            announce=self.lines.put,
        )

    def __enter__(self) -> Server:
        self.server.start()
        self.channel = grpc.insecure_channel(self.server.grpc_address)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        ).Predict
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()
        self.server.stop()

    def await_line(self, *words: str) -> str:
        """Waits until it says a line with all these words."""
        deadline = time.monotonic() + 30
        while True:
            line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            if all(word in line for word in words):
                return line

    def factor(self, name: str, version: int = 0, label: str = "") -> float:
        """What a scale model multiplies by."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        if version:
            request.model_spec.version.value = version
        if label:
            request.model_spec.version_label = label
        for key, value in (("x", 1.0), ("offset", 0.0)):
            request.inputs[key].CopyFrom(tf.make_tensor_proto([value]))
        return self._predict(request, timeout=30).outputs["y"].float_val[0]

    def versions(self, name: str) -> dict[int, str]:
        """The states of a model's versions."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        status = get_model_status_pb2.ModelVersionStatus
        return {
            version.version: status.State.Name(version.state)
            for version in self.models.GetModelStatus(request).model_version_status
        }

    def reload(self, config: str, *metrics: str) -> Any:
        """HandleReloadConfigRequest."""
        request = model_management_pb2.ReloadConfigRequest(
            config=text_format.Parse(config, ModelServerConfig()), metric_names=metrics
        )
        return self.models.HandleReloadConfigRequest(request, timeout=30)


def model(name: str, path: Path | str, more: str = "") -> str:
    return (
        f'config {{ name: "{name}" base_path: "{path}" '
        f'model_platform: "tensorflow" {more} }}'
    )


def config(*models: str) -> str:
    return f"model_config_list {{ {' '.join(models)} }}"


@pytest.fixture
def base(tmp_path: Path, scale_model: ScaleModel, push: Push) -> Path:
    """A base path with versions 1, 2 and 3, which multiply by their numbers."""
    path = tmp_path / "base"
    path.mkdir()
    for version in (1, 2, 3):
        push(scale_model(version), path, version)
    return path


def refused(call: Callable[..., Any], *arguments: Any) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", {3}),
        ("latest {}", {3}),
        ("latest { num_versions: 2 }", {2, 3}),
        ("all {}", {1, 2, 3}),
        ("specific { versions: 1 versions: 3 versions: 9 }", {1, 3}),
    ],
)
def test_a_policy_chooses_the_versions(
    tmp_path: Path, base: Path, policy: str, served: set[int]
) -> None:
    chosen = f"model_version_policy {{ {policy} }}"
    with Server(tmp_path, config(model("m", base, chosen))) as server:
        assert await_versions(server, "m", dict.fromkeys(served, "AVAILABLE"))
        assert server.factor("m") == max(served)
        for version in served:
            assert server.factor("m", version) == version


def await_versions(server: Server, name: str, expected: dict[int, str]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if server.versions(name) == expected:
                return True
        except grpc.RpcError:
            pass
        time.sleep(0.02)
    raise AssertionError(server.versions(name))


def test_a_change_of_policy_loads_what_is_new_before_the_old_goes(
    tmp_path: Path, base: Path
) -> None:
    with Server(tmp_path, config(model("m", base))) as server:
        assert server.server.wait_ready(30)
        only = "model_version_policy { specific { versions: 1 } }"
        server.reload(config(model("m", base, only)))
        server.await_line("version 1 is available")
        server.await_line("version 3 is unloaded")
        assert server.factor("m") == 1
        assert server.versions("m") == {1: "AVAILABLE", 3: "END"}


def test_a_reload_adds_models_and_takes_others_away(tmp_path: Path, base: Path) -> None:
    with Server(tmp_path, config(model("old", base)), reload=Reload.ANY) as server:
        assert server.server.wait_ready(30)
        response = server.reload(config(model("new", base)))
        assert response.status.error_code == 0
        # It has waited for the new one.
        assert server.factor("new") == 3
        server.await_line("model old version 3 is unloaded")
        assert refused(server.factor, "old") == (
            StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(old)",
        )


def test_a_reload_that_nobody_allowed_takes_nothing_away_and_brings_nothing_foreign(
    tmp_path: Path, base: Path, scale_model: ScaleModel, push: Push
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    push(scale_model(7), foreign, 7)
    (base / "link").symlink_to(foreign)
    mine = model("m", base)
    refusals = {
        "model m would go": [
            config(),
            config(model("n", base)),
            config(model("m", foreign)),
            config(model("m", base / "3")),
        ],
        "no version of model m would be left": [
            config(
                model("m", base, "model_version_policy { specific { versions: 9 } }")
            )
        ],
        "of model n lies outside of the base paths": [
            config(mine, model("n", path))
            for path in (foreign, base / "../foreign", base / "link", "/", f"{base}2")
        ],
    }
    with Server(tmp_path, config(mine)) as server:
        assert server.server.wait_ready(30)
        for message, configs in refusals.items():
            for text in configs:
                code, told = refused(server.reload, text)
                assert code is StatusCode.PERMISSION_DENIED, text
                assert message in told
        assert server.factor("m") == 3
        pinned = "model_version_policy { specific { versions: 1 } }"
        server.reload(config(model("m", base, pinned), model("n", base)))
        assert server.factor("n") == 3
        server.await_line("model m version 3 is unloaded")
        assert server.factor("m") == 1


def test_a_reload_is_refused_where_it_is_off(tmp_path: Path, base: Path) -> None:
    with Server(tmp_path, config(model("m", base)), reload=Reload.OFF) as server:
        for text in (config(), config(model("m", base)), ""):
            code, message = refused(server.reload, text)
            assert code is StatusCode.PERMISSION_DENIED
            assert "off in this server" in message


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/a", True), ("/a/b", True), ("/a/../b", False), ("/ab", False), ("/", False)],
)
def test_what_lies_within_a_root(path: str, inside: bool) -> None:
    assert lies_within(path, ["/a", "/c"]) is inside


def test_a_reload_tells_by_how_much_metrics_have_grown(
    tmp_path: Path, base: Path
) -> None:
    name = "/tensorflow/serving/request_count"
    with Server(tmp_path, config(model("m", base))) as server:
        assert server.server.wait_ready(30)
        server.factor("m")
        [metric] = server.reload(config(model("m", base)), name).metric
        assert (metric.name, metric.int64_value_increase) == (name, 0)


def test_a_reload_with_a_model_that_does_not_load_says_so(
    tmp_path: Path, base: Path
) -> None:
    broken = base / "broken"
    (broken / "1").mkdir(parents=True)
    (broken / "1" / "saved_model.pb").write_bytes(b"garbage")
    with Server(tmp_path, config(model("m", base))) as server:
        assert server.server.wait_ready(30)
        code, message = refused(
            server.reload, config(model("m", base), model("broken", broken))
        )
        assert code is StatusCode.UNKNOWN
        assert message.startswith("1 model(s) did not become available: {{name: broken")
        assert "DATA_LOSS" in message
        assert server.factor("m") == 3


# Texts: server_core.cc and model_service_impl.cc of TensorFlow Serving.
REFUSED = {
    "no list": (
        "custom_model_config {}",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
        "ModelConfigList is currently supported",
    ),
    "nothing": (
        "",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
        "ModelConfigList is currently supported",
    ),
    "a model twice": (
        config(model("m", Path("/a")), model("m", Path("/b"))),
        "Illegal to list model m multiple times in config list",
    ),
    "a relative path": (
        config(model("m", Path("a"))),
        "Expected model m to have an absolute path or URI; got base_path()=a",
    ),
    "an object store": (
        config(model("m", "s3://bucket/m")),
        "Model m: s3://bucket/m is no folder of this machine: mount it, or copy its "
        "versions to one",
    ),
    "an unknown platform": (
        'model_config_list { config { name: "m" base_path: "/a" '
        'model_platform: "caffe" } }',
        "Model m requests unsupported platform caffe",
    ),
    "no platform": (
        'model_config_list { config { name: "m" base_path: "/a" } }',
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
        "ModelServerConfig::model_platform, model name is m",
    ),
    "platform and type": (
        config(model("m", Path("/a"), "model_type: TENSORFLOW")),
        "Illegal setting both ModelServerConfig::model_type (deprecated) and "
        "ModelServerConfig::model_platform, model name is m",
    ),
    "another type": (
        'model_config_list { config { name: "m" base_path: "/a" model_type: OTHER } }',
        "ModelServerConfig::model_type choice 2 not supported.",
    ),
    "logged requests": (
        config(model("m", Path("/a"), "logging_config {}")),
        "Model m: logging_config: No request-logger-creator provided.",
    ),
}


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without models."""
    folder = tmp_path_factory.mktemp("idle")
    with Server(folder, config(), reload=Reload.ANY) as server:
        yield server


@pytest.mark.parametrize("case", REFUSED)
def test_a_reload_refuses(idle: Server, case: str) -> None:
    text, message = REFUSED[case]
    assert refused(idle.reload, text) == (StatusCode.INVALID_ARGUMENT, message)


def test_a_configuration_that_is_refused_is_so_at_the_start(tmp_path: Path) -> None:
    for text, message in [
        (config(model("m", Path("a"))), "absolute path"),
        (
            "model_config_list { confi",
            "models.config is no ModelServerConfig: Error parsing text-format "
            "tensorflow.serving.ModelServerConfig",
        ),
    ]:
        with pytest.raises(ServerStartError, match=message):
            Server(tmp_path, text).server.start()


def test_the_configuration_file_is_read_again_when_it_changes(
    tmp_path: Path, base: Path
) -> None:
    first = config(model("first", base))
    with Server(tmp_path, first, config_poll_seconds=0.05) as server:
        assert server.server.wait_ready(30)
        server.file.write_text("model_config_list { oh")
        server.await_line("configuration refused", "models.config")
        assert server.factor("first") == 3
        server.file.write_text(config(model("first", base), model("second", base)))
        server.await_line("model second version 3 is available")
        assert server.factor("second") == 3


def test_labels_point_to_versions(
    tmp_path: Path, base: Path, rest: Callable[..., tuple[int, Any]]
) -> None:
    every = "model_version_policy { all {} } "
    with Server(tmp_path, config(model("m", base, every))) as server:
        assert await_versions(server, "m", dict.fromkeys((1, 2, 3), "AVAILABLE"))
        labels = 'version_labels { key: "%s" value: %d } '
        both = labels % ("stable", 1) + labels % ("canary", 2)
        server.reload(config(model("m", base, every + both)))
        assert server.factor("m", label="stable") == 1
        assert server.factor("m", label="canary") == 2
        body = {"inputs": {"x": [1.0], "offset": [0.0]}}
        path = "/v1/models/m/labels/stable"
        _, answer = rest(server.server, f"{path}:predict", body)
        assert answer["outputs"]["y"] == [1.0]
        _, answer = rest(server.server, f"{path}/metadata")
        assert answer["model_spec"]["version"] == "1"
        server.reload(config(model("m", base, every + labels % ("stable", 2))))
        assert server.factor("m", label="stable") == 2
        assert refused(lambda: server.factor("m", label="canary")) == (
            StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: canary",
        )


def test_a_label_for_a_version_that_is_not_loaded_is_refused(
    tmp_path: Path, base: Path
) -> None:
    label = 'version_labels { key: "stable" value: 1 }'
    with Server(tmp_path, config(model("m", base))) as server:
        assert server.server.wait_ready(30)
        assert refused(server.reload, config(model("m", base, label))) == (
            StatusCode.FAILED_PRECONDITION,
            "Request to assign label to version 1 of model m, which is not currently "
            "available for inference",
        )


def test_a_new_label_may_be_given_in_advance_where_that_is_allowed(
    tmp_path: Path, base: Path
) -> None:
    label = 'version_labels { key: "stable" value: %d }'
    start = config(model("m", base, label % 3))
    with Server(tmp_path, start, labels_in_advance=True) as server:
        assert server.server.wait_ready(30)
        assert server.factor("m", label="stable") == 3
        # But one that serves is not led astray.
        code, _ = refused(server.reload, config(model("m", base, label % 1)))
        assert code is StatusCode.FAILED_PRECONDITION
        assert server.factor("m", label="stable") == 3


def warmup_file(path: Path, *records: bytes) -> None:
    (path / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path / WARMUP_FILE)) as writer:
        for record in records:
            writer.write(record)


def half_of(*values: Any) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "half"
    proto = tf.make_tensor_proto(list(values))
    log.predict_log.request.inputs["x"].CopyFrom(proto)
    return log.SerializeToString()


def test_warm_up_requests_are_answered_before_a_version_serves(
    tmp_path: Path, base: Path
) -> None:
    warmup_file(base / "3", half_of(1.0), half_of(2.0))
    options = {"warmup_iterations": 3}
    with Server(tmp_path, config(model("m", base)), **options) as server:
        assert server.server.wait_ready(30)
        path = str(base / "3")
        assert server.server.metrics.warmup_records.value(path, "OK") == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (half_of("text"), "Expects arg[0] to be float but string is provided"),
        (b"\xff", "Failed to parse warmup record"),
        (None, "Please verify your warmup data is in TFRecord format."),
    ],
)
def test_a_version_that_fails_its_warm_up_does_not_serve(
    tmp_path: Path, base: Path, record: bytes | None, message: str
) -> None:
    shutil.rmtree(base / "3")
    with Server(tmp_path, config(model("m", base))) as server:
        assert server.server.wait_ready(30)
        cold = tmp_path / "cold"
        shutil.copytree(base / "1", cold)
        if record is None:
            (cold / WARMUP_FILE).parent.mkdir(exist_ok=True)
            (cold / WARMUP_FILE).write_bytes(b"no records at all")
        else:
            warmup_file(cold, record)
        cold.rename(base / "4")
        assert message in server.await_line("version 4 failed to load")
        assert server.factor("m") == 2


def test_warm_up_can_be_left_out(tmp_path: Path, base: Path) -> None:
    warmup_file(base / "3", b"\xff")
    options = {"warmup_iterations": 0}
    with Server(tmp_path, config(model("m", base)), **options) as server:
        assert server.server.wait_ready(30)


@pytest.fixture(scope="module")
def lite(
    scale_model: ScaleModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], bytes]:
    """The scale model of a factor for TensorFlow Lite."""

    def convert(factor: int) -> bytes:
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(scale_model(factor)), signature_keys=["serving_default", "half"]
        )
        return converter.convert()

    return convert


def test_a_model_of_tensorflow_lite_is_preferred_where_that_is_said(
    tmp_path: Path, base: Path, lite: Callable[[int], bytes]
) -> None:
    content = lite(5)
    (base / "3" / "model.tflite").write_bytes(content)
    (base / "4").mkdir()
    (base / "4" / "model.tflite").write_bytes(content)
    every = config(model("m", base, "model_version_policy { all {} }"))
    with Server(tmp_path, every, tflite_interpreters=2) as server:
        assert await_versions(server, "m", dict.fromkeys((1, 2, 3, 4), "AVAILABLE"))
        assert [server.factor("m", version) for version in (2, 3, 4)] == [2, 5, 5]
    with Server(tmp_path, every) as server:
        assert await_versions(server, "m", dict.fromkeys((1, 2, 3), "AVAILABLE"))
        assert server.factor("m", 3) == 3


@pytest.mark.parametrize("known", [False, True])
def test_a_model_of_tensorflow_lite_without_signatures_serves(
    tmp_path: Path, lite: Callable[[int], bytes], known: bool
) -> None:
    schema = schema_py_generated
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(lite(5), 0))
    [half] = [d for d in model.signatureDefs if d.signatureKey == b"half"]
    graph = model.subgraphs[half.subgraphIndex]
    # As before signatures were known: one graph, whose tensors' names say what is what.
    model.signatureDefs, model.subgraphs = [], [graph]
    graph.tensors[graph.inputs[0]].name = b"into"
    graph.tensors[graph.outputs[0]].name = b"out"
    if known:
        definition = meta_graph_pb2.SignatureDef()
        definition.inputs["x"].name, definition.inputs["x"].dtype = "into:0", 1
        definition.outputs["y"].name, definition.outputs["y"].dtype = "out:0", 1
        packed = flexbuffers.Dumps({"half": definition.SerializeToString().decode()})
        buffer, metadata = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(packed, np.uint8)
        metadata.name, metadata.buffer = b"signature_defs_metadata", len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(metadata)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "model.tflite").write_bytes(builder.Output())
    servable = load_tflite(1, tmp_path, interpreters=1, runner=DirectRunner())
    signature = servable.signature("half" if known else "")
    assert signature is not None
    names = ("x", "y") if known else ("into", "out")
    assert (signature.inputs, signature.outputs) == ([names[0]], [names[1]])
    for values in ([2.0], [4.0, 6.0, 8.0]):
        answer = signature.run({names[0]: np.array(values, np.float32)})
        assert answer[names[1]].tolist() == [value / 2 for value in values]


def test_a_broken_model_of_tensorflow_lite_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "base" / "1").mkdir(parents=True)
    (tmp_path / "base" / "1" / "model.tflite").write_bytes(b"garbage")
    only = config(model("m", tmp_path / "base"))
    with Server(tmp_path, only, tflite_interpreters=1) as server:
        assert "model.tflite" in server.await_line("version 1 failed to load")


def test_a_saved_model_of_tensorflow_1_serves(tmp_path: Path) -> None:
    path = tmp_path / "base" / "1"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        offset = tf.compat.v1.placeholder(tf.float32, [None], "offset")
        weight = tf.compat.v1.get_variable("weight", initializer=4.0)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(
            session, str(path), {"x": x, "offset": offset}, {"y": weight * x + offset}
        )
    with Server(tmp_path, config(model("m", path.parent))) as server:
        assert server.server.wait_ready(30)
        assert server.factor("m") == 4
