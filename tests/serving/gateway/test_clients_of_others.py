"""What clients of vLLM and OpenAI send, and the endpoints that they look for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from langzoo.serving.client import Client
from langzoo.serving.server import ModelServer

TEXT = "naïve 10 €"


@pytest.fixture(scope="module")
def direct(gateway_server: ModelServer) -> Iterator[Client]:
    with Client(gateway_server.grpc_address, "subwords") as client:
        yield client


def test_tokenize_and_detokenize(gateway_url: str, direct: Client) -> None:
    [ids] = direct.tokenize([TEXT])
    asked = {"model": "subwords", "prompt": f"{TEXT}</s>{TEXT}"}
    told = httpx.post(f"{gateway_url}/tokenize", json=asked).json()
    assert told["tokens"] == [2, *ids, 3, *ids]
    assert (told["count"], told["max_model_len"]) == (2 * len(ids) + 2, 64)
    assert told["token_strs"] is None
    asked = {"model": "subwords", "prompt": TEXT, "add_special_tokens": False}
    asked["return_token_strs"] = True
    told = httpx.post(f"{gateway_url}/tokenize", json=asked).json()
    assert told["tokens"] == list(ids)
    [shown] = direct.detokenize([ids])
    assert told["token_strs"] == list(shown.tokens)
    asked = {"model": "subwords", "tokens": [2, *ids, 3]}
    told = httpx.post(f"{gateway_url}/detokenize", json=asked).json()
    assert told == {"prompt": f"<s>{TEXT}</s>"}
    # Without a name the first model is meant.
    told = httpx.post(f"{gateway_url}/tokenize", json={"prompt": "hi"}).json()
    assert told["tokens"] == [2, 108, 109]
    info = httpx.get(f"{gateway_url}/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<s>", "</s>")
    assert info["model_max_length"] == 64


@pytest.mark.parametrize(
    ("path", "asked", "status", "said"),
    [
        ("tokenize", {}, 400, "You must provide a prompt parameter"),
        ("tokenize", {"prompt": 5}, 400, "'prompt'"),
        ("tokenize", {"prompt": "", "model": "gpt"}, 404, "does not exist"),
        ("detokenize", {"tokens": [260]}, 400, "from 0 to 259"),
        ("detokenize", {"tokens": [-1]}, 400, "greater than or equal to 0"),
        ("detokenize", {"tokens": "a"}, 400, "'tokens'"),
    ],
)
def test_what_is_no_text_and_no_token(
    gateway_url: str, path: str, asked: dict[str, Any], status: int, said: str
) -> None:
    answer = httpx.post(f"{gateway_url}/{path}", json=asked)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_the_request_of_vllms_benchmark(gateway_url: str) -> None:
    """`async_request_openai_completions` of vllm/benchmarks/lib."""
    asked = {
        "model": "bytes",
        "prompt": "The value of",
        "repetition_penalty": 1.0,
        "max_tokens": 9,
        "logprobs": None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "ignore_eos": False,
    }
    texts, usages = [], []
    with httpx.stream("POST", f"{gateway_url}/v1/completions", json=asked) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if data in ("", "[DONE]"):
                continue
            part = json.loads(data)
            texts += [choice["text"] for choice in part["choices"]]
            usages += [part["usage"]] if part.get("usage") else []
    assert data == "" or data == "[DONE]"
    whole = httpx.post(
        f"{gateway_url}/v1/completions",
        json={**asked, "stream": False, "stream_options": None},
    ).json()
    assert "".join(texts) == whole["choices"][0]["text"]
    assert usages == [whole["usage"]]


_LITELLM = """
import gc, json, sys
gc.disable()
import litellm
asked = {
    "model": "text-completion-openai/bytes", "api_base": sys.argv[1] + "/v1",
    "api_key": "none", "prompt": "The value of", "max_tokens": 9, "seed": 1,
}
whole = litellm.text_completion(**asked, logprobs=2, user="me")
parts = list(litellm.text_completion(**asked, stream=True))
text = "".join(part.choices[0].text or "" for part in parts if part.choices)
print("ANSWER", json.dumps([whole.choices[0].text, text, whole.usage.total_tokens]))
"""


def test_litellm(gateway_url: str, gateway_server: ModelServer) -> None:
    """In its own process, as it changes what it finds."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", _LITELLM, gateway_url],
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    _, found, told = ended.stdout.partition("ANSWER ")
    assert found, ended.stderr
    with Client(gateway_server.grpc_address, "bytes") as client:
        [expected] = client.generate(["The value of"], 9, seed=1)
    tokens = expected.prompt_tokens + expected.new_tokens
    assert json.loads(told) == [expected.text, expected.text, tokens]


_MEASURED = """
import asyncio, socket, sys, time
import uvicorn
from langzoo.serving.gateway.app import Gateway
from langzoo.serving.gateway.command import Upstream
from langzoo.serving.gateway.options import GatewayOptions

target = sys.argv[1]
worst = 0.0

async def watch():
    # Time that this process has worked: others on the machine make no difference.
    global worst
    before = time.process_time()
    while True:
        await asyncio.sleep(0.001)
        now = time.process_time()
        worst, before = max(worst, now - before), now

async def measured(scope, receive, send):
    if scope["type"] == "lifespan":
        task = asyncio.create_task(watch())
    elif scope["path"] == "/worst":
        global worst
        said, worst = str(worst).encode(), 0.0
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": said})
        return
    await app(scope, receive, send)

app = Gateway(
    {"bytes": Upstream(target).client("bytes")}, GatewayOptions()
).app()
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(measured, log_config=None)).run([listener])
"""


@pytest.fixture(scope="module")
def measured(gateway_server: ModelServer) -> Iterator[str]:
    """A gateway in a process of its own, which tells how long its loop was busy."""
    command = [sys.executable, "-P", "-c", _MEASURED, gateway_server.grpc_address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


@pytest.mark.parametrize(
    ("kind", "lines", "logprobs"),
    [("text", 3000, 20), ("text", 900, 20), ("ids", 7000, 5)],
)
def test_no_request_keeps_the_others_waiting(
    measured: str, kind: str, lines: int, logprobs: int
) -> None:
    text = "The value of an object, and more. \n" * lines  # 245 kB, 105 or 31
    prompt: Any = text if kind == "text" else [4 + byte for byte in text.encode()]
    asked = {"model": "bytes", "prompt": prompt, "echo": True, "max_tokens": 0}
    asked["logprobs"] = logprobs
    told = []

    def is_quick(path: str, asked: dict[str, Any]) -> bool:
        """Whether the loop went on; what blocks it does so each time."""
        httpx.get(f"{measured}/worst")
        told.append(httpx.post(f"{measured}/{path}", json=asked, timeout=300).json())
        return float(httpx.get(f"{measured}/worst").text) < 0.05

    assert any(is_quick("v1/completions", asked) for _ in range(3))
    [choice] = told[-1]["choices"]
    assert choice["text"] == text
    tops = choice["logprobs"]["top_logprobs"]
    assert len(tops) == len(text)
    assert all(logprobs <= len(top) <= logprobs + 1 for top in tops[1:])
    assert choice["logprobs"]["text_offset"] == list(range(len(text)))
    assert any(is_quick("tokenize", {"prompt": text}) for _ in range(3))
    assert told[-1]["count"] == len(text) + 1
