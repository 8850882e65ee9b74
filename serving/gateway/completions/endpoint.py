"""`/v1/completions`: answers at once, or as a stream."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..errors import invalid
from ..metrics import Record
from ..service import Service, unless_gone
from .schema import CompletionRequest, parse
from .serving import Completion
from .streaming import LimitsOf, stream


def routes(service: Service) -> list[Route]:
    """Takes requests for completions."""
    limits = {name: LimitsOf(client) for name, client in service.clients.items()}

    async def answer(request: Request, record: Record) -> Response:
        asked = parse(await service.body(request))
        client = service.client(asked.model)
        record.model = asked.model
        _check_size(asked, service.options.max_completions)
        completion = Completion(client, asked)
        if asked.stream:
            parts = stream(completion, limits[asked.model])
            return await service.streamed(request, parts, record, completion.usage)
        body = await unless_gone(request, completion.answer())
        record.done(200, completion.usage)
        return JSONResponse(body)

    async def completions(request: Request) -> Response:
        return await service.answered(request, answer)

    return [Route("/v1/completions", service.guarded(completions), methods=["POST"])]


def _check_size(asked: CompletionRequest, most: int) -> None:
    if len(asked.prompt) * asked.best_of > most:
        raise invalid(
            f"{len(asked.prompt)} prompts with {asked.best_of} completions each are"
            f" more than the {most} that a request may ask for",
            "prompt" if len(asked.prompt) > most else "n",
        )
