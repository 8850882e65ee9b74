"""The client that waits, over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from .. import protocol
from .base import Deadline, SyncClient, statuses
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
from .questions import Answer, Question
from .results import Metadata, VersionStatus


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
        options = channel_options(self.retries)
        secure = channel_credentials(self.credentials)
        self._channel = (
            grpc.insecure_channel(self.target, options=options)
            if secure is None
            else grpc.secure_channel(self.target, secure, options=options)
        )

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _predict(self, question: Question[Any], deadline: Deadline) -> Answer:
        spec = model_spec(self.model_name, self.version, question.signature)
        response = self._call(PREDICT, predict_request(spec, question), deadline)
        return read_answer(response, question, self.target)

    def _status(self, deadline: Deadline) -> list[VersionStatus]:
        spec = model_spec(self.model_name, self.version)
        request = protocol.GetModelStatusRequest(model_spec=spec)
        return statuses(self._call(GET_STATUS, request, deadline))

    def _metadata(self, deadline: Deadline) -> Metadata:
        request = metadata_request(model_spec(self.model_name, self.version))
        return read_metadata(self._call(GET_METADATA, request, deadline))

    def _call(self, rpc: Rpc, request: Any, deadline: Deadline) -> Any:
        call = self._channel.unary_unary(
            rpc.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=rpc.response_type.FromString,
        )
        try:
            return call(
                request,
                timeout=deadline.left(),
                metadata=grpc_metadata(self.headers),
            )
        except grpc.RpcError as error:
            raise serving_error(error, self.target, deadline) from None
