"""Commands that ask a model, over gRPC or REST."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import app, fail, fields_of, print_json, printable

if TYPE_CHECKING:
    from ..serving.client import Beam, Generation, Score, SyncClient, TokenScores

# How many lines of a file are asked about at a time.
_CHUNK = 64
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one line a text.")]
_CONNECTION = "Connection"


@contextlib.contextmanager
def _client(
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|URL",
            help="Address for gRPC, or of http:// or https:// for REST; default: "
            "127.0.0.1:8500, with --rest 8501.",
            rich_help_panel=_CONNECTION,
        ),
    ] = None,
    rest: Annotated[
        bool, typer.Option("--rest", help="Ask by REST.", rich_help_panel=_CONNECTION)
    ] = False,
    model_name: Annotated[
        str, typer.Option(help="Name of the model.", rich_help_panel=_CONNECTION)
    ] = "langzoo",
    model_version: Annotated[
        int | None, typer.Option(help="Default: newest.", rich_help_panel=_CONNECTION)
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(help="Seconds until an answer.", rich_help_panel=_CONNECTION),
    ] = 60.0,
    retries: Annotated[
        int,
        typer.Option(
            help="How often, up to 4, to ask a server again that is away or busy.",
            rich_help_panel=_CONNECTION,
        ),
    ] = 0,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Goes along with each request.",
            rich_help_panel=_CONNECTION,
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS.", rich_help_panel=_CONNECTION)
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM of whom to believe; default: the system's.",
            rich_help_panel=_CONNECTION,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM of the key to show to the server.", rich_help_panel=_CONNECTION
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM of that key's certificates.", rich_help_panel=_CONNECTION
        ),
    ] = None,
) -> Iterator[SyncClient]:
    """A client; what is wrong with it or its answers ends the command in a line."""
    from ..serving.client import Client, RestClient, ServingError, Tls

    rest = rest or (server or "").startswith(("http://", "https://"))
    headers = dict(_split_header(text) for text in header or ())
    try:
        files = (tls_ca, tls_key, tls_certificate)
        secure: Tls | None = Tls(*files) if tls or any(files) else None
        kind: Any = RestClient if rest else Client
        with kind(
            server or ("127.0.0.1:8501" if rest else "127.0.0.1:8500"),
            model_name,
            version=model_version,
            timeout=timeout,
            retries=retries,
            credentials=secure,
            headers=headers,
        ) as client:
            yield client
    except (ServingError, ValueError) as error:
        fail(str(error))


def _split_header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        fail(f"--header {text}: it is NAME=VALUE")
    return name, value


def _asks(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command a client, and its command line the options of `_client`."""
    types = {"SyncClient": object}
    own = inspect.signature(command, locals=types, eval_str=True).parameters
    shared = inspect.signature(_client, locals=types, eval_str=True).parameters

    @functools.wraps(command)
    def run(**options: Any) -> None:
        with _client(**{name: options.pop(name) for name in shared}) as client:
            command(client, **options)

    # This is what Typer reads.
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*list(own.values())[1:], *shared.values()]
    )
    run.__annotations__ = {}
    return run


Texts = Annotated[
    list[str] | None, typer.Argument(help="Texts; - reads them as --file - does.")
]
File = Annotated[
    str | None,
    typer.Option(
        "--file", metavar="FILE|-", help="A text a line; - is standard input."
    ),
]
Tokens = Annotated[bool, typer.Option("--tokens", help="Show every token.")]


@app.command()
@_asks
def generate(
    client: SyncClient,
    prompts: Texts = None,
    file: File = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=0)] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest token.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="0 turns it off.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    seed_offset: Annotated[
        int | None, typer.Option(help="Tokens that the seed has drawn before.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="On tokens of prompt and text; 1 is none.")
    ] = None,
    presence_penalty: Annotated[
        float | None, typer.Option(help="On tokens of the text; 0 is none.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option(help="The same for each time; 0 is none.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this; up to four.")
    ] = None,
    beams: Annotated[
        int | None, typer.Option(min=1, help="Search so many likeliest texts instead.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Of --beams; above 1 favours long texts.")
    ] = None,
    tokens: Tokens = False,
    as_json: Json = False,
) -> None:
    """Continue texts."""
    stops = stop or None
    sampling: Any = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "seed_offset": seed_offset,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
    }
    unfit = sampling | {"tokens": tokens or None} if beams else {}
    unfit |= {} if beams else {"length_penalty": length_penalty}
    if given := [name for name, value in unfit.items() if value is not None]:
        option = given[0].replace("_", "-")
        fail(f"--{option} does not go {'with' if beams else 'without'} --beams")
    for chunk in _chunks(prompts, file):
        if beams:
            found = client.beam_search(
                chunk,
                max_new_tokens,
                num_beams=beams,
                length_penalty=length_penalty,
                stop=stops,
            )
            for prompt, continuations in zip(chunk, found, strict=True):
                _print_beams(prompt, continuations, as_json)
            continue
        generations = client.generate(chunk, max_new_tokens, stop=stops, **sampling)
        for prompt, generation in zip(chunk, generations, strict=True):
            _print_generation(prompt, generation, tokens, as_json)


