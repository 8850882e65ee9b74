"""`/classify`, `/fill`, `/tag` and `/signatures`, beside what the model server says."""

from __future__ import annotations

import math
from typing import Any

import httpx
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import openai
import pytest
from langzoo.serving.client import Client
from langzoo.serving.server import ModelServer

TEXTS = ["To be, or not to be", "", "é" * 200]


def test_labels_are_told_in_their_order(
    answering_url: str, answering_server: ModelServer
) -> None:
    with Client(answering_server.grpc_address, "labels") as client:
        expected = client.classify(TEXTS)
    body = {"model": "labels", "input": TEXTS}
    told = httpx.post(f"{answering_url}/classify", json=body).json()
    assert told["model"] == "labels"
    for index, (row, one) in enumerate(zip(told["data"], expected, strict=True)):
        by_label = dict(zip(one.labels, one.probabilities, strict=True))
        assert row == {
            "index": index,
            "label": one.labels[0],
            "labels": ["bad", "good", "odd"],
            "num_classes": 3,
            "probs": [pytest.approx(by_label[n]) for n in ("bad", "good", "odd")],
        }


def test_pieces_are_told_for_each_gap(
    answering_url: str, answering_server: ModelServer
) -> None:
    text = "a [MASK] b [MASK]"
    with Client(answering_server.grpc_address, "gaps") as client:
        [expected] = client.fill_mask([text], alternatives=3)
    body = {"model": "gaps", "input": text, "alternatives": 3}
    [row] = httpx.post(f"{answering_url}/fill", json=body).json()["data"]
    assert (row["index"], row["mask"]) == (0, "[MASK]")
    assert [[one["token"] for one in gap] for gap in row["alternatives"]] == [
        [one.token for one in gap] for gap in expected.alternatives
    ]
    assert all(-math.inf < one["logprob"] <= 0 for one in row["alternatives"][1])


def test_words_are_told_with_their_tags(
    answering_url: str, answering_server: ModelServer
) -> None:
    with Client(answering_server.grpc_address, "tags") as client:
        expected = client.tag(TEXTS)
    body = {"model": "tags", "input": TEXTS}
    told = httpx.post(f"{answering_url}/tag", json=body).json()["data"]
    for index, (row, one) in enumerate(zip(told, expected, strict=True)):
        assert row == {
            "index": index,
            "words": list(one.words),
            "tags": list(one.tags),
            "probs": pytest.approx(one.probabilities),
        }


def test_what_a_model_answers_is_told(answering_url: str, gateway_url: str) -> None:
    def signatures(url: str, name: str) -> Any:
        answer = httpx.get(f"{url}/signatures", params={"model": name})
        return answer.json()["signatures"]

    assert {"classify", "embed"} <= {*signatures(answering_url, "labels")}
    assert "fill_mask" in signatures(answering_url, "gaps")
    assert "tag" in signatures(answering_url, "tags")["serving_default"]
    assert "generate" in signatures(gateway_url, "subwords")


def test_a_classifier_gives_vectors(answering_url: str) -> None:
    url = f"{answering_url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as api:
        [one] = api.embeddings.create(model="labels", input="a").data
        assert len(one.embedding) == 8
        with pytest.raises(openai.BadRequestError, match="does not answer generate"):
            api.completions.create(model="labels", prompt="a")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("classify", {"model": "gaps", "input": "a"}, "does not answer classify: it"),
        ("tag", {"model": "labels", "input": "a"}, "does not answer tag: it answers"),
        ("classify", {"model": "nobody", "input": "a"}, "does not exist"),
        ("classify", {"model": "labels"}, "must provide a input"),
        ("classify", {"model": "labels", "input": [1]}, "'input.0'"),
        ("classify", {"model": "labels", "input": []}, "'input'"),
        ("classify", {"model": "labels", "input": "a", "top_n": 2}, "top_n"),
        ("fill", {"model": "gaps", "input": "a", "alternatives": 0}, "'alternatives'"),
        ("fill", {"input": "a"}, "does not answer fill_mask"),
    ],
)
def test_what_cannot_be_answered_is_a_line(
    answering_url: str, path: str, body: dict[str, Any], message: str
) -> None:
    answer = httpx.post(f"{answering_url}/{path}", json=body)
    assert answer.status_code in (400, 404)
    assert message in answer.json()["error"]["message"]
    assert "nobody" not in httpx.get(f"{answering_url}/metrics").text
