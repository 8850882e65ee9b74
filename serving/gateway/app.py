"""The gateway as an ASGI application: its endpoints, its page and its health."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
import logging
from collections.abc import AsyncGenerator, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ..client import AsyncClient
from ..client.base import trouble_of
from ..errors import ServingError
from . import answers, embeddings, models, tokens
from .completions import endpoint as completions
from .errors import ApiError, unexpected
from .options import GatewayOptions
from .service import Service

_logger = logging.getLogger(__name__)
_HEALTH_SECONDS = 5.0


class Gateway:
    """Answers the requests of OpenAI's API.

    Args:
        clients: of the models, by the names that requests call them by.
        options: who may ask, and how much.
    """

    def __init__(
        self, clients: Mapping[str, AsyncClient], options: GatewayOptions
    ) -> None:
        self._clients = clients
        self._service = Service(clients, options)

    def app(self) -> Starlette:
        """The application."""
        origins = list(self._service.options.cors_origins)
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
        return Starlette(
            routes=[
                Route("/", self._playground),
                Route("/health", self._health),
                Route("/metrics", self._metrics_page),
                *models.routes(self._service),
                *completions.routes(self._service),
                *embeddings.routes(self._service),
                *tokens.routes(self._service),
                *answers.routes(self._service),
                *(
                    Route(path, self._service.guarded(_to_come), methods=["POST"])
                    for path in _TO_COME
                ),
            ],
            middleware=[cors] if origins else [],
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_error,
                Exception: _unexpected,
            },
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None, None]:
        yield
        for client in self._clients.values():
            await client.close()

    async def _playground(self, request: Request) -> Response:
        headers = {
            "Content-Security-Policy": "default-src 'none'; connect-src 'self'; "
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return HTMLResponse(_page(), headers=headers)

    async def _health(self, request: Request) -> Response:
        """200 where every model has a version that answers, else 503 and why."""
        names = list(self._clients)
        states = await asyncio.gather(*(self._trouble(name) for name in names))
        models = {
            name: state or "ok" for name, state in zip(names, states, strict=True)
        }
        return JSONResponse(
            {"status": "unavailable" if any(states) else "ok", "models": models},
            status_code=503 if any(states) else 200,
        )

    async def _trouble(self, name: str) -> str | None:
        try:
            client = self._clients[name]
            return trouble_of(await client.status(timeout=_HEALTH_SECONDS))
        except ServingError as error:
            return error.message

    async def _metrics_page(self, request: Request) -> Response:
        return Response(
            self._service.metrics.page(), media_type="text/plain; version=0.0.4"
        )


@functools.cache
def _page() -> str:
    folder = importlib.resources.files(__package__)
    return (folder / "playground.html").read_text(encoding="utf-8")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _to_come(request: Request) -> Response:
    path = request.url.path
    message = f"{path} is not served yet; there is /v1/completions"
    raise ApiError(404, message, code="unknown_url")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {
        404: f"Unknown request URL: {request.method} {request.url.path}",
        405: f"Not allowed to {request.method} on {request.url.path}",
    }.get(error.status_code, error.detail)
    known = ApiError(error.status_code, message, code=_CODES.get(error.status_code))
    return JSONResponse(known.body(), error.status_code, error.headers)


_CODES = {404: "unknown_url", 405: "method_not_supported"}
_TO_COME = ("/v1/chat/completions",)


async def _unexpected(request: Request, error: Exception) -> Response:
    _logger.exception("a request failed", exc_info=error)
    return JSONResponse(unexpected(error).body(), 500)
