"""The gateway itself: its models and health, who may ask, and what breaks."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import openai
import pytest
from langzoo.serving.client import ServingError, Tls
from langzoo.serving.gateway.completions.pieces import Writer
from langzoo.serving.gateway.options import GatewayOptions
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.config_files import TlsConfig

MODELS = ("bytes", "subwords")


def test_models(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == list(MODELS)
    assert api.models.retrieve("subwords").id == "subwords"
    with pytest.raises(openai.NotFoundError) as caught:
        api.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def ask(
    url: str, data: bytes | None = None, method: str | None = None, **headers: str
) -> tuple[int, Any, Any]:
    """Status, headers and body of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


@pytest.mark.parametrize(
    ("path", "data", "status", "message"),
    [
        ("/v1/completions", b"{", 400, "not a JSON object: Invalid JSON"),
        ("/v1/completions", b"[]", 400, "not a JSON object"),
        ("/v1/completions", b"[" * 100_000, 400, "not a JSON object"),
        ("/v1/completions", b"\xff", 400, "not a JSON object"),
        ("/v1/completions", b'{"prompt": "a"}', 400, "must provide a model"),
        (
            "/v1/completions",
            b'{"model": "bytes", "prompt": "\\ud800"}',
            400,
            "not a JSON object",
        ),
        ("/v1/completions", None, 405, "Not allowed to GET"),
        ("/v1/chat/completions", b"{}", 404, "chat/completions is not served yet"),
        ("/v1/images", b"{}", 404, "Unknown request URL: POST"),
    ],
)
def test_a_request_that_no_client_sends(
    gateway_url: str, path: str, data: bytes | None, status: int, message: str
) -> None:
    code, _, body = ask(f"{gateway_url}{path}", data)
    assert code == status
    error = json.loads(body)["error"]
    assert message in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_health_and_metrics(gateway_url: str, api: openai.OpenAI) -> None:
    status, _, body = ask(f"{gateway_url}/health")
    assert (status, json.loads(body)["status"]) == (200, "ok")

    def count(line: str) -> int:
        page = ask(f"{gateway_url}/metrics")[2]
        return int((page.partition(f"{line} ")[2] or "0").split()[0])

    tokens = 'langzoo_gateway_completion_tokens_total{model="bytes"}'
    answered = 'langzoo_gateway_requests_total{model="bytes",status="200"}'
    seconds = 'langzoo_gateway_time_to_first_token_seconds_count{model="bytes"}'
    before = [count(line) for line in (tokens, answered, seconds)]
    usage = api.completions.create(model="bytes", prompt="a", n=2).usage
    list(api.completions.create(stream=True, model="bytes", prompt="a", max_tokens=0))
    after = [count(line) for line in (tokens, answered, seconds)]
    assert after == [before[0] + usage.completion_tokens, before[1] + 2, before[2] + 1]


def test_an_api_key(gateway: Callable[..., Any], gateway_server: ModelServer) -> None:
    options = GatewayOptions(api_keys=["first", "second"])
    with gateway(gateway_server.grpc_address, options) as url:
        for key in ("third", "firs"):
            with (
                openai.OpenAI(base_url=f"{url}/v1", api_key=key) as api,
                pytest.raises(openai.AuthenticationError) as caught,
            ):
                api.completions.create(model="bytes", prompt="")
            assert caught.value.code == "invalid_api_key"
        assert ask(f"{url}/v1/models")[0] == 401
        with openai.OpenAI(base_url=f"{url}/v1", api_key="second") as api:
            assert api.completions.create(model="bytes", prompt="").choices
        assert ask(f"{url}/health")[0] == 200
        assert ask(f"{url}/")[0] == 200


def test_pages_of_other_origins_may_ask_where_they_are_let(
    gateway: Callable[..., Any], gateway_server: ModelServer, gateway_url: str
) -> None:
    preflight = {"Origin": "https://a.example", "Access_Control_Request_Method": "POST"}
    preflight |= {"Access_Control_Request_Headers": "authorization,content-type"}
    allowed = "Access-Control-Allow-Origin"
    options = GatewayOptions(cors_origins=["https://a.example"], api_keys=["key"])
    with gateway(gateway_server.grpc_address, options) as url:
        path = f"{url}/v1/completions"
        status, headers, _ = ask(path, method="OPTIONS", **preflight)
        assert (status, headers[allowed]) == (200, "https://a.example")
        # Errors can be read as well.
        status, headers, _ = ask(path, b"{}", Origin="https://a.example")
        assert (status, headers[allowed]) == (401, "https://a.example")
        _, headers, _ = ask(path, b"{}", Origin="https://b.example")
        assert headers[allowed] is None
    _, headers, _ = ask(f"{gateway_url}/v1/models", Origin="https://a.example")
    assert headers[allowed] is None


def test_a_body_that_is_too_large(
    gateway: Callable[..., Any], gateway_server: ModelServer
) -> None:
    with gateway(
        gateway_server.grpc_address, GatewayOptions(max_body_bytes=1000)
    ) as url:
        status, _, body = ask(f"{url}/v1/completions", b" " * 1001)
    assert status == 413
    assert "more than 1000 bytes" in json.loads(body)["error"]["message"]


def test_no_model_server(gateway: Callable[..., Any]) -> None:
    with (
        gateway("127.0.0.1:1") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as api,
    ):
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="no server") as caught:
                api.completions.create(model="bytes", prompt="", stream=stream)
            assert caught.value.status_code == 503
            assert caught.value.response.headers["Retry-After"] == "1"
        status, _, body = ask(f"{url}/health")
    assert status == 503
    assert "no server answers" in json.loads(body)["models"]["bytes"]


