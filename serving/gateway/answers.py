"""`/classify`, as vLLM has it, `/fill`, `/tag` and `/signatures`.

That is for models that write no text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..client import Classification, Filled, Tagged
from ..client.async_client import unblocked
from ..export.contract import ALTERNATIVES, CLASSIFY, FILL_MASK, MAX_ALTERNATIVES, TAGS
from . import json_text
from .fields import Body, parse
from .metrics import Record
from .service import Service, unless_gone

MAX_INPUTS = 2048
_ENTRY_BYTES = 60  # of JSON, for a label or the pieces of a gap, about


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    list[str],
    BeforeValidator(_listed),
    Field(min_length=1, max_length=MAX_INPUTS),
]


class TextsRequest(Body):
    """The body of `POST /classify`, as vLLM has it, and of `POST /tag`.

    Attributes:
        model: one of those that `GET /v1/models` lists; the first of them unless given.
        input: a text or several.
    """

    model: str | None = None
    input: Texts


class FillRequest(TextsRequest):
    """The body of `POST /fill`.

    Attributes:
        model, input: as of `TextsRequest`; a text has the model's mask, such as
            `[MASK]`, for each gap.
        alternatives: pieces that are told for each.
    """

    alternatives: int = Field(ALTERNATIVES, ge=1, le=MAX_ALTERNATIVES)


_Request = TypeVar("_Request", bound=TextsRequest)


def routes(service: Service) -> list[Route]:
    """Takes requests for labels, pieces and tags, and tells what there is."""

    async def classified(request: Request, record: Record) -> Response:
        return await _answered(
            *(service, request, record, TextsRequest, (CLASSIFY.name,)),
            lambda client, asked: client.classify(asked.input),
            _labels,
        )

    async def filled(request: Request, record: Record) -> Response:
        return await _answered(
            *(service, request, record, FillRequest, (FILL_MASK.name,)),
            lambda client, asked: client.fill_mask(
                asked.input, alternatives=asked.alternatives
            ),
            _pieces,
        )

    async def tagged(request: Request, record: Record) -> Response:
        return await _answered(
            *(service, request, record, TextsRequest, (TAGS.name, "tag")),
            lambda client, asked: client.tag(asked.input),
            _words,
        )

    async def signatures(request: Request, record: Record) -> Response:
        version = await service.version_of(request.query_params.get("model"), record)
        record.done(200)
        body = {"model": record.model, "signatures": version.signatures}
        return await json_text.response(body)

    return [
        service.route("/classify", classified, "POST"),
        service.route("/fill", filled, "POST"),
        service.route("/tag", tagged, "POST"),
        service.route("/signatures", signatures, "GET"),
    ]


async def _answered(
    service: Service,
    request: Request,
    record: Record,
    kind: type[_Request],
    needed: tuple[str, ...],
    ask: Callable[[Any, _Request], Awaitable[list[Any]]],
    shown: Callable[[Any], dict[str, Any]],
) -> Response:
    """What a model says of texts, as `shown`; for `needed` see `Version.require`."""
    data = await service.body(request)
    asked = await unblocked(len(data), parse, kind, data, service.options.strict)
    version = await service.version_of(asked.model, record)
    version.require(*needed)
    found = await unless_gone(request, ask(version.client, asked))
    rows = [{"index": i, **shown(one)} for i, one in enumerate(found)]
    listed = (it for row in rows for it in row.values() if isinstance(it, Sequence))
    entries = sum(map(len, listed))
    record.done(200)
    body = {"object": "list", "model": record.model, "data": rows}
    return await json_text.response(body, _ENTRY_BYTES * entries)


def _labels(found: Classification) -> dict[str, Any]:
    """vLLM's numbers stand in the order of the labels, and so do their names here."""
    named = sorted(zip(found.labels, found.probabilities, strict=True))
    return {
        "label": found.labels[0],
        "probs": [probability for _, probability in named],
        "num_classes": len(named),
        "labels": [label for label, _ in named],
    }


def _pieces(found: Filled) -> dict[str, Any]:
    return {
        "mask": found.mask,
        "alternatives": [
            [{"token": one.token, "logprob": one.log_probability} for one in of_gap]
            for of_gap in found.alternatives
        ],
    }


def _words(found: Tagged) -> dict[str, Any]:
    return {"words": found.words, "tags": found.tags, "probs": found.probabilities}
