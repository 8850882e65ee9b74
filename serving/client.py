"""Asks a language model on any TensorFlow Serving, ours or the stock one, over gRPC.

It needs the signatures of DESIGN.md on the other side and nothing of TensorFlow on
this one: importing it takes a fraction of a second.

```python
with Client("localhost:8500") as client:
    [generation] = client.generate(["To be, or"], max_new_tokens=20, seed=1)
    [score] = client.score(["To be, or not to be"])
    print(generation.text, score.bits_per_byte)
```
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import grpc

from . import protocol
from .errors import ServingError
from .protocol import DType, State

__all__ = [
    "Client",
    "DType",
    "Generation",
    "Metadata",
    "NextTokens",
    "Score",
    "ServingError",
    "Signature",
    "State",
    "TensorSpec",
    "TokenScores",
    "VersionStatus",
]

_POLL_SECONDS = 0.1
_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True)
class NextTokens:
    """The likeliest next tokens after a text, the likeliest first."""

    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text.

    Attributes:
        nll: negative log-likelihood in nats, the end of the text included.
        tokens: how many tokens were predicted, the end of the text included.
        bytes: length of the text in UTF-8.
        words: pieces of the text between white space.
        spelling_nll: nats to spell what the model's vocabulary lacks, beyond the token
            `<unk>` that `nll` counts; 0 for a text without unknown pieces.
    """

    nll: float
    tokens: int
    bytes: int
    words: int
    spelling_nll: float = 0.0

    @property
    def bits(self) -> float:
        """(nll + spelling_nll) / ln 2: the length of a code of the text."""
        return (self.nll + self.spelling_nll) / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nll / tokens); comparable between models with the same tokenizer."""
        return _exp(self.nll, self.tokens)

    @property
    def word_perplexity(self) -> float:
        """exp((nll + spelling_nll) / words); NaN for a text without words."""
        return _exp(self.nll + self.spelling_nll, self.words)

    @property
    def bits_per_byte(self) -> float:
        """bits / bytes; NaN for an empty text."""
        return self.bits / self.bytes if self.bytes else math.nan


@dataclass(frozen=True)
class TokenScores:
    """The tokens of a text, each with its log-probability in nats."""

    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt.

    Attributes:
        text: the continuation, without the prompt.
        new_tokens: how many tokens were generated.
        finish_reason: why it stopped, in the model's word.
    """

    text: str
    new_tokens: int
    finish_reason: str


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version; `error` says what went wrong, if anything did."""

    version: int
    state: State
    error: str | None


@dataclass(frozen=True)
class TensorSpec:
    """Dtype and shape of an input or output; None in a shape is any size.

    A `dtype` is an integer where it is none of those that language models use; a
    `shape` is None where even the rank is open.
    """

    dtype: DType | int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a signature by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Metadata:
    """Which version answers, and its signatures by name."""

    name: str
    version: int
    signatures: Mapping[str, Signature]


class Client:
    """A client of one model. It may be shared between threads.

    Every method raises `ServingError` where there is no good answer: `code` says what
    kind of trouble it is, the message says it in one line.

    Args:
        target: `HOST:PORT` of the server's gRPC port.
        model_name: the name it serves the model by.
        version: a certain version; the newest by default.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "langzoo",
        *,
        version: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.target = target
        self.model_name = model_name
        self.version = version
        self.timeout = timeout
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                # To notice a server soon that was not there before.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
            ],
        )

    def next_tokens(self, texts: Sequence[str | bytes]) -> list[NextTokens]:
        """The likeliest next tokens after each text."""
        columns = self._predict("serving_default", texts, "text", {}, len(texts))
        return [
            NextTokens(tuple(map(_text, tokens)), tuple(probabilities))
            for tokens, probabilities in zip(
                *columns("token", "probability"), strict=True
            )
        ]

    def score(self, texts: Sequence[str | bytes]) -> list[Score]:
        """How well the model predicts each text."""
        columns = self._predict("score", texts, "text", {}, len(texts))
        names = ("nll", "tokens", "bytes", "words", "spelling_nll")
        rows = zip(*columns(*names), strict=True)
        return [Score(*row) for row in rows]

    def token_scores(self, texts: Sequence[str | bytes]) -> list[TokenScores]:
        """How well the model predicts each token of each text."""
        columns = self._predict("token_scores", texts, "text", {}, len(texts))
        return [
            TokenScores(
                tuple(map(_text, tokens[:length])), tuple(log_probabilities[:length])
            )
            for tokens, log_probabilities, length in zip(
                *columns("token", "log_probability", "length"), strict=True
            )
        ]

    def generate(
        self,
        prompts: Sequence[str | bytes],
        max_new_tokens: int | Sequence[int] | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | Sequence[int] | None = None,
        top_p: float | Sequence[float] | None = None,
        seed: int | Sequence[int] | None = None,
    ) -> list[Generation]:
        """Continues each prompt.

        A setting is one value for all prompts or one for each; what is None is left to
        the defaults of the served signature.
        """
        rows = len(prompts)
        settings = {
            "max_new_tokens": _setting(DType.INT32, max_new_tokens, rows),
            "temperature": _setting(DType.FLOAT32, temperature, rows),
            "top_k": _setting(DType.INT32, top_k, rows),
            "top_p": _setting(DType.FLOAT32, top_p, rows),
            "seed": _setting(DType.INT32, seed, rows),
        }
        columns = self._predict("generate", prompts, "prompt", settings, rows)
        return [
            Generation(_text(text), new_tokens, _text(reason))
            for text, new_tokens, reason in zip(
                *columns("text", "new_tokens", "finish_reason"), strict=True
            )
        ]

    def status(self) -> list[VersionStatus]:
        """The states of the model's versions."""
        request = protocol.GetModelStatusRequest(model_spec=self._model_spec())
        response = self._call("ModelService", "GetModelStatus", request)
        return [
            VersionStatus(
                status.version, State(status.state), status.status.error_message or None
            )
            for status in response.model_version_status
        ]

    def metadata(self) -> Metadata:
        """The signatures of the version that answers."""
        request = protocol.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        response = self._call("PredictionService", "GetModelMetadata", request)
        packed = response.metadata["signature_def"].value
        definitions = protocol.SignatureDefMap.FromString(packed).signature_def
        return Metadata(
            response.model_spec.name,
            response.model_spec.version.value,
            {
                name: Signature(
                    _tensor_specs(definition.inputs), _tensor_specs(definition.outputs)
                )
                for name, definition in sorted(definitions.items())
            },
        )

    def wait_until_ready(self, timeout: float) -> None:
        """Waits until a version is available.

        Raises:
            ServingError: DEADLINE_EXCEEDED, if none is after `timeout` seconds; the
                message says what was wrong at last.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), _POLL_SECONDS)
            trouble = self._trouble(min(left, self.timeout))
            if trouble is None:
                return
            if time.monotonic() + _POLL_SECONDS > deadline:
                raise ServingError(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"model {self.model_name} at {self.target} is not ready after "
                    f"{timeout:g} s: {trouble}",
                )
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _trouble(self, timeout: float) -> str | None:
        """Why no version is available; None if one is."""
        request = protocol.GetModelStatusRequest(model_spec=self._model_spec())
        try:
            response = self._call("ModelService", "GetModelStatus", request, timeout)
        except ServingError as error:
            return error.message
        versions = response.model_version_status
        if any(status.state == State.AVAILABLE for status in versions):
            return None
        newest = max(versions, key=lambda status: status.version)
        reason = newest.status.error_message or State(newest.state).name.lower()
        return f"version {newest.version}: {' '.join(reason.split())}"

    def _model_spec(self, signature_name: str = "") -> Any:
        spec = protocol.ModelSpec(name=self.model_name, signature_name=signature_name)
        if self.version is not None:
            spec.version.value = self.version
        return spec

    def _predict(
        self,
        signature: str,
        texts: Sequence[str | bytes],
        text_input: str,
        settings: Mapping[str, Any],
        rows: int,
    ) -> _Columns:
        if isinstance(texts, str | bytes):
            raise TypeError("give a list of texts, not a single one")
        if not rows:
            return _Columns({}, rows, self.target)
        request = protocol.PredictRequest(model_spec=self._model_spec(signature))
        strings = [_utf8(text) for text in texts]
        request.inputs[text_input].CopyFrom(protocol.vector(DType.STRING, strings))
        for name, tensor in settings.items():
            if tensor is not None:
                request.inputs[name].CopyFrom(tensor)
        response = self._call("PredictionService", "Predict", request)
        return _Columns(response.outputs, rows, self.target)

    def _call(
        self, service: str, method: str, request: Any, timeout: float | None = None
    ) -> Any:
        response_type = (
            protocol.PredictResponse
            if method == "Predict"
            else protocol.MESSAGES[f"{method}Response"]
        )
        call = self._channel.unary_unary(
            f"/tensorflow.serving.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        timeout = self.timeout if timeout is None else timeout
        try:
            return call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._error(error, timeout) from None

    def _error(self, error: grpc.RpcError, timeout: float) -> ServingError:
        code, details = error.code(), error.details() or ""
        message = " ".join(details.split()) or code.name
        if code is grpc.StatusCode.UNAVAILABLE:
            message = f"no server answers at {self.target}"
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"no answer from {self.target} within {timeout:g} s"
        return ServingError(code, message)


class _Columns:
    """The outputs of a signature, of which each must have one value for each row."""

    def __init__(self, outputs: Mapping[str, Any], rows: int, target: str) -> None:
        self._outputs = outputs
        self._rows = rows
        self._target = target

    def __call__(self, *names: str) -> list[list[Any]]:
        return [self._column(name) if self._rows else [] for name in names]

    def _column(self, name: str) -> list[Any]:
        if name not in self._outputs:
            raise self._unfit(f"gives no {name}")
        try:
            values = protocol.nested_list(self._outputs[name])
        except ValueError as error:
            raise self._unfit(f"gives {name} in a form not expected: {error}") from None
        if not isinstance(values, list) or len(values) != self._rows:
            raise self._unfit(f"does not give one {name} for each text")
        return values

    def _unfit(self, what: str) -> ServingError:
        return ServingError(
            grpc.StatusCode.FAILED_PRECONDITION, f"the model at {self._target} {what}"
        )


def _setting(dtype: DType, value: Any, rows: int) -> Any:
    """A setting as a tensor with a value for each row; None stays None."""
    if value is None:
        return None
    values = list(value) if isinstance(value, Sequence) else [value] * rows
    if len(values) != rows:
        raise ValueError(f"{len(values)} values given for {rows} prompts")
    return protocol.vector(dtype, values)


def _tensor_specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _tensor_spec(info) for name, info in sorted(infos.items())}


def _tensor_spec(info: Any) -> TensorSpec:
    known = info.dtype in DType._value2member_map_
    dtype = DType(info.dtype) if known else info.dtype
    if info.tensor_shape.unknown_rank:
        return TensorSpec(dtype, None)
    sizes = (dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(dtype, tuple(None if size < 0 else size for size in sizes))


def _utf8(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    """A token may be a piece of a character: what is no UTF-8 is shown as such."""
    return data.decode("utf-8", "backslashreplace")


def _exp(nll: float, count: int) -> float:
    if not count:
        return math.nan
    try:
        return math.exp(nll / count)
    except OverflowError:
        return math.inf
