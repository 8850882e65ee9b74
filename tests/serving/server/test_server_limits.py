"""What tries to hold a server up: queues, deadlines, rubbish; and what it shows."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import re
import select
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.rest import RestOptions
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

Push = Callable[[Path, Path, int], None]
Rest = Callable[..., tuple[int, Any]]
Stub = prediction_service_pb2_grpc.PredictionServiceStub
LONGER = int(os.environ.get("LANGZOO_SOAK", "1"))  # see test_server_soak
FOREVER = 1 << 60  # turns of a loop
METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def narrow_server(
    example_model: Path, push: Push, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """One request at a time, and one that waits, over gRPC and over REST."""
    base_path = tmp_path_factory.mktemp("base")
    push(example_model, base_path, 1)
    server = ModelServer(
        "example",
        base_path,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=0,
        threads=1,
        options=ServerOptions(queue_size=1, rest=RestOptions(timeout=2.0, cors=True)),
    )
    with server:
        assert server.wait_ready(60)
        yield server


@pytest.fixture
def stub(narrow_server: ModelServer) -> Iterator[Stub]:
    with grpc.insecure_channel(narrow_server.grpc_address) as channel:
        yield Stub(channel)


def spin(turns: int) -> predict_pb2.PredictRequest:
    """A request that is worked on for so many turns of a loop."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "example"
    request.model_spec.signature_name = "spin"
    request.inputs["turns"].CopyFrom(tf.make_tensor_proto([turns], tf.int64))
    return request


def await_users(server: ModelServer, count: int) -> None:
    """Waits until so many requests are worked on."""
    repository = server._models.get("example")
    assert repository is not None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if sum(entry.users for entry in repository._available.values()) == count:
            return
        time.sleep(0.001)
    raise AssertionError(f"there are not {count} requests in progress")


def test_a_client_that_sends_half_a_request_keeps_nobody_out(
    narrow_server: ModelServer, stub: Stub
) -> None:
    end = threading.Event()

    def nothing_yet() -> Iterator[bytes]:
        end.wait(60)
        yield from ()

    with grpc.insecure_channel(narrow_server.grpc_address) as channel:
        call = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        halves = [call.future(nothing_yet()) for _ in range(10)]
        try:
            await_streams(channel)
            stub.Predict(spin(1), timeout=30)
        finally:
            end.set()
            for half in halves:
                half.cancel()


def await_streams(channel: grpc.Channel) -> None:
    """Waits until the server has taken what was sent before."""
    health = health_pb2_grpc.HealthStub(channel)
    health.Check(health_pb2.HealthCheckRequest(), timeout=30)