def test_tls_to_the_model_server(
    tmp_path: Path,
    language_model: Path,
    push: Callable[[Path, Path, int], None],
    serve: Callable[..., Any],
    gateway: Callable[..., Any],
    new_authority: Callable[[], Any],
) -> None:
    authority = new_authority()
    key, certificate = (pem.encode() for pem in authority.issue("server"))
    tls = TlsConfig(key, certificate, authority.certificate.encode(), True)
    (tmp_path / "ca.pem").write_text(authority.certificate)
    for name, pem in zip(("key", "cert"), authority.issue("client"), strict=True):
        (tmp_path / f"{name}.pem").write_text(pem)
    files = [tmp_path / f"{name}.pem" for name in ("ca", "key", "cert")]
    (tmp_path / "models").mkdir()
    push(language_model, tmp_path / "models", 1)
    options = ServerOptions(tls=tls)
    with serve(tmp_path / "models", rest_port=None, options=options) as server:
        target = f"localhost:{server.grpc_port}"
        for secure, said in [(files, "versions of model bytes"), ([], "no server")]:
            with gateway(target, credentials=Tls.wanted(False, *secure)) as url:
                models = json.loads(ask(f"{url}/health")[2])["models"]
            assert said in models["bytes"]


class SilentServer(grpc.GenericRpcHandler):
    """Takes every request and answers none; notes those that were cancelled."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.cancelled = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._wait)

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        gone = threading.Event()
        context.add_callback(gone.set)
        self.asked.set()
        gone.wait(30)
        self.cancelled.set()
        return b""


@pytest.fixture
def silent() -> Iterator[tuple[SilentServer, str]]:
    handler = SilentServer()
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_a_model_server_that_is_too_slow(
    gateway: Callable[..., Any], silent: tuple[SilentServer, str]
) -> None:
    with (
        gateway(silent[1], timeout=0.3) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as api,
        pytest.raises(openai.InternalServerError, match="no answer") as caught,
    ):
        api.completions.create(model="bytes", prompt="")
    assert caught.value.status_code == 504


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_ends_the_question_to_the_model(
    gateway: Callable[..., Any], silent: tuple[SilentServer, str], stream: bool
) -> None:
    handler, target = silent
    with (
        gateway(target, GatewayOptions(max_running=1)) as url,
        openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=2
        ) as api,
    ):
        with pytest.raises(openai.APITimeoutError):
            api.completions.create(model="bytes", prompt="", stream=stream)
        assert handler.asked.is_set()
        assert handler.cancelled.wait(10)
        # Its place is free again, so that the next one is not refused.
        deadline = time.monotonic() + 10
        while 'status="499"' not in ask(f"{url}/metrics")[2]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(openai.APITimeoutError):
            api.completions.create(model="bytes", prompt="", stream=stream)


def test_too_many_completions(
    gateway: Callable[..., Any], silent: tuple[SilentServer, str]
) -> None:
    handler, target = silent
    with gateway(target, GatewayOptions(max_running=3), timeout=2) as url:
        path = f"{url}/v1/completions"
        two = b'{"model": "bytes", "prompt": ["a", "b"]}'
        first = threading.Thread(target=ask, args=(path, two))
        first.start()
        assert handler.asked.wait(10)
        status, headers, answer = ask(path, two)
        # One more has its room, and no answer.
        assert ask(path, b'{"model": "bytes"}')[0] == 504
        first.join()
        # So many never have.
        assert ask(path, b'{"model": "bytes", "n": 4}')[0] == 400
    assert (status, headers["Retry-After"]) == (429, "1")
    assert json.loads(answer)["error"]["code"] == "rate_limit_exceeded"


def test_a_strict_gateway_takes_what_it_knows_alone(
    gateway: Callable[..., Any], gateway_server: ModelServer
) -> None:
    with gateway(gateway_server.grpc_address, GatewayOptions(strict=True)) as url:
        status, _, body = ask(
            f"{url}/v1/completions", b'{"model": "bytes", "min_p": 0}'
        )
    assert status == 400
    assert json.loads(body)["error"]["param"] == "min_p"


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (ServingError(grpc.StatusCode.UNAVAILABLE, "gone"), 503, "service_unavailable"),
        (ValueError("not thought of"), 500, None),
    ],
)
def test_a_stream_that_breaks_says_so(
    gateway_url: str,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Exception,
    status: int,
    code: str | None,
) -> None:
    versions, ask_piece = [], Writer._ask

    async def break_off(self: Any, ids: Any, count: int) -> Any:
        versions.append(self._client.version)
        if len(ids) > 2:
            raise trouble
        return await ask_piece(self, ids, count)

    monkeypatch.setattr(Writer, "_ask", break_off)
    asked = {"model": "bytes", "prompt": "a", "max_tokens": 30, "stream": True}
    asked |= {"seed": 3}
    code_, _, body = ask(f"{gateway_url}/v1/completions", json.dumps(asked).encode())
    *parts, last = [line for line in body.splitlines() if line]
    assert code_ == 200
    assert parts
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    counted = f'requests_total{{model="bytes",status="{status}"}} 1'
    assert counted in ask(f"{gateway_url}/metrics")[2]
    # All of it was asked of one version.
    assert set(versions) == {1}
