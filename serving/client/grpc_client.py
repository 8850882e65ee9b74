"""The client that waits, over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from . import channel
from .base import Deadline, SyncClient
from .channel import Call, Credentials
from .questions import Answer, Question
from .results import Metadata, VersionStatus

Result = TypeVar("Result")


@dataclass(eq=False, repr=False, kw_only=True)
class Client(SyncClient):
    """A client of one model over gRPC. It may be shared between threads.

    Args:
        target: `HOST:PORT` of the server's gRPC port, or `unix:PATH`.
        model_name: the name it serves the model by.
        version: a certain version; the newest by default.
        timeout: seconds that a call of a method may take, all its requests and
            retries included.
        retries: how often, from 0 to 4, a request is sent again that found the server
            away or too busy (UNAVAILABLE, RESOURCE_EXHAUSTED). The first retry comes
            after 0.2 s, each further one after twice as long, give or take a fifth.
        batch_size: the most texts that are sent in one request.
        credentials: a `Tls`, or gRPC's own; without, the connection is in the clear.
        headers: what to send along with every request, such as an authorization.
    """

    credentials: Credentials | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        options = channel.channel_options(self.retries)
        secure = channel.channel_credentials(self.credentials)
        self._channel = (
            grpc.insecure_channel(self.target, options=options)
            if secure is None
            else grpc.secure_channel(self.target, secure, options=options)
        )

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _predict(self, question: Question[Any], deadline: Deadline) -> Answer:
        return self._call(channel.predict(self, question), deadline)

    def _status(self, deadline: Deadline) -> list[VersionStatus]:
        return self._call(channel.status(self), deadline)

    def _metadata(self, deadline: Deadline) -> Metadata:
        return self._call(channel.metadata(self), deadline)

    def _call(self, call: Call[Result], deadline: Deadline) -> Result:
        try:
            response = call.method(self._channel)(
                call.request,
                timeout=deadline.left(),
                metadata=channel.grpc_metadata(self.headers),
            )
        except grpc.RpcError as error:
            raise channel.serving_error(error, self.target, deadline) from None
        return call.read(response)