def await_free(stub: Stub) -> None:
    """Asks until there is room in the queue, and for the answer."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if stub.Predict.future(spin(1), timeout=30).code() is StatusCode.OK:
            return
        time.sleep(0.01)
    raise AssertionError("the queue stays full")


def test_a_deadline_stops_the_graph(narrow_server: ModelServer, stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(spin(FOREVER), timeout=0.3)
    assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
    # The only thread would never come back otherwise.
    await_users(narrow_server, 0)
    assert stub.Predict(spin(3), timeout=30).outputs["turns"].int64_val[0] == 3


def test_a_request_beyond_the_queue_is_refused_at_once(
    narrow_server: ModelServer, stub: Stub
) -> None:
    running = stub.Predict.future(spin(FOREVER), timeout=3)
    await_users(narrow_server, 1)
    waiting = stub.Predict.future(spin(1), timeout=30)
    answers = [stub.Predict.future(spin(1), timeout=30) for _ in range(5)]
    codes = [answer.code() for answer in answers]
    assert codes.count(StatusCode.RESOURCE_EXHAUSTED) >= 4
    assert running.code() is StatusCode.DEADLINE_EXCEEDED
    codes.append(waiting.code())
    assert codes.count(StatusCode.OK) == 6 - codes.count(StatusCode.RESOURCE_EXHAUSTED)


def test_a_request_cancelled_in_the_queue_is_never_run(
    narrow_server: ModelServer, stub: Stub
) -> None:
    running = stub.Predict.future(spin(FOREVER), timeout=1)
    await_users(narrow_server, 1)
    before = narrow_server.metrics.requests.value("example", "OK")
    waiting = stub.Predict.future(spin(1), timeout=30)
    waiting.cancel()
    assert running.code() is StatusCode.DEADLINE_EXCEEDED
    await_free(stub)  # which takes its turn after the one that was cancelled
    assert narrow_server.metrics.requests.value("example", "OK") == before + 1


def rest_spin(turns: int) -> dict[str, Any]:
    return {"signature_name": "spin", "instances": [turns]}


def test_rest_gives_up_after_its_timeout(
    narrow_server: ModelServer, rest: Rest
) -> None:
    path = "/v1/models/example:predict"
    status, answer = rest(narrow_server, path, rest_spin(FOREVER))
    assert (status, list(answer)) == (504, ["error"])
    assert rest(narrow_server, path, rest_spin(3)) == (200, {"predictions": [3]})


def test_rest_refuses_beyond_its_queue(narrow_server: ModelServer, rest: Rest) -> None:
    path = "/v1/models/example:predict"
    with ThreadPoolExecutor(6) as pool:
        futures = [
            pool.submit(rest, narrow_server, path, rest_spin(FOREVER)) for _ in range(6)
        ]
        answers = [future.result(30) for future in futures]
    statuses = [status for status, _ in answers]
    assert statuses.count(429) == 4
    assert (429, {"error": "too many requests are waiting"}) in answers
    assert statuses.count(504) == 2


def test_a_rest_request_whose_client_has_gone_is_never_run(
    narrow_server: ModelServer, rest: Rest
) -> None:
    await_users(narrow_server, 0)  # who was answered late stops a moment later
    counts = narrow_server.metrics.requests
    before = counts.value("example", "OK"), counts.value("example", "DEADLINE_EXCEEDED")
    running = threading.Thread(
        target=rest,
        args=(narrow_server, "/v1/models/example:predict", rest_spin(FOREVER)),
    )
    running.start()
    await_users(narrow_server, 1)
    time.sleep(1)  # so that what follows has time left when this is given up
    body = json.dumps(rest_spin(1)).encode()
    head = "POST /v1/models/example:predict HTTP/1.1\r\nHost: x\r\n"
    head += f"Content-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", narrow_server.rest_port or 0)) as sent:
        sent.sendall(head.encode() + b"\r\n\r\n" + body)
        time.sleep(0.2)  # until it has been read
    running.join(30)
    status, _ = rest(narrow_server, "/v1/models/example")
    assert status == 200
    after = counts.value("example", "OK"), counts.value("example", "DEADLINE_EXCEEDED")
    assert after == (before[0], before[1] + 1)


def test_a_body_that_does_not_come_is_not_waited_for(
    narrow_server: ModelServer,
) -> None:
    with socket.create_connection(("127.0.0.1", narrow_server.rest_port or 0)) as slow:
        slow.settimeout(30)
        slow.sendall(b"POST /v1/models/x:predict HTTP/1.1\r\nHost: x\r\n")
        slow.sendall(b"Content-Length: 1000\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 504")


@pytest.fixture(scope="module")
def small_server(
    scale_model: Callable[[int], Path],
    push: Push,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ModelServer]:
    """Takes bodies of 10 kB at most, and has no patience."""
    base_path = tmp_path_factory.mktemp("base")
    push(scale_model(2), base_path, 1)
    rest = RestOptions(idle_seconds=0.3)
    options = ServerOptions(rest=rest, max_request_bytes=10_000)
    with ModelServer(
        "scale", base_path, grpc_port=0, rest_port=0, options=options
    ) as server:
        assert server.wait_ready(60)
        yield server


def ask_http(
    server: ModelServer, body: bytes, **headers: str
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(server.rest_address or "", timeout=30)
    path = "/v1/models/scale:predict"
    connection.request("POST", path, body, {k.title(): v for k, v in headers.items()})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content


HALF = b'{"signature_name": "half", "instances": [2.0]}'


def test_a_body_beyond_the_limit_is_refused(small_server: ModelServer) -> None:
    full = HALF + b" " * (10_000 - len(HALF))
    assert ask_http(small_server, full) == (200, {"predictions": [1.0]})
    message = "the body is larger than 10000 bytes, the most that is taken"
    assert ask_http(small_server, full + b" ") == (413, {"error": message})
    # One that does not say how long it is, is found out.
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n"
    with connected(small_server) as slow:
        slow.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2)
        assert slow.recv(100).startswith(b"HTTP/1.1 413")


def test_bodies_may_be_gzip_and_are_bounded_when_decompressed(
    small_server: ModelServer,
) -> None:
    def ask(body: bytes) -> tuple[int, dict[str, Any]]:
        headers = {"content-encoding": "gzip"}
        return ask_http(small_server, body, **headers)

    assert ask(gzip.compress(HALF)) == (200, {"predictions": [1.0]})
    pieces = gzip.compress(HALF[:9]) + gzip.compress(HALF[9:])
    assert ask(pieces) == (200, {"predictions": [1.0]})
    status, answer = ask(gzip.compress(b" " * 5_000_000))
    assert (status, "larger than 10000 bytes" in answer["error"]) == (413, True)
    for broken in (HALF, gzip.compress(HALF)[:-4], gzip.compress(HALF)[:12] + b"no"):
        status, answer = ask(broken)
        assert (status, "the body is no gzip" in answer["error"]) == (400, True)


def test_a_grpc_request_is_bounded_when_decompressed(small_server: ModelServer) -> None:
    with grpc.insecure_channel(small_server.grpc_address) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for compression in grpc.Compression:
            code = predict.future(bytes(1 << 20), compression=compression).code()
            assert code is StatusCode.RESOURCE_EXHAUSTED


def test_the_bytes_of_all_requests_that_wait_are_bounded(
    narrow_server: ModelServer, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert narrow_server._grpc is not None
    request = spin(1)
    intake = narrow_server._grpc._intake
    monkeypatch.setattr(intake, "_most_bytes", request.ByteSize() - 1)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=30)
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "too many bytes are waiting"


def test_the_bodies_of_all_rest_requests_are_bounded(small_server: ModelServer) -> None:
    head = b"POST /v1/models/scale:predict HTTP/1.1\r\nHost: x\r\n"
    head += b"Content-Length: 9500\r\n\r\n"
    with ExitStack() as stack:
        halves = [stack.enter_context(connected(small_server)) for _ in range(5)]
        for half in halves:
            half.sendall(head + bytes(9000))
        answered, _, _ = select.select(halves, [], [], 10)
        assert len(answered) == 1
        assert answered[0].recv(100).startswith(b"HTTP/1.1 429")
    assert ask_http(small_server, HALF) == (200, {"predictions": [1.0]})


def connected(server: ModelServer) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.rest_port or 0))
    connection.settimeout(10)
    return connection


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost", b"G"])
def test_a_connection_that_sends_no_whole_head_is_closed(
    small_server: ModelServer, sent: bytes
) -> None:
    with connected(small_server) as idle:
        idle.sendall(sent)
        start = time.monotonic()
        while time.monotonic() < start + 5:
            try:
                idle.sendall(b"a" if sent else b"")  # one letter of it after another
                time.sleep(0.05)
                idle.setblocking(False)
                if idle.recv(1) == b"":
                    break
            except BlockingIOError:
                continue
            except OSError:
                break
        assert time.monotonic() - start < 2


def test_a_connection_is_closed_after_an_answer_and_half_a_head(
    small_server: ModelServer,
) -> None:
    head = b"GET /v1/models/scale HTTP/1.1\r\nHost: x\r\n"
    with connected(small_server) as idle:
        for _ in range(3):
            idle.sendall(head + b"\r\n")
            answer = idle.recv(10_000)
            while not answer.endswith(b"]\n}"):
                answer += idle.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.2)  # which is not too long
        idle.sendall(head)
        start = time.monotonic()
        assert idle.recv(100) == b""
        assert time.monotonic() - start < 2


def test_connections_are_not_more_than_so_many(
    small_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langzoo.serving.server.rest._MOST_CONNECTIONS", 1)
    connections = small_server._rest._server.server_state.connections  # type: ignore[union-attr]
    while connections:
        time.sleep(0.05)  # those of others are idle
    head = b"GET /v1/models/scale HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(small_server) as first:
        first.sendall(head)
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        with connected(small_server) as second, suppress(ConnectionError):
            second.sendall(head)
            assert second.recv(100) == b""


def test_an_answer_that_nobody_reads_is_thrown_away(
    small_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "a" * (32 << 20)
    monkeypatch.setattr(small_server.metrics, "page", lambda: page)
    before = len(small_server._rest._server.server_state.connections)  # type: ignore[union-attr]
    with connected(small_server) as deaf:
        deaf.sendall(f"GET {METRICS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        connections = small_server._rest._server.server_state.connections  # type: ignore[union-attr]
        while len(connections) <= before:
            time.sleep(0.01)
        while len(connections) > before:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_requests_for_models_that_are_none_have_one_label(
    small_server: ModelServer, rest: Rest
) -> None:
    for number in range(50):
        status, _ = rest(small_server, f"/v1/models/m{number}:predict", HALF)
        assert status == 404
    page = metrics_page(small_server)
    line = ':tensorflow:serving:request_count{model_name="(none)",status="NOT_FOUND"}'
    assert value_of(page, line) == 50
    assert 'model_name="m' not in page


def test_pages_of_other_origins_may_ask_where_that_is_allowed(
    narrow_server: ModelServer, example_server: ModelServer
) -> None:
    def headers(server: ModelServer, method: str, origin: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(server.rest_address or "", timeout=30)
        connection.request(method, "/v1/models/example", headers={"Origin": origin})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.getheader("Access-Control-Allow-Origin")

    assert headers(narrow_server, "OPTIONS", "https://a.example") == (200, "*")
    assert headers(narrow_server, "GET", "https://a.example") == (200, "*")
    assert headers(narrow_server, "OPTIONS", "") == (400, "*")
    assert headers(example_server, "GET", "https://a.example") == (200, None)


def metrics_page(server: ModelServer) -> str:
    url = f"http://{server.rest_address}{METRICS}"
    with urllib.request.urlopen(url, timeout=30) as page:
        assert page.headers["Content-Type"].startswith("text/plain")
        return page.read().decode()


def value_of(page: str, line: str) -> float:
    match = re.search(re.escape(line) + r" (\S+)$", page, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_metrics_have_the_names_of_tensorflow_serving(
    example_server: ModelServer, rest: Rest
) -> None:
    ok = ':tensorflow:serving:request_count{model_name="example",status="OK"}'
    bad = ':tensorflow:serving:request_count{model_name="example",status="%s"}'
    before = metrics_page(example_server)
    with grpc.insecure_channel(example_server.grpc_address) as channel:
        Stub(channel).Predict(spin(1), timeout=30)
        with pytest.raises(grpc.RpcError):
            Stub(channel).Predict(spin_without_inputs(), timeout=30)
    rest(example_server, "/v1/models/example:predict", rest_spin(1))
    after = metrics_page(example_server)
    assert value_of(after, ok) == value_of(before, ok) + 2
    assert value_of(after, bad % "INVALID_ARGUMENT") == 1 + value_of(
        before, bad % "INVALID_ARGUMENT"
    )
    for api, entrypoint in (("Predict", "GRPC"), ("predict", "REST")):
        labels = f'model_name="example",API="{api}",entrypoint="{entrypoint}"'
        name = ":tensorflow:serving:request_latency"
        assert value_of(after, f"{name}_count{{{labels}}}") >= 1
        last = f'{name}_bucket{{{labels},le="+Inf"}}'
        assert value_of(after, last) == value_of(after, f"{name}_count{{{labels}}}")
    assert ":tensorflow:serving:runtime_latency_sum{" in after
    assert "# TYPE :tensorflow:serving:request_count counter" in after
    assert ":tensorflow:cc:saved_model:load_attempt_count{" in after


def spin_without_inputs() -> predict_pb2.PredictRequest:
    request = spin(1)
    request.inputs.clear()
    return request


def test_a_name_cannot_forge_metrics(example_server: ModelServer) -> None:
    request = spin(1)
    request.model_spec.name = 'x"}\nforged 1\n'
    with (
        grpc.insecure_channel(example_server.grpc_address) as channel,
        pytest.raises(grpc.RpcError),
    ):
        Stub(channel).Predict(request, timeout=30)
    assert "\nforged" not in metrics_page(example_server)


def test_health_is_serving_once_a_model_is_and_until_the_stop(
    tmp_path: Path, example_model: Path, push: Push
) -> None:
    status = health_pb2.HealthCheckResponse
    server = ModelServer(
        "m", tmp_path, host="127.0.0.1", grpc_port=0, rest_port=None, poll_seconds=0.05
    )
    with server, grpc.insecure_channel(server.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == status.NOT_SERVING
        push(example_model, tmp_path, 1)
        assert next(watch).status == status.SERVING
        for name in ("PredictionService", "tensorflow.serving.ModelService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == status.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert caught.value.code() is StatusCode.NOT_FOUND
        watch.cancel()


def test_reflection_tells_what_can_be_asked(example_server: ModelServer) -> None:
    with grpc.insecure_channel(example_server.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("tensorflow.serving.ModelService")
        assert {"GetModelStatus", "HandleReloadConfigRequest"} == {
            method.name for method in service.methods
        }


METHODS = [
    "PredictionService/Predict",
    "PredictionService/Classify",
    "PredictionService/Regress",
    "PredictionService/MultiInference",
    "PredictionService/GetModelMetadata",
    "ModelService/GetModelStatus",
    "ModelService/HandleReloadConfigRequest",
]
# What a request can be blamed for; INTERNAL is for bytes that are no message.
BLAMED = {
    StatusCode.OK,  # it was not broken after all
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.UNIMPLEMENTED,
    StatusCode.INTERNAL,
}


def broken(data: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, cut off, put in or thrown in at random."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(len(changed) + 1)
        kind = generator.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] = generator.randrange(256)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            changed[place:place] = generator.randbytes(generator.randint(1, 8))
        else:
            changed += generator.randbytes(generator.randint(1, 8))
    return bytes(changed)


def test_broken_grpc_requests_are_refused_and_the_server_lives(
    scale_server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    generator = random.Random(0)
    good = predict_pb2.PredictRequest()
    good.model_spec.name = "scale"
    good.model_spec.signature_name = "half"
    good.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    data = good.SerializeToString()
    with grpc.insecure_channel(scale_server.grpc_address) as channel:
        calls = [channel.unary_unary(f"/tensorflow.serving.{name}") for name in METHODS]
        # The last of them would change the server.
        for number in range(500 * LONGER):
            call = calls[number % (len(calls) - 1)]
            answer = call.future(broken(data, generator), timeout=30)
            assert answer.code() in BLAMED, (answer.code(), answer.details())
        assert calls[0](data, timeout=30)
    assert not caplog.records


def test_broken_rest_requests_are_refused_and_the_server_lives(
    scale_server: ModelServer, rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    generator = random.Random(0)
    body = b'{"signature_name": "half", "instances": [{"x": 1.0}, {"x": 2.5e1}]}'
    connection = http.client.HTTPConnection(scale_server.rest_address or "", timeout=30)
    connection.connect()
    # Or each body waits for the server's late word that the head has come.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in range(500 * LONGER):
        method = ("predict", "classify", "regress")[number % 3]
        path = f"/v1/models/scale:{method}"
        connection.request("POST", path, broken(body, generator))
        answer = connection.getresponse()
        content = json.loads(answer.read().decode("utf-8", "replace"))
        assert answer.status == 200 or (
            answer.status in (400, 404) and list(content) == ["error"]
        ), content
    connection.close()
    answer = rest(scale_server, "/v1/models/scale:predict", body)
    assert answer == (200, {"predictions": [0.5, 12.5]})
    assert not caplog.records


def boasting(generator: random.Random) -> tensor_pb2.TensorProto:
    """A tensor of a few bytes that claims to be any size and kind."""
    kinds = (tf.float32, tf.string, generator.randrange(25))
    dtype = tf.dtypes.as_dtype(generator.choice(kinds) or tf.half)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for _ in range(generator.randint(0, 3)):
        large = 1 << generator.choice([25, generator.randrange(48)])
        proto.tensor_shape.dim.add(size=generator.choice([0, 1, large]))
    kind = generator.randrange(4)
    if kind == 0:
        proto.tensor_content = generator.randbytes(generator.randint(0, 16))
    elif kind == 1:
        proto.tensor_content = bytes(generator.randint(0, 16))
    elif kind == 2:
        proto.string_val.append(b"a" * generator.choice([0, 1, 1000]))
        proto.float_val.append(1.0)
        proto.int_val.append(1)
        proto.int64_val.append(1)
        proto.bool_val.append(True)
        proto.double_val.append(1.0)
    return proto


def peak_memory() -> int:
    """The most bytes that this process has had since they were reset."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


