"""A served model that reads a source: its clients, its commands, the gateway."""

from __future__ import annotations

import asyncio
import inspect
import json

import httpx
import keras
import pytest
import unchecked
from asgi import running
from langzoo import cli, models
from langzoo.models import zoo
from langzoo.serving.client import AsyncClient, Client, RestClient, ServingError
from langzoo.serving.export import saved_model
from langzoo.serving.gateway.app import Gateway
from langzoo.serving.gateway.options import GatewayOptions
from typer.testing import CliRunner

CONTEXT, SOURCE = 24, 16
SOURCES, TARGETS = ["a dog", "zwei", "x" * 30], ["ein Hund", "two", ""]


@pytest.fixture(scope="module")
def model():
    """A tiny model, with weights that are drawn."""
    keras.utils.set_random_seed(2)
    sizes = {"num_layers": 1, "hidden_dim": 16, "num_heads": 2}
    sizes["source_context_length"] = SOURCE
    tokenizer = models.ByteTokenizer()
    return zoo.build(
        "encoder_decoder", tokenizer, CONTEXT, task="seq_to_seq_lm", **sizes
    )


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with unchecked.exports():
        saved_model.export(model, folder / "1", task="seq_to_seq_lm")
    with unchecked.server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def asked(model, client):
    """What the client over gRPC is told."""
    return {
        "generate": client.generate(
            SOURCES, 4, temperature=0.0, forced_prefix=["", "e", "ein "]
        ),
        "beam_search": client.beam_search(SOURCES, 4, forced_prefix="é"),
        "score": client.score(SOURCES, TARGETS),
        "token_scores": client.token_scores(SOURCES, TARGETS),
        "serving_default": client.serving_default(SOURCES),
        "model_info": client.model_info(),
    }


def test_a_client_is_told_the_scores_of_the_model(model, asked):
    expected = [-row.numpy().sum() for row in model.score(SOURCES, TARGETS)]
    assert [one.nll for one in asked["score"]] == pytest.approx(expected, rel=1e-5)
    assert [one.bytes for one in asked["score"]] == [*map(len, TARGETS)]


def test_a_text_begins_with_what_is_forced(asked):
    texts = [one.text for one in asked["generate"]]
    assert texts[1][:1] + texts[2][:4] == "e" + "ein "
    assert all(beam.text[0] == "é" for beams in asked["beam_search"] for beam in beams)


def test_what_was_not_read_of_a_source_is_told(asked):
    assert [one.unread_tokens for one in asked["generate"]] == [0, 0, 31 - SOURCE]
    [info] = asked["model_info"]
    assert (info.context_length, info.source_context_length) == (CONTEXT, SOURCE)


@pytest.mark.parametrize("kind", [RestClient, AsyncClient])
def test_all_clients_are_told_the_same(server, asked, kind):
    is_rest = kind is RestClient

    async def others():
        client = kind(server.rest_address if is_rest else server.grpc_address)
        calls = [
            client.generate(
                SOURCES, 4, temperature=0.0, forced_prefix=["", "e", "ein "]
            ),
            client.beam_search(SOURCES, 4, forced_prefix="é"),
            client.score(SOURCES, TARGETS),
        ]
        found = [await it if inspect.isawaitable(it) else it for it in calls]
        closed = client.close()
        await closed if inspect.isawaitable(closed) else None
        return found

    written, beams, scores = asyncio.run(others())
    assert [w.text for w in written] == [one.text for one in asked["generate"]]
    assert [w.token_ids for w in written] == [o.token_ids for o in asked["generate"]]
    told = [[beam.text for beam in found] for found in beams]
    assert told == [[beam.text for beam in found] for found in asked["beam_search"]]
    assert [s.nll for s in scores] == pytest.approx([s.nll for s in asked["score"]])


def test_settings_of_causal_models_are_refused_in_a_line(client):
    with pytest.raises(ServingError, match="has no setting prompt_ids, only"):
        client.generate(SOURCES, prompt_ids=[[1]] * 3)


def test_there_are_as_many_targets_as_sources(client):
    with pytest.raises(ValueError, match="targets: 1 values given for 3"):
        client.score(SOURCES, ["a"])


def run(server, *arguments, rest=False):
    address = server.rest_address if rest else server.grpc_address
    given = [*arguments, "--server", address, *(["--rest"] if rest else [])]
    return CliRunner().invoke(cli.app, given)


@pytest.mark.parametrize("rest", [False, True])
def test_the_command_writes_what_the_model_is_likeliest_to(server, client, rest):
    most = "--max-new-tokens=4"
    ended = run(server, "translate", "a dog", most, "--json", rest=rest)
    [expected] = client.generate(["a dog"], 4, temperature=0.0)
    told = json.loads(ended.stdout)
    assert (told["prompt"], told["text"]) == ("a dog", expected.text)
    assert "tokens" not in told


def test_the_command_has_a_second_name_beams_and_files(server, client, tmp_path):
    (tmp_path / "texts").write_text("a dog\nzwei\n")
    options = ["--file", str(tmp_path / "texts"), "--beams=2", "--max-new-tokens=3"]
    ended = run(server, "summarize", *options, "--forced-prefix=q", "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    expected = client.beam_search(SOURCES[:2], 3, num_beams=2, forced_prefix="q")
    assert [[beam["text"] for beam in line["beams"]] for line in lines] == [
        [beam.text for beam in beams] for beams in expected
    ]


def test_the_command_tells_what_was_not_read(server):
    ended = run(server, "translate", SOURCES[2], "--max-new-tokens=1")
    assert "15 tokens of this text were not read" in ended.stderr


def test_the_command_scores_pairs(server, client):
    given = ["a dog", "zwei", "--target=ein Hund", "--target=two"]
    ended = run(server, "score", *given, "--tokens", "--json")
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    expected = client.score(["a dog", "zwei"], ["ein Hund", "two"])
    assert [one["nll"] for one in told] == [score.nll for score in expected]
    assert [len(one["token_scores"]) for one in told] == [9, 4]


def test_a_target_is_given_for_each_text(server):
    ended = run(server, "score", "a dog", "zwei", "--target=ein Hund")
    assert ended.stderr == (
        "langzoo: give --target once for each text, and texts as arguments\n"
    )


def test_the_gateway_completes_a_source(server, client):
    upstream = AsyncClient(server.grpc_address)
    body = {"model": "m", "prompt": SOURCES[:2], "max_tokens": 4, "temperature": 0}
    with running(Gateway({"m": upstream}, GatewayOptions()).app()) as url:
        told = httpx.post(f"{url}/v1/completions", json=body).json()
        streamed = httpx.post(
            f"{url}/v1/completions", json={**body, "prompt": "a dog", "stream": True}
        ).text
    written = client.generate(SOURCES[:2], 4, temperature=0.0)
    expected = [one.text_bytes.decode(errors="replace") for one in written]
    assert [choice["text"] for choice in told["choices"]] == expected
    assert told["usage"]["prompt_tokens"] == sum(len(s) + 1 for s in SOURCES[:2])
    parts = [json.loads(line[6:]) for line in streamed.splitlines() if line[6:7] == "{"]
    assert "".join(part["choices"][0]["text"] for part in parts) == expected[0]
