"""Commands that ask a model, over gRPC or REST."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import importing
from ..components.text_example_gen import formats
from ..serving.export.contract import (
    BEAM_SEARCH,
    BEAM_SEARCH_TARGET,
    CACHE_SCORES,
    FILL_MASK,
    GENERATE,
    GENERATE_TARGET,
    Signature,
)
from ..serving.wording import in_one_line
from .common import app, fail, fields_of, print_json, print_text
from .connecting import asks, option_of

if TYPE_CHECKING:
    from ..serving.client import (
        Beam,
        Filled,
        Generation,
        Score,
        SyncClient,
        TokenScores,
    )

# How many lines of a file are asked about at a time.
_CHUNK = 64
# How many labels are shown to a person, the likeliest.
_LABELS = 5
_HEAD = 1024  # bytes that say how it is encoded
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one line a text.")]
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
@asks(GENERATE, BEAM_SEARCH)
def generate(
    client: SyncClient,
    prompts: Texts = None,
    file: File = None,
    *,
    settings: Any,
    tokens: Tokens = False,
    as_json: Json = False,
) -> None:
    """Continue texts; with --beams by a search for the likeliest."""
    if _searches(settings, tokens, GENERATE, BEAM_SEARCH):
        beam_search = functools.partial(client.beam_search, **settings)
        for prompt, beams in _answers(beam_search, prompts, file):
            _print_beams(prompt, beams, as_json)
        return
    write = functools.partial(client.generate, **settings)
    for prompt, text in _answers(write, prompts, file):
        _print_generation(prompt, text, tokens, as_json)


@app.command("summarize", help="The same by another name, of a model that summarizes.")
@app.command()
@asks(GENERATE_TARGET, BEAM_SEARCH_TARGET)
def translate(
    client: SyncClient,
    texts: Texts = None,
    file: File = None,
    *,
    settings: Any,
    tokens: Tokens = False,
    as_json: Json = False,
) -> None:
    """Write to texts what a model has learned to, such as their translations.

    It takes the likeliest token each time; with --temperature it draws, with --beams it
    searches.
    """
    if _searches(settings, tokens, GENERATE_TARGET, BEAM_SEARCH_TARGET):
        beam_search = functools.partial(client.beam_search, **settings)
        for text, beams in _answers(beam_search, texts, file):
            _print_beams(text, beams, as_json, shown="")
        return
    write = functools.partial(client.generate, **{"temperature": 0.0, **settings})
    for text, written in _answers(write, texts, file):
        _print_generation(text, written, tokens, as_json, shown="")
        if written.unread_tokens:
            typer.echo(
                f"{written.unread_tokens} tokens of this text were not read: it is "
                "longer than the model sees",
                err=True,
            )


def _searches(
    settings: Any, tokens: bool, generates: Signature, searches: Signature
) -> bool:
    """Whether a search is asked for; the command ends where a setting does not fit."""
    asked = "num_beams" in settings
    fit = (searches if asked else generates).settings
    unfit = [option_of(name) for name in settings if name not in fit]
    unfit += ["--tokens"] if tokens and asked else []
    if unfit:
        fail(f"{unfit[0]} does not go {'with' if asked else 'without'} --beams")
    return asked


@app.command()
@asks(FILL_MASK)
def fill(
    client: SyncClient,
    texts: Texts = None,
    file: File = None,
    *,
    settings: Any,
    as_json: Json = False,
) -> None:
    """List the likeliest pieces for each [MASK] in texts."""
    fill_mask = functools.partial(client.fill_mask, **settings)
    for text, answer in _answers(fill_mask, texts, file):
        if not answer.alternatives:
            fail(
                f"write {answer.mask} where a piece is missing: there is none in "
                f"{text!r}"
            )
        _print_filled(text, answer, as_json)


@app.command()
@asks(CACHE_SCORES)
def score(
    client: SyncClient,
    texts: Texts = None,
    file: File = None,
    *,
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Also with a cache over each text so far."),
    ] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a model that writes to texts: what to each; once a text."
        ),
    ] = None,
    settings: Any,
    tokens: Tokens = False,
    as_json: Json = False,
) -> None:
    """Say how likely texts are; with --cache or a setting of it, also as it adapts."""
    of_texts = texts if texts and texts != ["-"] and file is None else []
    if target and len(target) != len(of_texts):
        fail("give --target once for each text, and texts as arguments")
    for chunk in _chunks(texts, file):
        scores = client.score(chunk, target)
        details: list[Any] = [None] * len(chunk)
        if tokens:
            details = list(client.token_scores(chunk, target))
        adapted: list[Any] = [None] * len(chunk)
        if cache or settings:
            cached = client.cache_scores(chunk, **settings)
            adapted = list(map(_with_cache, scores, cached))
        answers = zip(chunk, scores, details, adapted, strict=True)
        for text, result, detail, with_cache in answers:
            _print_score(text, result, detail, with_cache, as_json)


@app.command("next")
@asks()
def next_token(
    client: SyncClient, texts: Texts = None, file: File = None, as_json: Json = False
) -> None:
    """List the likeliest next tokens."""
    for text, answer in _answers(client.next_tokens, texts, file):
        if as_json:
            print_json(text=text, **fields_of(answer))
            continue
        print_text(text)
        _print_tokens(answer.tokens, answer.probabilities)


@app.command()
@asks()
def classify(
    client: SyncClient, texts: Texts = None, file: File = None, as_json: Json = False
) -> None:
    """Say which label texts have, or how likely each is."""
    for text, answer in _answers(client.classify, texts, file):
        if as_json:
            print_json(text=text, **fields_of(answer))
            continue
        print_text(text)
        _print_tokens(answer.labels[:_LABELS], answer.probabilities[:_LABELS])


@app.command()
@asks()
def tag(
    client: SyncClient, texts: Texts = None, file: File = None, as_json: Json = False
) -> None:
    """Say which tag each word of texts has."""
    for text, answer in _answers(client.tag, texts, file):
        if as_json:
            print_json(text=text, **fields_of(answer))
            continue
        print_text(text)
        width = max(map(len, answer.tags), default=0)
        for word, label, probability in zip(
            answer.words, answer.tags, answer.probabilities, strict=True
        ):
            print_text(f"  {probability:7.2%}  {label:{width}}  {word}")


@app.command()
@asks()
def embed(
    client: SyncClient, texts: Texts = None, file: File = None, as_json: Json = False
) -> None:
    """Turn texts into vectors."""
    for text, answer in _answers(client.embed, texts, file):
        if as_json:
            print_json(text=text, embedding=answer.vector, tokens=answer.tokens)
        else:
            typer.echo(" ".join(f"{number:.6g}" for number in answer.vector))


@app.command()
@asks()
def explain(
    client: SyncClient,
    output: Annotated[Path, typer.Option(help="HTML file to write.")],
    texts: Texts = None,
    file: File = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of an exported model, in place of a server."),
    ] = None,
    preset: Annotated[
        Path | None,
        typer.Option(help="Folder of a Keras preset: what speaks for its answer."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="With --preset: for this label, or what follows the text."),
    ] = None,
) -> None:
    """Write a page that shows how unexpected each token of texts is.

    With --preset it shows what each token of a text does to the answer: the label of a
    classifier, or the next token.
    """
    from ..models.explanation import pages

    asked = list(itertools.chain.from_iterable(_chunks(texts, file)))
    if label is not None and preset is None:
        fail("--label is with --preset")
    if preset is not None:
        _write_page(_attribution_page(preset, asked, label), output)
        return
    if model is None:
        scores = client.token_scores(asked)
    else:
        scores = _exported_token_scores(model, asked)
    title = f"Surprisal, {model or client.model_name}"
    _write_page(pages.surprisal_page(scores, title), output)


def _write_page(page: Any, output: Path) -> None:
    try:
        page.save(output)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")
    typer.echo(f"wrote {output}")


def _attribution_page(preset: Path, texts: list[str], label: str | None) -> Any:
    """The page of what speaks for a model's answer to a text."""
    from ..pipelines.local.console import libraries_to_log

    if len(texts) != 1:
        fail("--preset: give one text")
    with libraries_to_log(Path(os.devnull)):
        with importing():
            from ..models import zoo
            from ..models.explanation import attribution, pages
        try:
            model = zoo.from_preset(str(preset))
            found = attribution.attribute(model, texts[0], label)
        except (OSError, ValueError) as error:
            fail(f"--preset {preset}: {in_one_line(str(error))}")
    return pages.attribution_page(found)