def test_no_small_request_takes_much_memory(
    scale_server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    generator = random.Random(0)
    inputs = ("float64", "int32", "uint8", "int64", "bool", "string")
    with grpc.insecure_channel(scale_server.grpc_address) as channel:
        stub = Stub(channel)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = peak_memory()
        for _ in range(300 * LONGER):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "scale"
            request.model_spec.signature_name = "echo"
            for name in inputs:
                request.inputs[name].CopyFrom(boasting(generator))
            name = generator.choice(inputs)
            if generator.random() < 0.5:
                # Alone, or one that is refused hides what others do.
                request.model_spec.signature_name = "half"
                request.inputs["x"].CopyFrom(request.inputs[name])
                for name in inputs:
                    del request.inputs[name]
            call = stub.Predict.future(request, timeout=30)
            assert call.code() in BLAMED, (call.code(), call.details())
        assert peak_memory() < before + (300 << 20)
    assert not caplog.records


def test_many_idle_connections_keep_nobody_out(
    scale_server: ModelServer, rest: Rest
) -> None:
    address = ("127.0.0.1", scale_server.rest_port or 0)
    grpc_address = ("127.0.0.1", scale_server.grpc_port or 0)
    idle = [socket.create_connection(address) for _ in range(200)]
    idle += [socket.create_connection(grpc_address) for _ in range(200)]
    try:
        body = {"signature_name": "half", "instances": [2.0]}
        answer = rest(scale_server, "/v1/models/scale:predict", body)
        assert answer == (200, {"predictions": [1.0]})
    finally:
        for connection in idle:
            connection.close()
