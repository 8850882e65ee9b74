"""`/tokenize`, `/detokenize` and `/tokenizer_info`, as vLLM has them."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..client import ModelInfo
from ..client.async_client import unblocked
from . import json_text
from .errors import invalid
from .fields import parse
from .metrics import Record
from .prompts import START, checked_ids
from .service import Service, unless_gone
from .versions import Version

_Body = TypeVar("_Body", bound=BaseModel)
_NAMES = ("pad_token", "unk_token", "bos_token", "eos_token")


class TokenizeRequest(BaseModel):
    """The body of `POST /tokenize`.

    Attributes:
        model: one of those that `GET /v1/models` lists; the first of them unless given.
        prompt: a text. The name of a special token in it is that token.
        add_special_tokens: whether `<s>` comes first.
        return_token_strs: whether each token is shown.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str | None = None
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class DetokenizeRequest(BaseModel):
    """The body of `POST /detokenize`.

    Attributes:
        model: as of `TokenizeRequest`.
        tokens: ids.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]


def routes(service: Service) -> list[Route]:
    """Takes texts and token ids."""

    async def version_of(name: str | None, record: Record) -> tuple[Version, ModelInfo]:
        version = await service.version_of(name, record)
        if version.info is None:
            raise invalid("This model's export does not tell its tokens", "model")
        return version, version.info

    async def tokenize(request: Request, record: Record) -> Response:
        asked = await _parsed(service, request, TokenizeRequest)
        version, info = await version_of(asked.model, record)
        ids = await unless_gone(request, _ids_of(version, info, asked.prompt))
        if asked.add_special_tokens:
            ids = [info.special_ids[START], *ids]
        names = await version.tokens() if asked.return_token_strs else None
        body = {
            "count": len(ids),
            "max_model_len": info.context_length,
            "tokens": ids,
            "token_strs": None if names is None else [names[index] for index in ids],
        }
        record.done(200)
        return await json_text.response(body, len(asked.prompt))

    async def detokenize(request: Request, record: Record) -> Response:
        asked = await _parsed(service, request, DetokenizeRequest)
        version, info = await version_of(asked.model, record)
        ids = checked_ids("tokens", asked.tokens, info)
        [shown] = await version.client.detokenize([ids])
        body = {"prompt": shown.text}
        record.done(200)
        return await json_text.response(body, len(asked.tokens))

    async def tokenizer_info(request: Request, record: Record) -> Response:
        _, info = await version_of(request.query_params.get("model"), record)
        body = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **dict(zip(_NAMES, info.special_tokens, strict=True)),
            "model_max_length": info.context_length,
        }
        record.done(200)
        return await json_text.response(body)

    return [
        service.route("/tokenize", tokenize, "POST"),
        service.route("/detokenize", detokenize, "POST"),
        service.route("/tokenizer_info", tokenizer_info, "GET"),
    ]


async def _parsed(service: Service, request: Request, kind: type[_Body]) -> _Body:
    data = await service.body(request)
    return await unblocked(len(data), parse, kind, data)


async def _ids_of(version: Version, info: ModelInfo, text: str) -> list[int]:
    """The ids of a text, in which the name of a special token is that token."""
    special = dict(zip(info.special_tokens, info.special_ids, strict=True))
    names = sorted(special, key=len, reverse=True)  # the longest is meant
    pattern = re.compile("|".join(map(re.escape, names)))
    parts = pattern.split(text)
    found = [special[name] for name in pattern.findall(text)]
    tokenized = await version.client.tokenize(parts)
    ids = [*tokenized[0]]
    for index, part in zip(found, tokenized[1:], strict=True):
        ids += [index, *part]
    return ids
