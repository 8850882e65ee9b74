"""`/v1/models`: which models there are."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .service import Service


def routes(service: Service) -> list[Route]:
    """Lists the models, and tells of one."""
    created = int(time.time())

    def body(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "langzoo",
        }

    async def all_models(request: Request) -> Response:
        data = [body(name) for name in service.clients]
        return JSONResponse({"object": "list", "data": data})

    async def one_model(request: Request) -> Response:
        name = request.path_params["model"]
        service.model(name)
        return JSONResponse(body(name))

    return [
        Route("/v1/models", service.guarded(all_models)),
        Route("/v1/models/{model:path}", service.guarded(one_model)),
    ]
