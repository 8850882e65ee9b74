"""The client for asyncio, over gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Concatenate, TypeVar

import grpc
import grpc.aio

from ..errors import ServingError
from . import channel, questions
from .base import (
    POLL_SECONDS,
    Connection,
    Deadline,
    Parameters,
    as_method,
    trouble_of,
)
from .channel import Call, Credentials
from .questions import Question
from .results import Metadata, VersionStatus

Result = TypeVar("Result")
# What takes so many bytes, takes more time than others should wait.
_LARGE = 1 << 15


def asks(
    question: Callable[Parameters, Question[Result]],
) -> Callable[Concatenate[Any, Parameters], Awaitable[list[Result]]]:
    """A coroutine that asks a question and gives the results."""

    async def method(
        self: Any, /, *args: Parameters.args, **options: Parameters.kwargs
    ) -> list[Result]:
        rows: Any = args[0] if args and isinstance(args[0], list) else ()
        size = sum(len(row) for row in rows if isinstance(row, Sized))
        asked = await unblocked(size, partial(question, *args, **options))
        answered: list[Result] = await self._ask(asked)
        return answered

    return as_method(method, question)


@dataclass(eq=False, repr=False, kw_only=True)
class AsyncClient(Connection):
    """A client of one model for asyncio, over gRPC: `Client`, but with coroutines.

    Whoever cancels a call cancels its requests at the server. A list that is longer
    than `batch_size` is sent in several requests at a time; the answers come in order.
    It belongs to the event loop in which it is first used.

    Args:
        target, model_name, version, timeout, retries, batch_size, credentials, headers:
            as of `Client`.
        max_in_flight: how many requests of one call may be on their way at a time.
    """

    credentials: Credentials | None = None
    max_in_flight: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("max_in_flight", self.max_in_flight >= 1, "at least 1")
        self._secure = channel.channel_credentials(self.credentials)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        # Made late, because it belongs to the loop that runs by then.
        options = channel.channel_options(self.retries)
        if self._secure is None:
            return grpc.aio.insecure_channel(self.target, options)
        return grpc.aio.secure_channel(self.target, self._secure, options)

    serving_default = asks(questions.serving_default)
    next_tokens = asks(questions.next_tokens)
    classify = asks(questions.classify)
    score_labels = asks(questions.score_labels)
    tag = asks(questions.tag)
    score_tags = asks(questions.score_tags)
    score = asks(questions.score)
    fill_mask = asks(questions.fill_mask)
    token_scores = asks(questions.token_scores)
    cache_scores = asks(questions.cache_scores)
    token_alternatives = asks(questions.token_alternatives)
    id_alternatives = asks(questions.id_alternatives)
    generate = asks(questions.generate)
    beam_search = asks(questions.beam_search)
    tokenize = asks(questions.tokenize)
    detokenize = asks(questions.detokenize)
    embed = asks(questions.embed)
    model_info = asks(questions.model_info)
    label_info = asks(questions.label_info)

    def at(self, version: int) -> AsyncClient:
        """A client of one version of the model, over the same connection."""
        other = replace(self, version=version)
        other.__dict__["_channel"] = self._channel
        return other

    async def status(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """The states of the model's versions."""
        return await self._call(channel.status(self), self._deadline(timeout))

    async def metadata(self, *, timeout: float | None = None) -> Metadata:
        """The signatures of the version that answers."""
        return await self._metadata(self._deadline(timeout))

    async def wait_until_ready(self, timeout: float) -> None:
        """Waits until a version is available.

        Raises:
            ServingError: DEADLINE_EXCEEDED, if none is after `timeout` seconds; the
                message says what was wrong at last.
        """
        end = time.monotonic() + timeout
        while True:
            left = max(end - time.monotonic(), POLL_SECONDS)
            try:
                trouble = trouble_of(await self.status(timeout=min(left, self.timeout)))
            except ServingError as error:
                trouble = error.message
            if trouble is None:
                return
            if time.monotonic() + POLL_SECONDS > end:
                raise self._not_ready(timeout, trouble)
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Closes the connection."""
        if "_channel" in self.__dict__:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _ask(self, question: Question[Result]) -> list[Result]:
        deadline = self._deadline(question.timeout)
        known = self._signatures
        try:
            return await self._ask_completed(question, deadline)
        except ServingError as error:
            if not (question.has_settings and self._is_outdated(error, known)):
                raise
            self._signatures = None
            return await self._ask_completed(question, deadline)

    async def _ask_completed(
        self, question: Question[Result], deadline: Deadline
    ) -> list[Result]:
        if question.has_settings and question.rows:
            # Another task may forget them in between.
            known = self._signatures
            if known is None:
                known = self._signatures = (await self._metadata(deadline)).signatures
            question = question.completed(known, self.target)
        free = asyncio.Semaphore(self.max_in_flight)

        async def ask(batch: Question[Result]) -> list[Result]:
            async with free:
                return await self._predict(batch, deadline)

        try:
            # One that fails cancels the others.
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(ask(batch))
                    for batch in question.batches(self.batch_size)
                ]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [result for task in tasks for result in task.result()]

    async def _predict(
        self, question: Question[Result], deadline: Deadline
    ) -> list[Result]:
        size = sum(
            len(value)
            for column in question.columns.values()
            for value in column.values
            if isinstance(value, bytes)
        )
        call = await unblocked(size, channel.predict, self, question)
        data = await self._response(call, deadline)

        def read() -> list[Result]:
            return question.read(call.read(call.response_type.FromString(data)))

        return await unblocked(len(data), read)

    async def _metadata(self, deadline: Deadline) -> Metadata:
        return await self._call(channel.metadata(self), deadline)

    async def _call(self, call: Call[Result], deadline: Deadline) -> Result:
        data = await self._response(call, deadline)
        return call.read(call.response_type.FromString(data))

    async def _response(self, call: Call[Any], deadline: Deadline) -> bytes:
        """The answer as it came; gRPC itself would read it in the event loop."""
        try:
            return await call.method(self._channel, reads=False)(
                call.request,
                timeout=deadline.left(),
                metadata=channel.grpc_metadata(self.headers),
            )
        except grpc.RpcError as error:
            raise channel.serving_error(error, self.target, deadline) from None


async def unblocked(size: int, work: Callable[..., Result], *args: Any) -> Result:
    """What a function gives; where it takes many bytes, in a thread."""
    if size < _LARGE:
        return work(*args)
    return await asyncio.to_thread(work, *args)
