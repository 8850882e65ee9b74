"""The version of a model that answers a request, from its beginning to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from grpc import StatusCode

from ..client import AsyncClient, ModelInfo, ServingError, State
from ..client.base import trouble_of
from ..export.contract import GENERATE, MODEL_INFO
from .errors import invalid

_PROMPT_IDS = "prompt_ids"


class Version:
    """A version of a model.

    Args:
        client: that asks this version alone.
        signatures: what it answers: the names of outputs, by those of signatures.
        info: what it takes; None of a model that was exported before that was told, of
            one that says labels, and of one whose prompts are sources.
    """

    def __init__(
        self,
        client: AsyncClient,
        signatures: Mapping[str, Sequence[str]],
        info: ModelInfo | None,
    ) -> None:
        self.client = client
        self.signatures = signatures
        self.info = info
        self._tokens: Sequence[str] = ()
        self._lock = asyncio.Lock()

    def require(self, signature: str, output: str = "") -> None:
        """Refuses a request that needs a signature, or its output, that is not there.

        Raises:
            ApiError: 400, with what there is.
        """
        told = self.signatures.get(signature)
        if told is None or (output and output not in told):
            raise invalid(
                f"This model does not answer {output or signature}: it answers "
                f"{', '.join(sorted(self.signatures))}",
                "model",
            )

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
        known = (await client.metadata()).signatures
        told = {name: sorted(known[name].outputs) for name in sorted(known)}
        writes = known.get(GENERATE.name)
        # One that reads a source takes it as text alone.
        takes_ids = writes is None or _PROMPT_IDS in writes.inputs
        info = {*told.get(MODEL_INFO.name, ())}
        if not (takes_ids and MODEL_INFO.outputs.keys() <= info):
            return Version(client, told, None)
        [model] = await client.model_info()
        return Version(client, told, model)
