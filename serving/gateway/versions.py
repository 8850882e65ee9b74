"""The version of a model that answers a request, from its beginning to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grpc import StatusCode

from ..client import AsyncClient, ModelInfo, ServingError, State
from ..client.base import trouble_of
from ..export.contract import MODEL_INFO


class Version:
    """A version of a model.

    Args:
        client: that asks this version alone.
        info: what it takes; None of a model that was exported before that was told.
    """

    def __init__(self, client: AsyncClient, info: ModelInfo | None) -> None:
        self.client = client
        self.info = info
        self._tokens: Sequence[str] = ()
        self._lock = asyncio.Lock()

    async def tokens(self) -> Sequence[str]:
        """Each id's token, as it is shown."""
        async with self._lock:
            if not self._tokens and self.info is not None:
                every = [range(self.info.vocabulary_size)]
                [shown] = await self.client.detokenize(every)
                self._tokens = shown.tokens
        return self._tokens


class ServedModel:
    """A model of a server, whose versions come and go.

    Args:
        client: of the model.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._known: dict[int, Version] = {}
        self._lock = asyncio.Lock()

    async def current(self) -> Version:
        """The version that is answered with now: the newest that is available.

        Raises:
            ServingError: the model server does not answer, or has none.
        """
        states = await self._client.status()
        if trouble := trouble_of(states):
            raise ServingError(StatusCode.UNAVAILABLE, trouble)
        newest = max(s.version for s in states if s.state == State.AVAILABLE)
        async with self._lock:
            if newest not in self._known:
                # Requests that go on with one of before have it themselves.
                self._known = {newest: await self._looked_at(newest)}
            return self._known[newest]

    async def _looked_at(self, number: int) -> Version:
        client = self._client.at(number)
        if MODEL_INFO.name not in (await client.metadata()).signatures:
            return Version(client, None)
        [info] = await client.model_info()
        return Version(client, info)
