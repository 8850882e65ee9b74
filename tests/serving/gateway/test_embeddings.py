"""`/v1/embeddings`, asked by OpenAI's own client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import openai
import pytest
from langzoo.serving.client import Client
from langzoo.serving.server import ModelServer

TEXTS = ["To be, or not to be", "", "\u00e9\U0001f600" * 200]


@pytest.fixture(scope="module")
def expected(gateway_server: ModelServer) -> Any:
    with Client(gateway_server.grpc_address, "subwords") as client:
        return client.embed(TEXTS)


def test_the_official_client(api: openai.OpenAI, expected: Any) -> None:
    # It asks for base64 by itself.
    answer = api.embeddings.create(model="subwords", input=TEXTS)
    assert [one.index for one in answer.data] == [0, 1, 2]
    for told, one in zip(answer.data, expected, strict=True):
        np.testing.assert_array_equal(
            np.float32(told.embedding), np.float32(one.vector)
        )
    tokens = sum(one.tokens for one in expected)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens
    numbers = api.embeddings.create(
        model="subwords", input=TEXTS[0], encoding_format="float"
    )
    assert numbers.data[0].embedding == pytest.approx(expected[0].vector, abs=1e-6)


def test_token_ids_are_read_as_they_are(
    api: openai.OpenAI, gateway_server: ModelServer, expected: Any
) -> None:
    with Client(gateway_server.grpc_address, "subwords") as client:
        [info], [ids] = client.model_info(), client.tokenize(TEXTS[:1])
    framed = [info.special_ids[2], *ids]
    for given in (framed, [framed]):
        [told] = api.embeddings.create(model="subwords", input=given).data
        assert told.embedding == pytest.approx(expected[0].vector, abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="token ids are from 0 to"):
        api.embeddings.create(model="subwords", input=[10**6])


def test_fewer_dimensions_are_the_first_ones_and_as_long(
    api: openai.OpenAI, expected: Any
) -> None:
    answer = api.embeddings.create(model="subwords", input=TEXTS, dimensions=3)
    for told, one in zip(answer.data, expected, strict=True):
        first = np.array(one.vector[:3])
        assert np.linalg.norm(told.embedding) == pytest.approx(1, rel=1e-5)
        np.testing.assert_allclose(
            told.embedding, first / np.linalg.norm(first), rtol=1e-5
        )
    with pytest.raises(openai.BadRequestError, match="vectors have 8"):
        api.embeddings.create(model="subwords", input="a", dimensions=9)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": "a"}, "must provide a model"),
        ({"model": "subwords"}, "must provide a input"),
        ({"model": "subwords", "input": []}, "'input'"),
        ({"model": "subwords", "input": [["a"]]}, "list of token ids"),
        ({"model": "subwords", "input": ["a"] * 2049}, "more than 2048 texts"),
        ({"model": "subwords", "input": "a", "encoding_format": "x"}, "base64"),
        ({"model": "subwords", "input": "a", "dimensions": 0}, "'dimensions'"),
        ({"model": "subwords", "input": "a", "instruction": "x"}, "instruction"),
        ({"model": "nobody", "input": "a"}, "does not exist"),
    ],
)
def test_what_cannot_be_answered_is_said(
    gateway_url: str, body: Any, message: str
) -> None:
    data = json.dumps(body).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{gateway_url}/v1/embeddings", data)
    assert message in json.load(caught.value)["error"]["message"]


def test_a_field_that_changes_nothing_is_taken(api: openai.OpenAI) -> None:
    extra = {"priority": 3, "truncate_prompt_tokens": None, "user": "me"}
    assert api.embeddings.create(model="subwords", input="a", extra_body=extra).data
