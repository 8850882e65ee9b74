"""What the sync and the async gRPC client share: channel, requests, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import grpc

from .. import protocol
from ..errors import ServingError
from .base import BACKOFF_JITTER, FIRST_BACKOFF_SECONDS, Deadline, signatures
from .questions import Answer, Question
from .results import Metadata
from .tls import Tls

assert BACKOFF_JITTER == 0.2, "gRPC's own, which cannot be chosen"

Credentials: TypeAlias = Tls | grpc.ChannelCredentials


class Rpc(NamedTuple):
    """A method of a server: its path and how to read the answer."""

    path: str
    response_type: Any


PREDICT = Rpc("/tensorflow.serving.PredictionService/Predict", protocol.PredictResponse)
GET_METADATA = Rpc(
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    protocol.GetModelMetadataResponse,
)
GET_STATUS = Rpc(
    "/tensorflow.serving.ModelService/GetModelStatus", protocol.GetModelStatusResponse
)


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


def model_spec(name: str, version: int | None, signature: str = "") -> Any:
    """Which model, version and signature is asked."""
    spec = protocol.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        spec.version.value = version
    return spec


def predict_request(spec: Any, question: Question[Any]) -> Any:
    """The message that asks a question."""
    request = protocol.PredictRequest(model_spec=spec)
    for name, (dtype, values) in question.columns.items():
        request.inputs[name].CopyFrom(protocol.tensor(dtype, values))
    return request


def read_answer(response: Any, question: Question[Any], target: str) -> Answer:
    """The answer that a message holds."""
    return Answer(response.outputs, protocol.nested_list, question.rows, target)


def metadata_request(spec: Any) -> Any:
    """The message that asks for the signatures."""
    return protocol.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    )


def read_metadata(response: Any) -> Metadata:
    """The signatures that a message holds."""
    packed = response.metadata["signature_def"].value
    return Metadata(
        response.model_spec.name,
        response.model_spec.version.value,
        signatures(protocol.SignatureDefMap.FromString(packed)),
    )


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
