"""The three clients, which must say the same of the same model and the same trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
import unchecked
from grpc import StatusCode
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.serving.client import Alternative, Beam, Client, ServingError, State
from langzoo.serving.server import ModelServer, ServerOptions
from langzoo.serving.server.batching import BatchingParameters

Push = Callable[[Path, Path, int], None]
TEXTS = ["To be, or not to be", "", b"\xff\x00 \xc3", "\u00e9\U0001f600"]
SETTINGS = {
    "max_new_tokens": [1, 0, 3, 2],
    "temperature": 0.5,
    "top_k": (3, 4, 5, 6),
    "top_p": 0.25,
    "seed": -7,
    "repetition_penalty": 1.5,
    "presence_penalty": [0.5, 1.5, 2.5, 3.5],
    "frequency_penalty": 2,
    "stop": ["\n", b"\xff"],
    "seed_offset": 9,
}


Connect = Callable[..., Any]
Serve = Callable[..., AbstractContextManager[ModelServer]]


@pytest.fixture(scope="module")
def reference(telling_server: ModelServer) -> Iterator[Client]:
    with Client(telling_server.grpc_address) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("score", {}),
        ("token_scores", {}),
        ("cache_scores", {}),
        ("cache_scores", {"cache_size": 7, "cache_weight": [0.1, 0.2, 0.3, 0.4]}),
        ("token_alternatives", {}),
        ("embed", {}),
        ("embed", {"token_ids": [[1, 23], [], range(4), (5,)]}),
        ("generate", {}),
        ("generate", SETTINGS),
        ("beam_search", {}),
        ("beam_search", {"num_beams": [1, 2, 3, 4], "length_penalty": 0.6}),
    ],
)
def test_all_clients_give_the_same_answers(
    connect: Connect,
    telling_server: ModelServer,
    reference: Client,
    method: str,
    options: dict[str, Any],
) -> None:
    expected = getattr(reference, method)(TEXTS, **options)
    client = connect(telling_server, batch_size=3)
    assert getattr(client, method)(TEXTS, **options) == expected
    assert len(expected) == len(TEXTS)


@pytest.fixture(scope="module")
def exported_server(
    serve: Serve, drawn_export: Callable[..., Path]
) -> Iterator[ModelServer]:
    """A server of a real export."""
    path = drawn_export(ByteTokenizer())
    with serve(path, options=ServerOptions(session=unchecked.AS_IT_IS)) as server:
        yield server


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("score", {}),
        ("token_alternatives", {}),
        ("generate", {**SETTINGS, "max_new_tokens": [5, 6, 0, 3], "seed_offset": 0}),
        ("generate", {"max_new_tokens": 3, "alternatives": [20, 0, 1, 5]}),
        ("generate", {"max_new_tokens": 3, "prompt_ids": [[2, 70], [], [9], [2]]}),
        ("beam_search", {"max_new_tokens": 5, "num_beams": [1, 2, 3, 4], "stop": "e"}),
        ("tokenize", {}),
        ("model_info", {}),
    ],
)
def test_all_clients_give_the_same_answers_of_an_export(
    connect: Connect,
    exported_server: ModelServer,
    method: str,
    options: dict[str, Any],
) -> None:
    with Client(exported_server.grpc_address) as client:
        expected = getattr(client, method)(TEXTS, **options)
    assert getattr(connect(exported_server), method)(TEXTS, **options) == expected


@pytest.mark.parametrize("options", [{}, {"alternatives": [3, 0]}])
def test_all_clients_take_token_ids(
    connect: Connect, exported_server: ModelServer, options: dict[str, Any]
) -> None:
    client, ids = connect(exported_server), [[2, 70, 71], []]
    with Client(exported_server.grpc_address) as other:
        expected = other.id_alternatives(ids, **options)
    assert client.id_alternatives(ids, **options) == expected
    assert expected[0].count == (3 if options else 5)
    assert len(expected[0].log_probabilities) == 3
    assert [shown.text for shown in client.detokenize(ids)] == ["<s>BC", ""]
    with pytest.raises(ValueError, match="from 0"):
        client.detokenize([[-1]])


def test_a_generation_of_an_export_is_told_in_full(
    exported_server: ModelServer,
) -> None:
    with Client(exported_server.grpc_address) as client:
        [generation] = client.generate(["a"], 5, temperature=0)
        [scores] = client.token_alternatives([b"a" + generation.text_bytes])
        [[beam]] = client.beam_search(["a"], 5, num_beams=1)
    assert generation.prompt_tokens == 1
    assert generation.tokens is not None
    assert generation.alternatives is not None
    assert len(generation.tokens) == generation.new_tokens
    # The likeliest token was taken, and one beam is the greedy text.
    firsts = tuple(place[0].token for place in generation.alternatives)
    assert generation.tokens == firsts
    assert beam.text == generation.text
    assert len(scores.alternatives[0]) == 5


def test_all_clients_say_the_same_of_the_model(
    connect: Connect, telling_server: ModelServer, reference: Client
) -> None:
    client = connect(telling_server, version=8)
    client.wait_until_ready(10)
    assert client.next_tokens(TEXTS[:1]) == reference.next_tokens(TEXTS[:1])
    assert client.metadata() == reference.metadata()
    assert client.metadata().signatures["generate"].defaults["max_new_tokens"] == [4]
    assert client.status() == reference.status()
    assert client.status()[0].state is State.AVAILABLE


@pytest.fixture(scope="module")
def signatures(telling_model: Path) -> Any:
    """Those of the model, to be called directly."""
    loaded = tf.saved_model.load(str(telling_model))
    return loaded.signatures


def test_alternatives_are_those_of_the_signature(
    reference: Client, signatures: Any
) -> None:
    direct = signatures["token_alternatives"](text=tf.constant(["ab", ""]))
    first, second = reference.token_alternatives(["ab", ""])
    assert (len(first.alternatives), len(second.alternatives)) == (3, 1)
    assert first.alternatives[2] == tuple(
        Alternative(token.decode(), pytest.approx(log_probability))
        for token, log_probability in zip(
            direct["top_token"].numpy()[0, 2],
            direct["top_log_probability"].numpy()[0, 2],
            strict=True,
        )
    )


def test_a_generation_tells_of_its_own_tokens_alone(reference: Client) -> None:
    short, long = reference.generate(["ab", "c"], max_new_tokens=[1, 3])
    assert (short.prompt_tokens, long.prompt_tokens) == (2, 1)
    assert (short.tokens, long.tokens) == ((" ",), (" ", "!", '"'))
    assert long.log_probabilities is not None
    assert len(short.log_probabilities or ()) == len(short.alternatives or ()) == 1
    assert len(set(long.log_probabilities)) == len(long.alternatives or ()) == 3


def test_the_bytes_of_a_generation_are_exact(
    connect: Connect, telling_server: ModelServer
) -> None:
    [generation] = connect(telling_server).generate([b"\xff\xc3"])
    assert generation.text_bytes.startswith(b"\xff\xc3|4|")
    assert generation.text.startswith("\\xff\\xc3|4|")


def test_a_version_that_is_not_served(
    connect: Connect, telling_server: ModelServer
) -> None:
    with pytest.raises(ServingError, match=r"Specific\(langzoo, 6\)") as caught:
        connect(telling_server, version=6).score(["a"])
    assert caught.value.code is StatusCode.NOT_FOUND


def test_beams_that_are_not_there_are_left_out(reference: Client) -> None:
    one, three = reference.beam_search(["a", "b"], 5, num_beams=[1, 3], stop="x")
    log_probability = pytest.approx(-1.1)
    assert one == (Beam("a|5|1|1|x,,,0", log_probability, log_probability, 0, "stop"),)
    assert [beam.text[-1] for beam in three] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("stop", "sent"),
    [
        (None, [",,,"] * 2),
        ("", [",,,"] * 2),
        ("x", ["x,,,"] * 2),
        (["x", b"y"], ["x,y,,"] * 2),
        (("1", "2", "3", "4"), ["1,2,3,4"] * 2),
        ([["x"], ["y", "z"]], ["x,,,", "y,z,,"]),
        (["x", ["y", "z"]], ["x,,,", "y,z,,"]),
        ([[], ["y"]], [",,,", "y,,,"]),
    ],
)
def test_stop_is_for_all_prompts_or_for_each(
    reference: Client, stop: Any, sent: list[str]
) -> None:
    answers = reference.generate(["a", "b"], stop=stop)
    assert [answer.text.split("|")[-2] for answer in answers] == sent


def test_numbers_of_numpy_are_numbers(reference: Client) -> None:
    seeds = tf.constant([5, 6]).numpy()
    answers = reference.generate(["a", "b"], seed=seeds, top_k=seeds[0])
    assert [answer.text.split("|")[3:6:2] for answer in answers] == [
        ["5", "5"],
        ["5", "6"],
    ]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"temperatur": 1}, TypeError, "generate takes max_new_tokens, temperature,"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number.* 'hot'"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number.* 1.5"),
        ({"seed": [1, "x"]}, TypeError, "seed must be a whole number.* 'x'"),
        ({"seed": 2**31}, ValueError, "seed must be from -2147483648 to 2147483647"),
        ({"top_p": [1.0]}, ValueError, "top_p: 1 values given for 2 prompts; give one"),
        ({"stop": list("abcde")}, ValueError, "stop takes up to 4 .* Received: 5"),
        ({"stop": [["a"]]}, ValueError, "stop: 1 values given for 2 prompts"),
        ({"stop": 7}, TypeError, "stop must be a string or up to 4.* Received: 7"),
        ({"stop": [1, 2]}, TypeError, "stop must be a string or up to 4"),
    ],
)
def test_a_wrong_setting_is_told_before_it_is_sent(
    connect: Connect, settings: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        connect("127.0.0.1:1").generate(["a", "b"], **settings)


@pytest.mark.parametrize(
    ("method", "texts", "message"),
    [
        ("score", "text", "give a list of texts"),
        ("beam_search", b"text", "give a list of texts"),
        ("score", [1], "a text must be a string or bytes. Received: 1"),
    ],
)
def test_a_wrong_text_is_told_before_it_is_sent(
    connect: Connect, method: str, texts: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(connect("127.0.0.1:1"), method)(texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": 5}, "retries must be 0 to 4"),
        ({"retries": -1}, "retries must be 0 to 4"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"timeout": 0}, "timeout must be above 0"),
    ],
)
def test_a_wrong_option_is_told(
    connect: Connect, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        connect("127.0.0.1:1", **options)


def test_an_older_export_still_generates(
    connect: Connect, language_server: ModelServer
) -> None:
    client = connect(language_server)
    [generation] = client.generate(["a"], temperature=0.5)
    assert generation.text == "a|16|0.5|0|1|0"
    assert (generation.tokens, generation.prompt_tokens) == (None, None)
    assert (generation.log_probabilities, generation.alternatives) == (None, None)


def test_what_an_older_export_does_not_know_is_told(
    connect: Connect, language_server: ModelServer
) -> None:
    client = connect(language_server)
    with pytest.raises(ServingError) as caught:
        client.generate(["a"], stop="x", presence_penalty=1)
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert str(caught.value) == (
        f"generate of the model at {client.target} has no setting stop, "
        "presence_penalty, only max_new_tokens, seed, temperature, top_k, top_p"
    )
    only = "generate, score, serving_default, token_scores"
    with pytest.raises(
        ServingError, match=f"has no signature beam_search, only {only}"
    ):
        client.beam_search(["a"])


def test_a_version_with_other_settings_is_noticed(
    connect: Connect,
    serve: Serve,
    tmp_path: Path,
    language_model: Path,
    telling_model: Path,
    push: Push,
) -> None:
    push(language_model, tmp_path, 1)
    with serve(tmp_path) as server:
        client = connect(server)
        assert client.generate(["a"])[0].tokens is None
        push(telling_model, tmp_path, 2)
        with Client(server.grpc_address, version=2) as second:
            second.wait_until_ready(30)
        assert client.generate(["a"], top_k=2, stop="x")[0].tokens is not None


def test_defaults_go_along_where_a_server_joins_requests(
    connect: Connect, serve: Serve, tmp_path: Path, telling_model: Path, push: Push
) -> None:
    push(telling_model, tmp_path, 1)
    options = ServerOptions(batching=BatchingParameters())
    with serve(tmp_path, options=options) as server:
        answers = connect(server).generate(["a", "b", "c"], seed=[1, 2, 3])
        assert [answer.text[0] for answer in answers] == ["a", "b", "c"]


def test_a_long_list_goes_in_batches_and_comes_in_order(
    connect: Connect, serve: Serve, tmp_path: Path, language_model: Path, push: Push
) -> None:
    push(language_model, tmp_path, 1)
    texts = [f"{'to be ' * (7 - size % 7)}{size}" for size in range(23)]
    with serve(tmp_path) as server:
        scores = connect(server, batch_size=4).score(texts)
        assert [score.bytes for score in scores] == list(map(len, texts))
        assert server.metrics.requests._cells == {("langzoo", "OK"): 6}


def test_an_error_of_the_server_is_told_and_not_tried_again(
    connect: Connect,
    serve: Serve,
    tmp_path: Path,
    scale_model: Callable[[int], Path],
    push: Push,
) -> None:
    push(scale_model(3), tmp_path, 1)
    with serve(tmp_path) as server:
        with pytest.raises(ServingError, match='"score" not found') as caught:
            connect(server, retries=4).score(["a"])
        assert caught.value.code in (
            StatusCode.FAILED_PRECONDITION,
            StatusCode.INVALID_ARGUMENT,
        )
        assert sum(server.metrics.requests._cells.values()) == 1
        with pytest.raises(ServingError, match="nobody") as caught:
            connect(server, "nobody", batch_size=1).score(["a", "b", "c"])
        assert caught.value.code is StatusCode.NOT_FOUND


def test_no_server(connect: Connect, free_port: int) -> None:
    client = connect(f"127.0.0.1:{free_port}")
    with pytest.raises(ServingError) as caught:
        client.score(["a"])
    assert caught.value.code is StatusCode.UNAVAILABLE
    assert str(caught.value) == f"no server answers at 127.0.0.1:{free_port}"
    with pytest.raises(ServingError, match=r"not ready after 0.2 s: no server answers"):
        client.wait_until_ready(0.2)
