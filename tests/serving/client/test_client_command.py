"""`langzoo next`, `score` and `generate`, asking a real server."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from langzoo import cli
from langzoo.cli import asking
from langzoo.cli.common import print_json
from langzoo.serving.client import Client
from langzoo.serving.server import ModelServer
from langzoo.serving.server.app import ServerOptions
from langzoo.serving.server.config_files import TlsConfig
from typer.testing import CliRunner

Run = Callable[..., Any]


@pytest.fixture(params=["gRPC", "--rest", "URL"])
def server(request: pytest.FixtureRequest, telling_server: ModelServer) -> list[str]:
    """The options that name a server, in all ways."""
    return {
        "gRPC": ["--server", telling_server.grpc_address],
        "--rest": ["--rest", "--server", str(telling_server.rest_address)],
        "URL": ["--server", f"http://{telling_server.rest_address}/"],
    }[request.param]


@pytest.fixture
def grpc_server(telling_server: ModelServer) -> list[str]:
    return ["--server", telling_server.grpc_address]


def run(*arguments: Any, stdin: bytes | None = None) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, arguments)), input=stdin)


def run_json(*arguments: Any, stdin: bytes | None = None) -> list[Any]:
    """What a command prints with `--json`."""
    ended = run(*arguments, "--json", stdin=stdin)
    assert (ended.exit_code, ended.stderr) == (0, "")
    return [
        json.loads(line, parse_constant=pytest.fail)
        for line in ended.stdout.splitlines()
    ]


def test_generate(server: list[str]) -> None:
    settings = [
        "--max-new-tokens=2",
        "--temperature=0.5",
        "--top-k=3",
        "--top-p=0.25",
        "--seed=-4",
        "--repetition-penalty=1.5",
        "--presence-penalty=2.5",
        "--frequency-penalty=3.5",
        "--stop=x",
        "--stop=y",
        "--seed-offset=6",
    ]
    first, second = run_json("generate", "ab", "c", *settings, *server)
    told = "|2|0.5|3|0.25|-4|1.5|2.5|3.5|x,y,,|6"
    assert first == {
        "prompt": "ab",
        "text": f"ab{told}",
        "new_tokens": 2,
        "finish_reason": "length",
        "prompt_tokens": 2,
    }
    assert second["text"] == f"c{told}"
    shown = run("generate", "ab", "c", *settings, *server).stdout
    assert shown.splitlines() == [f"abab{told}", f"cc{told}"]


def test_the_tokens_of_a_generation(grpc_server: list[str]) -> None:
    [told] = run_json("generate", "a", "--max-new-tokens=3", "--tokens", *grpc_server)
    assert told["tokens"] == [" ", "!", '"']
    assert len(told["log_probabilities"]) == len(told["alternatives"]) == 3
    assert set(told["alternatives"][0][0]) == {"token", "log_probability"}
    shown = run("generate", "a", "--max-new-tokens=3", "--tokens", *grpc_server).stdout
    percent = math.exp(told["log_probabilities"][2])
    assert shown.splitlines()[3] == f"  {percent:7.2%}  '\"'"


def test_beams(server: list[str]) -> None:
    options = ["--beams=2", "--length-penalty=0.5", "--stop=x", *server]
    [told] = run_json("generate", "a", *options)
    assert [beam["text"] for beam in told["beams"]] == [
        "a|4|2|0.5|x,,,0",
        "a|4|2|0.5|x,,,1",
    ]
    lines = run("generate", "a", *options).stdout.splitlines()
    assert lines == ["  -2.200  aa|4|2|0.5|x,,,0", "  -4.400  aa|4|2|0.5|x,,,1"]


def test_score(server: list[str], telling_server: ModelServer) -> None:
    first, empty = run_json("score", "ab c", "", "--tokens", *server)
    with Client(telling_server.grpc_address) as client:
        [score], [detail] = client.score(["ab c"]), client.token_scores(["ab c"])
    assert first["nll"] == score.nll
    assert first["bits_per_byte"] == score.bits_per_byte
    assert [part["token"] for part in first["token_scores"]] == [*detail.tokens]
    assert first["token_scores"][1]["log_probability"] == detail.log_probabilities[1]
    # JSON has no NaN.
    assert empty["bits_per_byte"] is None
    assert len(run("score", "ab c", "--tokens", *server).stdout.splitlines()) == 6


def test_score_with_a_cache(server: list[str], telling_server: ModelServer) -> None:
    options = ("--cache-size", "4", *server)
    [plain], [told] = (
        run_json("score", "ab c", *server),
        run_json("score", "ab c", *options),
    )
    with Client(telling_server.grpc_address) as client:
        [cached] = client.cache_scores(["ab c"], cache_size=4)
    adapted = told.pop("with_cache")
    assert told == plain
    nll = -sum(cached.log_probabilities)
    assert adapted["nll"] == pytest.approx(nll)
    assert adapted["perplexity"] == pytest.approx(math.exp(nll / told["tokens"]))
    static, with_cache = run("score", "ab c", "--cache", *server).stdout.splitlines()
    assert static == run("score", "ab c", *server).stdout.strip()
    assert "with a cache" in with_cache


def test_next(server: list[str]) -> None:
    [told] = run_json("next", "ab", *server)
    assert len(told["tokens"]) == len(told["probabilities"]) == 10
    ended = run("next", "ab", *server)
    assert (ended.exit_code, ended.stderr) == (0, "")
    shown = ended.stdout.splitlines()
    assert shown[0] == "ab"
    assert shown[1] == f"  {told['probabilities'][0]:7.2%}  {told['tokens'][0]!r}"


def test_embed(server: list[str]) -> None:
    [first, _] = run_json("embed", "ab", "", *server)
    assert first == {"text": "ab", "embedding": [2.5, 0.5], "tokens": 2}
    assert run("embed", "ab", "", *server).stdout.splitlines() == ["2.5 0.5", "0.5 0.5"]


@pytest.mark.parametrize("source", ["--file FILE", "--file -", "-"])
def test_texts_come_a_line_each_from_a_file_or_standard_input(
    grpc_server: list[str], tmp_path: Path, source: str
) -> None:
    content = b"one two\r\n\n\xff\xc3\xa9\n" + b"x\n" * 100 + b"last"
    (tmp_path / "texts").write_bytes(content)
    arguments = source.replace("FILE", str(tmp_path / "texts")).split()
    stdin = None if "FILE" in source else content
    told = run_json("score", *arguments, *grpc_server, stdin=stdin)
    assert [line["text"] for line in told[:4]] == ["one two", "", "\\xff\u00e9", "x"]
    assert [line["bytes"] for line in told] == [7, 0, 3, *[1] * 100, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_at_the_beginning_of_a_file_is_no_text(
    tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "texts").write_bytes("Zoë\r\n two\n".encode(encoding))
    assert list(asking._chunks(None, str(tmp_path / "texts"))) == [["Zoë", " two"]]


def test_the_files_that_ingestion_reads_have_the_same_lines(tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes(b"one\rtwo\r\nthree")
    assert list(asking._chunks(None, str(tmp_path / "texts"))) == [
        ["one", "two", "three"]
    ]
    (tmp_path / "texts.gz").write_bytes(gzip.compress(b"one\n"))
    assert "unpack it" in run("score", f"--file={tmp_path}/texts.gz").stderr


def test_an_escape_in_a_stop_string_is_a_character(grpc_server: list[str]) -> None:
    stops = ["--stop", r"\n", "--stop", r"a\\n\d"]
    [told] = run_json("generate", "x", *stops, *grpc_server)
    assert "|\n,a\\n\\d,,|" in told["text"]


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(scores=[{"a": math.nan}, (math.inf, 1.5)])
    assert capsys.readouterr().out == '{"scores": [{"a": null}, [null, 1.5]]}\n'


def test_a_file_of_utf_16_without_a_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes("one\r\ntwo\n".encode("utf-16-be"))
    said = run("score", f"--file={tmp_path}/texts").stderr
    assert "utf-16-be without a mark" in said


def test_tls_and_headers(
    tmp_path: Path,
    language_model: Path,
    push: Callable[[Path, Path, int], None],
    serve: Callable[..., Any],
    new_authority: Callable[[], Any],
) -> None:
    push(language_model, tmp_path, 1)
    authority = new_authority()
    key, certificate = (pem.encode() for pem in authority.issue("server"))
    tls = TlsConfig(key, certificate, authority.certificate.encode(), True)
    (tmp_path / "ca.pem").write_text(authority.certificate)
    for name, pem in zip(("key", "cert"), authority.issue("client"), strict=True):
        (tmp_path / f"{name}.pem").write_text(pem)
    with serve(tmp_path, rest_port=None, options=ServerOptions(tls=tls)) as server:
        arguments = ["score", "a", "--server", f"localhost:{server.grpc_port}"]
        files = [f"--tls-ca={tmp_path}/ca.pem", f"--tls-key={tmp_path}/key.pem"]
        files.append(f"--tls-certificate={tmp_path}/cert.pem")
        assert run_json(*arguments, *files, "--header=x=y")[0]["bytes"] == 1
        assert "no secure connection" in run(*arguments, "--tls").stderr
        assert run(*arguments).exit_code == cli.EXIT_ERROR


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score"], "give texts, or --file with a text a line"),
        (["score", "a", "--file=x"], "give texts, or --file with a text a line"),
        (["score", "--file=/no/file"], "cannot read /no/file: No such file"),
        (["score", "a", "--retries=5"], "retries must be 0 to 4. Received: 5"),
        (["score", "a", "--timeout=0"], "timeout must be above 0 seconds"),
        (["score", "a", "--model-version=3"], "Specific(langzoo, 3)"),
        (["score", "a", "--header=x"], "--header x: it is NAME=VALUE"),
        (["score", "a", "--tls-ca=/no"], "root_certificates: cannot read /no"),
        (["score", "a", "--tls-ca=/no", "--rest"], "root_certificates: cannot read"),
        (["next", "a", "--model-name=nobody"], "nobody"),
        (["generate", "a", *["--stop=x"] * 5], "stop takes up to 4 strings"),
        (["generate", "a", f"--seed={2**40}"], "seed must be from -2147483648"),
        (["generate", "a", "--beams=2", "--top-k=1"], "--top-k does not go with --b"),
        (["generate", "a", "--beams=2", "--tokens"], "--tokens does not go with --b"),
        (["generate", "a", "--length-penalty=1"], "--length-penalty does not go wit"),
    ],
)
def test_what_is_wrong_is_one_line(
    telling_server: ModelServer, arguments: list[str], said: str
) -> None:
    rest = "--rest" in arguments
    address = telling_server.rest_address if rest else telling_server.grpc_address
    ended = run(*arguments, "--server", address)
    assert ended.exit_code == cli.EXIT_ERROR
    assert ended.stderr.startswith("langzoo: ")
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr


def test_what_an_older_model_does_not_tell_is_one_line(
    language_server: ModelServer,
) -> None:
    options = ["--server", language_server.grpc_address]
    ended = run("generate", "a", "--tokens", *options)
    assert "does not tell the tokens" in ended.stderr
    ended = run("generate", "a", "--stop=x", *options)
    assert "generate of the model at" in ended.stderr
    assert "has no setting stop, only max_new_tokens" in ended.stderr
    assert run_json("generate", "a", *options)[0] == {
        "prompt": "a",
        "text": "a|16|1|0|1|0",
        "new_tokens": 16,
        "finish_reason": "length",
        "prompt_tokens": None,
    }


def test_a_password_in_an_address_is_not_told() -> None:
    ended = run("score", "a", "--server=http://me:hidden@127.0.0.1:9")
    assert ended.exit_code == cli.EXIT_ERROR
    assert "http://***@127.0.0.1:9" in ended.stderr
    assert "hidden" not in ended.stderr
