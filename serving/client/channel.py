"""What the sync and the async gRPC client share: channel, requests, errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import grpc

from .. import protocol
from ..errors import ServingError
from ..protocol import State
from .base import (
    BACKOFF_JITTER,
    FIRST_BACKOFF_SECONDS,
    Connection,
    Deadline,
    signatures,
)
from .questions import Answer, Question
from .results import Metadata, VersionStatus
from .tls import Tls

assert BACKOFF_JITTER == 0.2, "gRPC's own, which cannot be chosen"

Credentials: TypeAlias = Tls | grpc.ChannelCredentials
Result = TypeVar("Result")


class Call(NamedTuple, Generic[Result]):
    """A call of a server's method.

    Attributes:
        path: of the method.
        request: the message.
        response_type: of the answer's message.
        read: what that message says.
    """

    path: str
    request: Any
    response_type: Any
    read: Callable[[Any], Result]

    def method(self, channel: Any, reads: bool = True) -> Any:
        """What makes the call, on a channel of gRPC that waits or does not.

        Args:
            channel: of gRPC.
            reads: whether it gives the answer's message, or its bytes.
        """
        return channel.unary_unary(
            self.path,
            request_serializer=type(self.request).SerializeToString,
            response_deserializer=self.response_type.FromString if reads else None,
        )


def predict(connection: Connection, question: Question[Any]) -> Call[Answer]:
    """Asks a question in one request."""
    request = protocol.PredictRequest(model_spec=_spec(connection, question.signature))
    for name, (dtype, values) in question.columns.items():
        request.inputs[name].CopyFrom(protocol.tensor(dtype, values))

    def read(response: Any) -> Answer:
        outputs, rows = response.outputs, question.rows
        return Answer(outputs, protocol.nested_list, rows, connection.target)

    path = "/tensorflow.serving.PredictionService/Predict"
    return Call(path, request, protocol.PackedPredictResponse, read)


def status(connection: Connection) -> Call[list[VersionStatus]]:
    """Asks for the states of the model's versions."""

    def read(response: Any) -> list[VersionStatus]:
        return [
            VersionStatus(
                status.version, State(status.state), status.status.error_message or None
            )
            for status in response.model_version_status
        ]

    request = protocol.GetModelStatusRequest(model_spec=_spec(connection))
    path = "/tensorflow.serving.ModelService/GetModelStatus"
    return Call(path, request, protocol.GetModelStatusResponse, read)


def metadata(connection: Connection) -> Call[Metadata]:
    """Asks for the signatures of the version that answers."""

    def read(response: Any) -> Metadata:
        packed = response.metadata["signature_def"].value
        return Metadata(
            response.model_spec.name,
            response.model_spec.version.value,
            signatures(protocol.SignatureDefMap.FromString(packed)),
        )

    request = protocol.GetModelMetadataRequest(
        model_spec=_spec(connection), metadata_field=["signature_def"]
    )
    path = "/tensorflow.serving.PredictionService/GetModelMetadata"
    return Call(path, request, protocol.GetModelMetadataResponse, read)


def _spec(connection: Connection, signature: str = "") -> Any:
    """Which model, version and signature is asked."""
    spec = protocol.ModelSpec(name=connection.model_name, signature_name=signature)
    if connection.version is not None:
        spec.version.value = connection.version
    return spec


def channel_options(retries: int) -> list[tuple[str, Any]]:
    """Channel arguments for messages of any size and so many retries.

    See https://github.com/grpc/proposal/blob/master/A6-client-retries.md.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # To notice a server soon that was not there before.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": f"{FIRST_BACKOFF_SECONDS}s",
            "maxBackoff": "60s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
        options += [
            ("grpc.service_config", json.dumps(config)),
            # A request that does not fit in here is not sent a second time.
            ("grpc.per_rpc_retry_buffer_size", 1 << 30),
        ]
    return options


def channel_credentials(
    credentials: Credentials | None,
) -> grpc.ChannelCredentials | None:
    """What gRPC takes; None is a connection in the clear."""
    if isinstance(credentials, Tls):
        return credentials.grpc_credentials()
    return credentials


def grpc_metadata(headers: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """Headers as gRPC sends them."""
    return [(name.lower(), value) for name, value in (headers or {}).items()]


def serving_error(error: Any, target: str, deadline: Deadline) -> ServingError:
    """What a `grpc.RpcError` means, in a line."""
    code, details = error.code(), " ".join((error.details() or "").split())
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return deadline.exceeded()
    message = details or code.name
    if code is grpc.StatusCode.UNAVAILABLE:
        if "handshake" in details.lower():
            message = f"no secure connection to {target}: {details}"
        elif details.startswith(("failed to connect", "errors resolving")):
            message = f"no server answers at {target}"
        else:
            message = f"no answer from {target}: {message}"
    return ServingError(code, message)
