"""The client for asyncio, over gRPC."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, TypeVar, Unpack

import grpc
import grpc.aio

from .. import protocol
from ..errors import ServingError
from . import questions
from .base import POLL_SECONDS, Connection, Deadline, statuses, trouble_of
from .channel import (
    GET_METADATA,
    GET_STATUS,
    PREDICT,
    Credentials,
    Rpc,
    channel_credentials,
    channel_options,
    grpc_metadata,
    metadata_request,
    model_spec,
    predict_request,
    read_answer,
    read_metadata,
    serving_error,
)
from .questions import BeamSettings, Each, GenerateSettings, Question, Texts
from .results import (
    Beam,
    Generation,
    Metadata,
    NextTokens,
    Score,
    TokenAlternatives,
    TokenScores,
    VersionStatus,
)

Result = TypeVar("Result")


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
        self._secure = channel_credentials(self.credentials)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        # Made late, because it belongs to the loop that runs by then.
        options = channel_options(self.retries)
        if self._secure is None:
            return grpc.aio.insecure_channel(self.target, options)
        return grpc.aio.secure_channel(self.target, self._secure, options)

    async def next_tokens(
        self, texts: Texts, *, timeout: float | None = None
    ) -> list[NextTokens]:
        """The likeliest next tokens after each text."""
        return await self._ask(questions.next_tokens(texts), timeout)

    async def score(self, texts: Texts, *, timeout: float | None = None) -> list[Score]:
        """How well the model predicts each text."""
        return await self._ask(questions.score(texts), timeout)

    async def token_scores(
        self, texts: Texts, *, timeout: float | None = None
    ) -> list[TokenScores]:
        """How well the model predicts each token of each text."""
        return await self._ask(questions.token_scores(texts), timeout)

    async def token_alternatives(
        self, texts: Texts, *, timeout: float | None = None
    ) -> list[TokenAlternatives]:
        """The same, and for each token what is likeliest in its place."""
        return await self._ask(questions.token_alternatives(texts), timeout)

    async def generate(
        self,
        prompts: Texts,
        max_new_tokens: Each[int] | None = None,
        *,
        timeout: float | None = None,
        **settings: Unpack[GenerateSettings],
    ) -> list[Generation]:
        """Continues each prompt; see `GenerateSettings`.

        Raises:
            TypeError, ValueError: a setting is not as it should be.
        """
        given = {"max_new_tokens": max_new_tokens, **settings}
        return await self._ask(questions.generate(prompts, given), timeout)

    async def beam_search(
        self,
        prompts: Texts,
        max_new_tokens: Each[int] | None = None,
        *,
        timeout: float | None = None,
        **settings: Unpack[BeamSettings],
    ) -> list[tuple[Beam, ...]]:
        """The likeliest continuations of each prompt, best first; see `BeamSettings`.

        Raises:
            TypeError, ValueError: a setting is not as it should be.
        """
        given = {"max_new_tokens": max_new_tokens, **settings}
        return await self._ask(questions.beam_search(prompts, given), timeout)

    async def status(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """The states of the model's versions."""
        spec = model_spec(self.model_name, self.version)
        request = protocol.GetModelStatusRequest(model_spec=spec)
        return statuses(await self._call(GET_STATUS, request, self._deadline(timeout)))

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

    async def _ask(
        self, question: Question[Result], timeout: float | None
    ) -> list[Result]:
        deadline = self._deadline(timeout)
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
        spec = model_spec(self.model_name, self.version, question.signature)
        response = await self._call(PREDICT, predict_request(spec, question), deadline)
        return question.read(read_answer(response, question, self.target))

    async def _metadata(self, deadline: Deadline) -> Metadata:
        request = metadata_request(model_spec(self.model_name, self.version))
        return read_metadata(await self._call(GET_METADATA, request, deadline))

    async def _call(self, rpc: Rpc, request: Any, deadline: Deadline) -> Any:
        call = self._channel.unary_unary(
            rpc.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=rpc.response_type.FromString,
        )
        try:
            return await call(
                request,
                timeout=deadline.left(),
                metadata=grpc_metadata(self.headers),
            )
        except grpc.RpcError as error:
            raise serving_error(error, self.target, deadline) from None