def _answers(
    ask: Callable[[list[str]], Sequence[Any]],
    texts: list[str] | None,
    file: str | None,
) -> Iterator[tuple[str, Any]]:
    """Each text with what a method of the client says of it."""
    for chunk in _chunks(texts, file):
        yield from zip(chunk, ask(chunk), strict=True)


def _chunks(texts: list[str] | None, file: str | None) -> Iterator[list[str]]:
    """The texts, or a file's lines, some at a time: it may be long, or a pipe."""
    if texts == ["-"] and file is None:
        texts, file = None, "-"
    if bool(texts) == (file is not None):
        fail("give texts, or --file with a text a line")
    if texts:
        yield texts
        return
    kind = formats.kind_of(str(file))
    if kind.compression or kind.format in formats.ARCHIVES:
        fail(f"cannot read {file}: it is packed; unpack it, and pipe it to --file -")
    stdin: Any = sys.stdin.buffer
    try:
        with (
            io.BufferedReader(getattr(stdin, "raw", stdin))
            if file == "-"
            else open(str(file), "rb")
        ) as content:
            head = content.peek(_HEAD)
            if encoding := formats.unmarked_utf_16(head):
                fail(f"cannot read {file}: {encoding} without a mark, not UTF-8")
            # Bytes that are not UTF-8 reach the model as they are.
            lines = io.TextIOWrapper(
                content,
                formats.encoding_of(head, "utf-8"),
                errors="surrogateescape",
            )
            while chunk := list(itertools.islice(lines, _CHUNK)):
                yield [line.removesuffix("\n") for line in chunk]
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")


