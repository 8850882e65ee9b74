"""`/v1/embeddings`: vectors of texts, as OpenAI has them."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..client import Embedding
from ..client.async_client import unblocked
from ..export.contract import EMBED
from . import json_text
from .errors import invalid
from .fields import Body, Prompts, parse
from .metrics import Record, Usage
from .prompts import checked_ids
from .service import Service, unless_gone
from .versions import Version

MAX_INPUTS = 2048
_NUMBER_BYTES = 20  # of JSON, about


class EmbeddingRequest(Body):
    """The body of `POST /v1/embeddings`, as OpenAI has it.

    Attributes:
        model: one of those that `GET /v1/models` lists.
        input: a text or several, or the ids of tokens.
        encoding_format: numbers, or base64 of them as little-endian float32.
        dimensions: so many numbers of each vector are answered, the first ones, made as
            long as the whole vector.
        user: accepted and not looked at.
    """

    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str = ""


def routes(service: Service) -> list[Route]:
    """Takes requests for embeddings."""

    async def answer(request: Request, record: Record) -> Response:
        data = await service.body(request)
        asked = await unblocked(
            len(data), parse, EmbeddingRequest, data, service.options.strict
        )
        if len(asked.input) > MAX_INPUTS:
            raise invalid(f"'input' has more than {MAX_INPUTS} texts", "input")
        version = await service.version_of(asked.model, record)
        version.require(EMBED.name)
        found = await unless_gone(request, _embedded(version, asked.input))
        usage = Usage(sum(embedding.tokens for embedding in found))
        size = _NUMBER_BYTES * sum(len(embedding.vector) for embedding in found)
        body = {
            "object": "list",
            "data": await unblocked(size, _shown, found, asked),
            "model": asked.model,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "total_tokens": usage.prompt_tokens,
            },
        }
        record.done(200, usage)
        return await json_text.response(body, size)

    return [service.route("/v1/embeddings", answer, "POST")]


async def _embedded(
    version: Version, given: Sequence[str | list[int]]
) -> list[Embedding]:
    texts = [one if isinstance(one, str) else "" for one in given]
    ids = [() if isinstance(one, str) else one for one in given]
    if version.info is not None:
        for one in ids:
            checked_ids("input", one, version.info)
    return await version.client.embed(texts, token_ids=ids)


def _shown(found: list[Embedding], asked: EmbeddingRequest) -> list[dict[str, Any]]:
    size = len(found[0].vector)
    if asked.dimensions is not None and asked.dimensions > size:
        raise invalid(f"'dimensions': this model's vectors have {size}", "dimensions")
    shown: list[dict[str, Any]] = []
    for index, embedding in enumerate(found):
        vector: Any = _shortened(embedding.vector, asked.dimensions or size)
        if asked.encoding_format == "base64":
            packed = struct.pack(f"<{len(vector)}f", *vector)
            vector = base64.b64encode(packed).decode()
        shown.append({"object": "embedding", "index": index, "embedding": vector})
    return shown


def _shortened(vector: list[float], size: int) -> list[float]:
    """The first numbers of a vector, as long together as all of them."""
    if size == len(vector):
        return vector
    first = vector[:size]
    length = math.hypot(*first)
    scale = math.hypot(*vector) / length if length else 0.0
    return [number * scale for number in first]
