"""What the endpoints share: the models, who may ask them and how much, and events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ..client import AsyncClient
from ..errors import ServingError
from .errors import ApiError, api_error, unexpected
from .json_text import event
from .metrics import GatewayMetrics, Record, Usage
from .options import GatewayOptions
from .versions import ServedModel, Version

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")
# What nginx calls a client that did not wait; nobody reads it but the metrics.
_CLIENT_GONE = 499
# Of a token with those that are likely in its place, at most.
_SCORED_BYTES = 500


class Service:
    """Models that may be asked, as far as the options let them.

    Args:
        clients: of the models, by the names that requests call them by.
        options: who may ask, and how much.

    Attributes:
        metrics: what is counted.
    """

    def __init__(
        self, clients: Mapping[str, AsyncClient], options: GatewayOptions
    ) -> None:
        self.clients = clients
        self.options = options
        self.metrics = GatewayMetrics()
        self._models = {name: ServedModel(one) for name, one in clients.items()}
        self._running = 0

    def model(self, name: str) -> ServedModel:
        """A model.

        Raises:
            ApiError: 404, if there is no such model.
        """
        if name not in self.clients:
            message = f"The model '{name}' does not exist"
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._models[name]

    async def version_of(self, name: str | None, record: Record) -> Version:
        """The version of a model that answers a request, by default of the first one.

        Raises:
            ApiError: as of `model`.
            ServingError: as of `ServedModel.current`.
        """
        name = next(iter(self.clients)) if name is None else name
        model = self.model(name)
        record.model = name  # Others are no names to count by.
        return await model.current()

    def route(
        self,
        path: str,
        answer: Callable[[Request, Record], Awaitable[Response]],
        method: str,
    ) -> Route:
        """An endpoint for those who may ask, whose answers take the models' time."""

        async def endpoint(request: Request) -> Response:
            return await self.answered(request, answer)

        return Route(path, self.guarded(endpoint), methods=[method])

    def guarded(self, endpoint: Any) -> Any:
        """An endpoint for those who may ask."""

        @functools.wraps(endpoint)
        async def guarded(request: Request) -> Response:
            _check_key(request, self.options.api_keys)
            return await endpoint(request)

        return guarded

    async def answered(
        self,
        request: Request,
        answer: Callable[[Request, Record], Awaitable[Response]],
    ) -> Response:
        """An answer that takes the models' time, if there is room; it is counted."""
        record = Record(self.metrics)
        try:
            # A request counts as one completion until it says how many it wants.
            self._check_room(1)
            with self._working(1):
                return await answer(request, record)
        except (ApiError, ServingError) as error:
            refusal = error if isinstance(error, ApiError) else api_error(error)
            record.done(refusal.status)
            raise refusal from error
        except ClientDisconnect:
            record.done(_CLIENT_GONE)
            return Response(status_code=_CLIENT_GONE)
        except Exception:
            record.done(500)
            raise

    async def body(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            ApiError: it is too large, or comes too slowly.
        """
        most = self.options.max_body_bytes

        async def read() -> bytes:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise ApiError(413, f"The request has more than {most} bytes")
            return bytes(body)

        try:
            # Whoever sends slowly must not keep a place for ever.
            return await asyncio.wait_for(read(), self.options.body_timeout)
        except TimeoutError:
            raise ApiError(408, "The request came too slowly") from None

    async def streamed(
        self,
        request: Request,
        parts: AsyncGenerator[dict[str, Any], None],
        record: Record,
        usage: Usage,
        count: int,
    ) -> Response:
        """An answer part by part, as server-sent events, of so many completions."""
        # What goes wrong at once is told by the status, which is sent first.
        first = await unless_gone(request, anext(parts))
        record.first_token()
        return StreamingResponse(
            self._events(first, parts, record, usage, count),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def _events(
        self,
        first: dict[str, Any],
        parts: AsyncGenerator[dict[str, Any], None],
        record: Record,
        usage: Usage,
        count: int,
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events: the parts, an error where one comes up, the end."""
        status = _CLIENT_GONE
        with self._working(count):
            try:
                async with contextlib.aclosing(parts):
                    for piece in await _event(first):
                        yield piece
                    async for part in parts:
                        for piece in await _event(part):
                            yield piece
                status = 200
                yield b"data: [DONE]\n\n"
            except (ServingError, ApiError) as error:
                known = error if isinstance(error, ApiError) else api_error(error)
                status = known.status
                yield b"".join(await _event(known.body()))
            except Exception as error:
                _logger.exception("a stream failed")
                status = 500
                yield b"".join(await _event(unexpected(error).body()))
            finally:
                record.done(status, usage)

    def room_for(self, count: int) -> contextlib.AbstractContextManager[None]:
        """Room for the completions of a request, which counts as one before.

        Raises:
            ApiError: 429, if there is none.
        """
        self._check_room(count - 1)
        return self._working(count - 1)

    def _check_room(self, count: int) -> None:
        if self._running + count > self.options.max_running:
            raise ApiError(
                429,
                "Too many completions are worked on, try again",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
            )

    @contextlib.contextmanager
    def _working(self, count: int) -> Iterator[None]:
        # One event loop runs all requests, so that a number is enough.
        self._running += count
        try:
            yield
        finally:
            self._running -= count


async def _event(data: dict[str, Any]) -> Sequence[bytes]:
    choices = data.get("choices", ())
    size = sum(
        len(choice["text"]) * (_SCORED_BYTES if choice["logprobs"] else 1)
        for choice in choices
    )
    return await event(data, size)


def _check_key(request: Request, keys: Sequence[str]) -> None:
    if not keys:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else ""
    matches = [hmac.compare_digest(given.encode(), key.encode()) for key in keys]
    if not given or not any(matches):
        message = "Incorrect API key provided" if given else "You must give an API key"
        raise ApiError(
            401,
            f"{message}: send it as 'Authorization: Bearer KEY'",
            code="invalid_api_key",
        )


async def unless_gone(request: Request, answer: Awaitable[_Result]) -> _Result:
    """The answer; where whoever asked hangs up, it is cancelled.

    Raises:
        ClientDisconnect: nobody waits for it any more.
    """
    work = asyncio.ensure_future(answer)
    watch = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        watch.cancel()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
