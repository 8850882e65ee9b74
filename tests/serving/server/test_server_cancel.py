"""Whoever hangs up stops what is done for it, and only then leaves its place."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from grpc import StatusCode
from langzoo.serving.errors import ServingError
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.batching import BatchingParameters
from langzoo.serving.server.caller import Caller
from langzoo.serving.server.rest import RestOptions
from langzoo.serving.server.servable import load_servable
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

Push = Callable[[Path, Path, int], None]
Rest = Callable[..., tuple[int, Any]]
Stub = prediction_service_pb2_grpc.PredictionServiceStub
FOREVER = 1 << 60  # turns of a loop
# The stop itself takes some milliseconds; a machine may be busy with other tests.
SOON = 2.0
BATCHING = {
    "alone": None,
    "batched": BatchingParameters(max_batch_size=2, batch_timeout_micros=100_000),
}


@pytest.fixture(scope="module", params=BATCHING)
def server(
    request: pytest.FixtureRequest,
    example_model: Path,
    push: Push,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ModelServer]:
    """Two requests at a time and none that waits."""
    base_path = tmp_path_factory.mktemp("base")
    push(example_model, base_path, 1)
    options = ServerOptions(
        queue_size=0, batching=BATCHING[request.param], rest=RestOptions(timeout=2.0)
    )
    with ModelServer(
        "example",
        base_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=0,
        threads=2,
        options=options,
    ) as server:
        assert server.wait_ready(60)
        yield server


@pytest.fixture
def stub(server: ModelServer) -> Iterator[Stub]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield Stub(channel)


def asking(signature: str, name: str, value: int) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "example"
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto([value], tf.int64))
    return request


def spin(turns: int) -> predict_pb2.PredictRequest:
    return asking("spin", "turns", turns)


def await_users(server: ModelServer, count: int, seconds: float = 30) -> None:
    """Waits until so many requests are worked on."""
    repository = server._models.get("example")
    assert repository is not None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if sum(entry.users for entry in repository._available.values()) == count:
            return
        time.sleep(0.001)
    raise AssertionError(f"there are not {count} requests in progress")


def await_count(server: ModelServer, model: str, status: str, count: int) -> None:
    """Waits until so many requests are counted, which is a moment after their end."""
    deadline = time.monotonic() + 10
    while server.metrics.requests.value(model, status) != count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_call_that_is_cancelled_stops(server: ModelServer, stub: Stub) -> None:
    calls = [stub.Predict.future(spin(FOREVER), timeout=60) for _ in range(2)]
    await_users(server, 2)
    time.sleep(0.2)  # until the batch runs
    for call in calls:
        call.cancel()
    await_users(server, 0, SOON)
    assert stub.Predict(spin(3), timeout=30).outputs["turns"].int64_val[0] == 3


def test_a_call_whose_deadline_passes_stops(server: ModelServer, stub: Stub) -> None:
    calls = [stub.Predict.future(spin(FOREVER), timeout=1) for _ in range(2)]
    await_users(server, 2)
    for call in calls:
        assert call.code() is StatusCode.DEADLINE_EXCEEDED
    await_users(server, 0, SOON)


def test_a_rest_client_that_hangs_up_stops(server: ModelServer, rest: Rest) -> None:
    path = "/v1/models/example:predict"
    body = json.dumps({"signature_name": "spin", "instances": [FOREVER]}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    address = ("127.0.0.1", server.rest_port or 0)
    before = server.metrics.requests.value("example", "CANCELLED")
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + body)
        await_users(server, 1)
        time.sleep(0.3)
    await_users(server, 0, SOON)
    await_count(server, "example", "CANCELLED", before + 1)
    status, answer = rest(server, path, {"signature_name": "spin", "instances": [3]})
    assert (status, answer) == (200, {"predictions": [3]})


def test_a_place_is_free_when_the_work_has_ended(
    server: ModelServer, stub: Stub
) -> None:
    stub.Predict(asking("grind", "size", 2), timeout=30)
    calls = [
        stub.Predict.future(asking("grind", "size", 2000), timeout=60) for _ in range(2)
    ]
    await_users(server, 2)
    time.sleep(0.1)
    for call in calls:
        call.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(spin(1), timeout=30)
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    await_users(server, 0)
    time.sleep(0.1)
    stub.Predict(spin(1), timeout=30)


@pytest.mark.parametrize("name", ["spin", "spin_apart"])
def test_loops_on_all_processors_are_stopped(example_model: Path, name: str) -> None:
    servable = load_servable(1, example_model, runs=4)
    signature = servable.signature(name)
    assert signature is not None
    turns = {"turns": np.array([FOREVER])}
    callers = [Caller() for _ in range(6)]  # the last two stand behind the others
    with ThreadPoolExecutor(len(callers)) as pool:
        runs = [pool.submit(signature.run, turns, (), caller) for caller in callers]
        time.sleep(0.5)
        for caller in callers:
            caller.leave()
        for run in runs:
            with pytest.raises(ServingError) as caught:
                run.result(SOON)
            assert caught.value.code is StatusCode.CANCELLED
    assert signature.run({"turns": np.array([3])})["turns"].tolist() == [3]
    servable.close()


def test_outputs_that_need_no_input_are_given(tmp_path: Path) -> None:
    spec = tf.TensorSpec([None], tf.float32, "x")
    functions = {
        "none": tf.function(lambda: {"y": tf.constant([7.0])}, input_signature=[]),
        "unread": tf.function(lambda x: {"y": tf.constant([7.0])}, [spec]),
    }
    tf.saved_model.save(tf.Module(), str(tmp_path), functions)
    servable = load_servable(1, tmp_path)
    for name, inputs in ("none", {}), ("unread", {"x": np.float32([1])}):
        signature = servable.signature(name)
        assert signature is not None
        assert signature.run(inputs)["y"].tolist() == [7]
    servable.close()


def test_whoever_has_left_before_is_not_worked_for(example_model: Path) -> None:
    servable = load_servable(1, example_model, runs=1)
    signature = servable.signature("spin")
    assert signature is not None
    caller = Caller()
    caller.leave()
    for _ in range(3):
        with pytest.raises(ServingError) as caught:
            signature.run({"turns": np.array([FOREVER])}, (), caller)
        assert caught.value.code is StatusCode.CANCELLED
        assert signature.run({"turns": np.array([3])})["turns"].tolist() == [3]
    servable.close()


def test_what_the_graph_refuses_is_told_as_it_is(
    scale_model: Callable[[int], Path],
) -> None:
    servable = load_servable(1, scale_model(3))
    signature = servable.signature()
    assert signature is not None
    unequal = {"x": np.float32([1, 2]), "offset": np.float32([1, 2, 3])}
    for _ in range(100):
        with pytest.raises(ServingError, match="Incompatible shapes") as caught:
            signature.run(unequal)
        assert caught.value.code is StatusCode.INVALID_ARGUMENT
    equal = {"x": np.float32([1]), "offset": np.float32([2])}
    assert signature.run(equal)["y"].tolist() == [5]
    assert signature.run(equal, ["offset"])["offset"].tolist() == [2]
    servable.close()


def test_a_signature_that_names_a_wrong_dtype_keeps_no_model_away(
    serve: Callable[..., Any], scale_model: Callable[[int], Path], tmp_path: Path
) -> None:
    file = shutil.copytree(scale_model(3), tmp_path / "1") / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    signature = saved.meta_graphs[0].signature_def["half"]
    signature.inputs["x"].dtype = types_pb2.DT_STRING
    file.write_bytes(saved.SerializeToString())
    with serve(tmp_path) as server:
        assert server.wait_ready(1)