def _print_generation(
    prompt: str,
    generation: Generation,
    tokens: bool,
    as_json: bool,
    shown: str | None = None,
) -> None:
    """Prints a text behind its prompt, or behind what is shown in place of that."""
    names = ("tokens", "token_ids", "log_probabilities", "alternatives")
    told = generation.log_probabilities is not None
    if tokens and not told:
        fail("--tokens: the model does not tell the tokens that it generates")
    if as_json:
        fields = fields_of(generation)
        # `text` shows them, and JSON has no bytes.
        del fields["text_bytes"]
        for name in () if tokens else names:
            del fields[name]
        if fields["unread_tokens"] is None:
            del fields["unread_tokens"]
        print_json(prompt=prompt, **fields)
        return
    before = prompt if shown is None else shown
    print_text(before + generation.text_bytes.decode("utf-8", "surrogateescape"))
    if tokens:
        _print_tokens(
            generation.tokens or (), map(math.exp, generation.log_probabilities or ())
        )


def _print_filled(text: str, answer: Filled, as_json: bool) -> None:
    if as_json:
        print_json(text=text, **fields_of(answer))
        return
    print_text(text)
    for number, pieces in enumerate(answer.alternatives, start=1):
        if len(answer.alternatives) > 1:
            print_text(f" {answer.mask} {number}")
        _print_tokens(
            (piece.token for piece in pieces),
            (math.exp(piece.log_probability) for piece in pieces),
        )


def _print_beams(
    prompt: str, beams: tuple[Beam, ...], as_json: bool, shown: str | None = None
) -> None:
    if as_json:
        print_json(prompt=prompt, beams=[fields_of(beam) for beam in beams])
        return
    for beam in beams:
        before = prompt if shown is None else shown
        print_text(f"{beam.score:8.3f}  {before}{beam.text}")


def _measures(score: Score) -> dict[str, Any]:
    from ..serving.client import PseudoScore

    if isinstance(score, PseudoScore):
        return {"pseudo_perplexity": score.perplexity}
    return {
        "perplexity": score.perplexity,
        "word_perplexity": score.word_perplexity,
        "bits_per_byte": score.bits_per_byte,
    }


def _with_cache(score: Score, cached: TokenScores) -> Score:
    """The score of the same text by these log-probabilities."""
    return dataclasses.replace(score, nll=-math.fsum(cached.log_probabilities))


def _print_score(
    text: str,
    score: Score,
    detail: TokenScores | None,
    adapted: Score | None,
    as_json: bool,
) -> None:
    measures = _measures(score)
    if as_json:
        if adapted is not None:
            measures["with_cache"] = {"nll": adapted.nll, **_measures(adapted)}
        if detail is not None:
            measures["token_scores"] = [
                {"token": token, "log_probability": log_probability}
                for token, log_probability in zip(
                    detail.tokens, detail.log_probabilities, strict=True
                )
            ]
        print_json(text=text, **fields_of(score), **measures)
        return
    per_byte = f"{score.bits_per_byte:.3f} bits per byte, "
    kind = "perplexity"
    if kind not in measures:
        per_byte, kind = "", "pseudo-perplexity"
    print_text(
        f"{per_byte}{kind} {score.perplexity:.1f} over {score.tokens} tokens: {text}"
    )
    if adapted is not None:
        typer.echo(
            f"  with a cache {adapted.bits_per_byte:.3f} bits per byte, perplexity "
            f"{adapted.perplexity:.1f}"
        )
    if detail is not None:
        _print_tokens(detail.tokens, map(math.exp, detail.log_probabilities))


def _print_tokens(tokens: Iterable[str], probabilities: Iterable[float]) -> None:
    """Tokens, or labels, with their probabilities."""
    for token, probability in zip(tokens, probabilities, strict=True):
        typer.echo(f"  {probability:7.2%}  {token!r}")


def _exported_token_scores(folder: Path, texts: list[str]) -> list[TokenScores]:
    from ..pipelines.local.console import libraries_to_log

    with libraries_to_log(Path(os.devnull)):
        with importing():
            from ..serving.in_process import ExportedModel

        with ExportedModel(folder) as model:
            return model.token_scores(texts)
