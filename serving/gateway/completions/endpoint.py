"""`/v1/completions`: answers at once, or as a stream."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...client.async_client import unblocked
from .. import json_text
from ..errors import invalid
from ..metrics import Record
from ..service import Service, unless_gone
from .schema import CompletionRequest, completion_request
from .serving import Completion
from .streaming import stream


def routes(service: Service) -> list[Route]:
    """Takes requests for completions."""
    options = service.options

    async def answer(request: Request, record: Record) -> Response:
        data = await service.body(request)
        asked = await unblocked(len(data), completion_request, data, options.strict)
        model = service.model(asked.model)
        record.model = asked.model
        _check_size(asked, min(options.max_completions, options.max_running))
        with service.room_for(asked.count):
            completion = await unless_gone(request, Completion.of(model, asked))
            if asked.stream:
                return await service.streamed(
                    request, stream(completion), record, completion.usage, asked.count
                )
            body = await unless_gone(request, completion.answer())
            record.done(200, completion.usage)
            return await json_text.response(body, asked.size)

    return [service.route("/v1/completions", answer, "POST")]


def _check_size(asked: CompletionRequest, most: int) -> None:
    if asked.count > most:
        raise invalid(
            f"{len(asked.prompt)} prompts with {asked.best_of} completions each are"
            f" more than the {most} that a request may ask for",
            "prompt" if len(asked.prompt) > most else "n",
        )
