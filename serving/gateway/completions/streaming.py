"""Completions as a stream, of which several may come side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from ..prompts import Prompt
from .serving import Completion, Echo, choice_body

_T = TypeVar("_T")


async def stream(completion: Completion) -> AsyncGenerator[dict[str, Any], None]:
    """The parts of the answer, as they come.

    Raises:
        ServingError: the model server refuses, or does not answer.
    """
    options = completion.request.stream_options
    echoes = await completion.echoes()
    async with contextlib.aclosing(_choices(completion, echoes)) as choices:
        async for choice in choices:
            part = completion.body([choice])
            if options is not None and options.continuous_usage_stats:
                part["usage"] = completion.usage.body()
            yield part
    if options is not None and options.include_usage:
        yield {**completion.body([]), "usage": completion.usage.body()}


def _choices(
    completion: Completion, echoes: Sequence[Echo]
) -> AsyncGenerator[dict[str, Any], None]:
    """The parts of all choices, as they come."""
    rows = [
        row
        for row in zip(completion.prompts, echoes, strict=True)
        for _ in range(completion.request.n)
    ]
    return _merged(
        [
            _parts(completion, index, prompt, echo, seed)
            for index, ((prompt, echo), seed) in enumerate(
                zip(rows, completion.seeds(), strict=True)
            )
        ]
    )


async def _parts(
    completion: Completion, index: int, prompt: Prompt, echo: Echo, seed: int
) -> AsyncGenerator[dict[str, Any], None]:
    """The parts of a choice; the last has the reason why it ends."""
    writer, request = completion.writer(prompt, seed), completion.request
    left, before = echo, len(echo.text)
    async with contextlib.aclosing(writer.pieces()) as pieces:
        async for piece in pieces:
            if piece.reason is not None:
                # A prompt is read once, whatever the number of its completions.
                if index % request.n == 0:
                    completion.usage.prompt_tokens += writer.prompt_tokens
                completion.usage.completion_tokens += writer.new_tokens
            if not any((left.text, piece.text, piece.tokens, piece.reason)):
                continue
            logprobs = None
            if request.logprobs is not None:
                places = [before + offset for offset in piece.offsets]
                logprobs = completion.logprobs(left, piece.tokens, places)
            text = left.text + piece.text
            yield choice_body(index, text, logprobs, piece.reason)
            left = Echo()


async def _merged(
    streams: Sequence[AsyncGenerator[_T, None]],
) -> AsyncGenerator[_T, None]:
    """What comes of several, as it comes; whoever stops looking stops them all."""
    queue: asyncio.Queue[_T | Exception | None] = asyncio.Queue()

    async def pump(stream: AsyncGenerator[_T, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for part in stream:
                    queue.put_nowait(part)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    left = len(tasks)
    try:
        while left:
            part = await queue.get()
            if isinstance(part, Exception):
                raise part
            if part is None:
                left -= 1
            else:
                yield part
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
