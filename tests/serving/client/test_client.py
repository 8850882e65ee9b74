"""The client, against a real server of a small language model."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
from grpc import StatusCode
from langzoo.serving.client import (
    Client,
    DType,
    Generation,
    Score,
    ServingError,
    State,
    TensorSpec,
    TokenScores,
    VersionStatus,
)
from langzoo.serving.server import ModelServer

TEXTS = ["To be, or not to be", "that is", ""]


@pytest.fixture(scope="module")
def client(language_server: ModelServer) -> Iterator[Client]:
    with Client(language_server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def loaded_model(language_model: Path) -> Any:
    """The served model, to be called directly."""
    return tf.saved_model.load(str(language_model))


@pytest.fixture
def signatures(loaded_model: Any) -> Mapping[str, Callable]:
    return loaded_model.signatures


def test_scores_are_those_of_the_signature(
    client: Client, signatures: Mapping[str, Callable]
) -> None:
    direct = signatures["score"](text=tf.constant(TEXTS))
    names = ("nll", "tokens", "bytes", "words", "spelling_nll")
    expected = [
        Score(*row)
        for row in zip(*(direct[name].numpy().tolist() for name in names), strict=True)
    ]
    assert client.score(TEXTS) == expected
    assert [score.tokens for score in expected] == [20, 8, 1]


def test_measures_of_a_score() -> None:
    # Two bits for each of four bytes, as one word of two tokens.
    score = Score(nll=8 * math.log(2), tokens=2, bytes=4, words=1)
    assert score.perplexity == pytest.approx(2**4)
    assert score.word_perplexity == pytest.approx(2**8)
    assert score.bits_per_byte == pytest.approx(2)


def test_what_is_unknown_is_spelled_in_all_but_the_perplexity() -> None:
    nats = {"nll": 8 * math.log(2), "spelling_nll": 4 * math.log(2)}
    score = Score(**nats, tokens=2, bytes=4, words=1)
    assert score.perplexity == pytest.approx(2**4)
    assert score.word_perplexity == pytest.approx(2**12)
    assert score.bits == pytest.approx(12)
    assert score.bits_per_byte == pytest.approx(3)


def test_measures_that_have_no_value() -> None:
    empty = Score(nll=3.0, tokens=1, bytes=0, words=0)
    assert math.isnan(empty.bits_per_byte)
    assert math.isnan(empty.word_perplexity)
    assert Score(nll=1e9, tokens=1, bytes=1, words=1).perplexity == math.inf


def test_next_tokens_are_those_of_the_signature(
    client: Client, signatures: Mapping[str, Callable]
) -> None:
    direct = signatures["serving_default"](text=tf.constant(TEXTS[:2]))
    answers = client.next_tokens(TEXTS[:2])
    assert [list(answer.tokens) for answer in answers] == [
        [token.decode() for token in row] for row in direct["token"].numpy()
    ]
    assert [list(answer.probabilities) for answer in answers] == (
        direct["probability"].numpy().tolist()
    )


def test_token_scores_end_where_the_text_does(
    client: Client, signatures: Mapping[str, Callable]
) -> None:
    direct = signatures["token_scores"](text=tf.constant(TEXTS))
    answers = client.token_scores(TEXTS)
    for row, answer in enumerate(answers):
        length = len(TEXTS[row]) + 1
        scores = direct["log_probability"].numpy()[row, :length].tolist()
        assert answer.log_probabilities == tuple(scores)
        assert answer.tokens[-1] == "</s>"
        assert len(answer.tokens) == length
    assert isinstance(answers[0], TokenScores)


def test_generate_leaves_to_the_server_what_is_not_given(client: Client) -> None:
    assert client.generate(["a", "b"]) == [
        Generation("a|16|1|0|1|0", 16, "length"),
        Generation("b|16|1|0|1|0", 16, "length"),
    ]


def test_generate_sends_one_value_for_all_prompts_or_one_for_each(
    client: Client,
) -> None:
    answers = client.generate(
        ["a", "b"], [1, 2], temperature=0.5, top_k=(3, 4), top_p=0.25, seed=[5, 6]
    )
    texts = [answer.text for answer in answers]
    assert texts == ["a|1|0.5|3|0.25|5", "b|2|0.5|4|0.25|6"]


@pytest.mark.parametrize("method", ["score", "next_tokens", "token_scores", "generate"])
def test_no_texts_give_no_answers(client: Client, method: str) -> None:
    assert getattr(client, method)([]) == []


def test_text_may_be_bytes_and_need_not_be_utf8(client: Client) -> None:
    assert [score.bytes for score in client.score([b"\xff\xfe", "é"])] == [2, 2]
    [generation] = client.generate([b"\xff"])
    assert generation.text.startswith("\\xff|")


def test_status(client: Client) -> None:
    assert client.status() == [VersionStatus(7, State.AVAILABLE, None)]


def test_metadata(client: Client) -> None:
    metadata = client.metadata()
    assert (metadata.name, metadata.version) == ("langzoo", 7)
    generate = metadata.signatures["generate"]
    assert generate.inputs["seed"] == TensorSpec(DType.INT32, (None,))
    next_tokens = metadata.signatures["serving_default"]
    assert next_tokens.outputs["probability"] == TensorSpec(DType.FLOAT32, (None, 10))


def test_threads_may_share_a_client(client: Client) -> None:
    answers: dict[int, int] = {}

    def ask(size: int) -> None:
        answers[size] = client.score(["a" * size])[0].bytes

    threads = [threading.Thread(target=ask, args=(size,)) for size in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {size: size for size in range(1, 17)}


def test_a_version_that_is_not_served(language_server: ModelServer) -> None:
    with (
        Client(language_server.grpc_address, version=6) as client,
        pytest.raises(ServingError, match=r"Specific\(langzoo, 6\)") as caught,
    ):
        client.score(["a"])
    assert caught.value.code is StatusCode.NOT_FOUND


def test_another_kind_of_model(scale_server: ModelServer) -> None:
    with Client(scale_server.grpc_address, "scale") as client:
        with pytest.raises(ServingError, match='Serving signature key "score" not'):
            client.score(["a"])
        with pytest.raises(ServingError, match="Signature input alias: x") as caught:
            client.next_tokens(["a"])
        assert "\n" not in str(caught.value)


def test_a_server_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(target, timeout=0.3) as client,
            pytest.raises(ServingError) as caught,
        ):
            client.score(["a"])
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    assert str(caught.value) == f"no answer from {target} within 0.3 s"


def test_waiting_for_a_server_that_is_yet_to_start(
    tmp_path: Path, language_model: Path, push: Callable, free_port: int
) -> None:
    server = ModelServer(
        "langzoo",
        tmp_path,
        host="127.0.0.1",
        grpc_port=free_port,
        rest_port=None,
        poll_seconds=0.05,
    )
    with Client(f"127.0.0.1:{free_port}") as client:
        with pytest.raises(ServingError, match="no server answers") as caught:
            client.wait_until_ready(0.2)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        with server:
            with pytest.raises(ServingError, match=r"not ready .* any versions"):
                client.wait_until_ready(1)
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "saved_model.pb").write_bytes(b"garbage")
            while not server._models.get("langzoo").statuses():
                time.sleep(0.01)
            with pytest.raises(ServingError, match=r"version 1: .*saved_model\.pb"):
                client.wait_until_ready(0.5)
            push(language_model, tmp_path, 2)
            client.wait_until_ready(60)
            assert client.score(["a"])