@app.command()
@_asks
def score(
    client: SyncClient,
    texts: Texts = None,
    file: File = None,
    tokens: Tokens = False,
    as_json: Json = False,
) -> None:
    """Say how likely texts are."""
    for chunk in _chunks(texts, file):
        scores = client.score(chunk)
        details = client.token_scores(chunk) if tokens else [None] * len(chunk)
        for text, result, detail in zip(chunk, scores, details, strict=True):
            _print_score(text, result, detail, as_json)


@app.command("next")
@_asks
def next_token(
    client: SyncClient, texts: Texts = None, file: File = None, as_json: Json = False
) -> None:
    """List the likeliest next tokens."""
    for chunk in _chunks(texts, file):
        for text, answer in zip(chunk, client.next_tokens(chunk), strict=True):
            if as_json:
                print_json(text=text, **fields_of(answer))
                continue
            _print_text(text)
            _print_tokens(answer.tokens, answer.probabilities)


@app.command()
@_asks
def explain(
    client: SyncClient,
    output: Annotated[Path, typer.Option(help="HTML file to write.")],
    texts: Texts = None,
    file: File = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of an exported model, in place of a server."),
    ] = None,
) -> None:
    """Write a page that shows how unexpected each token of texts is."""
    from ..models.explanation import pages

    asked = list(itertools.chain.from_iterable(_chunks(texts, file)))
    if model is None:
        scores = client.token_scores(asked)
    else:
        scores = _exported_token_scores(model, asked)
    title = f"Surprisal, {model or client.model_name}"
    try:
        pages.surprisal_page(scores, title).save(output)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")
    typer.echo(f"wrote {output}")


def _chunks(texts: list[str] | None, file: str | None) -> Iterator[list[str]]:
    """The texts, or a file's lines, some at a time: it may be long, or a pipe."""
    if texts == ["-"] and file is None:
        texts, file = None, "-"
    if bool(texts) == (file is not None):
        fail("give texts, or --file with a text a line")
    if texts:
        yield texts
        return
    try:
        with (
            contextlib.nullcontext(sys.stdin.buffer)
            if file == "-"
            else open(str(file), "rb")
        ) as lines:
            while chunk := list(itertools.islice(lines, _CHUNK)):
                # Bytes that are not UTF-8 reach the model as they are.
                yield [
                    line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
                    for line in chunk
                ]
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")


def _print_generation(
    prompt: str, generation: Generation, tokens: bool, as_json: bool
) -> None:
    names = ("tokens", "log_probabilities", "alternatives")
    told = generation.log_probabilities is not None
    if tokens and not told:
        fail("--tokens: the model does not tell the tokens that it generates")
    if as_json:
        fields = fields_of(generation)
        # `text` shows them, and JSON has no bytes.
        del fields["text_bytes"]
        for name in () if tokens else names:
            del fields[name]
        print_json(prompt=prompt, **fields)
        return
    _print_text(prompt + generation.text)
    if tokens:
        _print_tokens(
            generation.tokens or (), map(math.exp, generation.log_probabilities or ())
        )


def _print_beams(prompt: str, beams: tuple[Beam, ...], as_json: bool) -> None:
    if as_json:
        print_json(prompt=prompt, beams=[fields_of(beam) for beam in beams])
        return
    for beam in beams:
        _print_text(f"{beam.score:8.3f}  {prompt}{beam.text}")


def _print_score(
    text: str, score: Score, detail: TokenScores | None, as_json: bool
) -> None:
    measures: dict[str, Any] = {
        "perplexity": score.perplexity,
        "word_perplexity": score.word_perplexity,
        "bits_per_byte": score.bits_per_byte,
    }
    if as_json:
        if detail is not None:
            measures["token_scores"] = [
                {"token": token, "log_probability": log_probability}
                for token, log_probability in zip(
                    detail.tokens, detail.log_probabilities, strict=True
                )
            ]
        print_json(text=text, **fields_of(score), **measures)
        return
    _print_text(
        f"{score.bits_per_byte:.3f} bits per byte, perplexity {score.perplexity:.1f} "
        f"over {score.tokens} tokens: {text}"
    )
    if detail is not None:
        _print_tokens(detail.tokens, map(math.exp, detail.log_probabilities))


def _print_tokens(tokens: Iterable[str], probabilities: Iterable[float]) -> None:
    for token, probability in zip(tokens, probabilities, strict=True):
        typer.echo(f"  {probability:7.2%}  {token!r}")


def _print_text(text: str) -> None:
    typer.echo(printable(text))


def _exported_token_scores(folder: Path, texts: list[str]) -> list[TokenScores]:
    from ..pipelines.local.console import libraries_to_log

    with libraries_to_log(Path(os.devnull)):
        from ..serving.in_process import ExportedModel

        with ExportedModel(folder) as model:
            return model.token_scores(texts)
