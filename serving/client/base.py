"""What the clients have in common beside questions: settings, deadlines, methods."""

from __future__ import annotations

import functools
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc

from .. import protocol
from ..errors import ServingError
from ..protocol import DType, State
from . import questions
from .questions import Answer, Question
from .results import Metadata, Signature, TensorSpec, VersionStatus

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
Self = TypeVar("Self", bound="SyncClient")

POLL_SECONDS = 0.1
# gRPC's own limit.
MAX_RETRIES = 4
# The first is after this long, the next after twice as long and so on; each is drawn
# around that, so that not all clients come back at once.
FIRST_BACKOFF_SECONDS = 0.2
BACKOFF_JITTER = 0.2


class Deadline:
    """The time by which all of a call must be done, retries and batches included."""

    def __init__(self, seconds: float, target: str) -> None:
        self.seconds = seconds
        self._target = target
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            ServingError: DEADLINE_EXCEEDED, if there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self) -> ServingError:
        """The error for an answer that did not come in time."""
        return ServingError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"no answer from {self._target} within {self.seconds:g} s",
        )


@dataclass(eq=False, repr=False)
class Connection:
    """What every client is told; see `Client` for the arguments."""

    target: str
    model_name: str = "langzoo"
    _: KW_ONLY
    version: int | None = None
    timeout: float = 60.0
    retries: int = 0
    batch_size: int = 64
    headers: Mapping[str, str] | None = None
    _signatures: Mapping[str, Signature] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._check("retries", 0 <= self.retries <= MAX_RETRIES, f"0 to {MAX_RETRIES}")
        self._check("batch_size", self.batch_size >= 1, "at least 1")
        self._check("timeout", self.timeout > 0, "above 0 seconds")

    def _check(self, name: str, fits: bool, wanted: str) -> None:
        if not fits:
            value = getattr(self, name)
            raise ValueError(f"{name} must be {wanted}. Received: {value}")

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self.timeout if timeout is None else timeout, self.target)

    def _not_ready(self, timeout: float, trouble: str) -> ServingError:
        return ServingError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"model {self.model_name} at {self.target} is not ready after "
            f"{timeout:g} s: {trouble}",
        )

    def _is_outdated(self, error: ServingError, signatures: Any) -> bool:
        """Whether a refusal may be due to signatures of a version that was before."""
        return signatures is not None and error.code in (
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.INVALID_ARGUMENT,
        )


def asks(
    question: Callable[Parameters, Question[Result]],
) -> Callable[Concatenate[Any, Parameters], list[Result]]:
    """A method that asks a question and gives its results; it takes what that takes."""

    def method(
        self: Any, /, *args: Parameters.args, **options: Parameters.kwargs
    ) -> list[Result]:
        answered: list[Result] = self._ask(question(*args, **options))
        return answered

    return as_method(method, question)


def as_method(method: Any, question: Callable[..., Question]) -> Any:
    """Gives a method that asks a question its name, documentation and signature."""
    functools.update_wrapper(method, question)
    own = inspect.signature(question)
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = own.replace(
        parameters=[self, *own.parameters.values()],
        return_annotation=str(own.return_annotation).replace("Question", "list", 1),
    )
    return method


class Asker(ABC):
    """Whoever can be asked, and is waited for.

    `timeout` of a method stands for the asker's own, in seconds.
    """

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

    @abstractmethod
    def _ask(self, question: Question[Result]) -> list[Result]:
        """The answers to a question, however many rows it has."""


class SyncClient(Connection, Asker):
    """The methods of a client whose calls wait for the answer.

    Every method raises `ServingError` where there is no good answer: `code` says what
    kind of trouble it is, the message says it in one line. `timeout` stands for the
    client's own, in seconds.
    """

    def status(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """The states of the model's versions."""
        return self._status(self._deadline(timeout))

    def metadata(self, *, timeout: float | None = None) -> Metadata:
        """The signatures of the version that answers."""
        return self._metadata(self._deadline(timeout))

    def wait_until_ready(self, timeout: float) -> None:
        """Waits until a version is available.

        Raises:
            ServingError: DEADLINE_EXCEEDED, if none is after `timeout` seconds; the
                message says what was wrong at last.
        """
        end = time.monotonic() + timeout
        while True:
            left = max(end - time.monotonic(), POLL_SECONDS)
            try:
                trouble = trouble_of(self.status(timeout=min(left, self.timeout)))
            except ServingError as error:
                trouble = error.message
            if trouble is None:
                return
            if time.monotonic() + POLL_SECONDS > end:
                raise self._not_ready(timeout, trouble)
            time.sleep(POLL_SECONDS)

    @abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _predict(self, question: Question[Any], deadline: Deadline) -> Answer:
        """Asks a question in one request."""

    @abstractmethod
    def _status(self, deadline: Deadline) -> list[VersionStatus]: ...

    @abstractmethod
    def _metadata(self, deadline: Deadline) -> Metadata: ...

    def _ask(self, question: Question[Result]) -> list[Result]:
        deadline = self._deadline(question.timeout)
        known = self._signatures
        try:
            return self._ask_completed(question, deadline)
        except ServingError as error:
            if not (question.has_settings and self._is_outdated(error, known)):
                raise
            self._signatures = None
            return self._ask_completed(question, deadline)

    def _ask_completed(
        self, question: Question[Result], deadline: Deadline
    ) -> list[Result]:
        if question.has_settings and question.rows:
            # Another thread may forget them in between.
            known = self._signatures
            if known is None:
                known = self._signatures = self._metadata(deadline).signatures
            question = question.completed(known, self.target)
        return [
            result
            for batch in question.batches(self.batch_size)
            for result in batch.read(self._predict(batch, deadline))
        ]


def trouble_of(versions: Sequence[VersionStatus]) -> str | None:
    """Why no version is available; None if one is."""
    if any(status.state == State.AVAILABLE for status in versions):
        return None
    if not versions:
        return "no version is known"
    newest = max(versions, key=lambda status: status.version)
    reason = newest.error or newest.state.name.lower()
    return f"version {newest.version}: {' '.join(reason.split())}"


def signatures(message: Any) -> dict[str, Signature]:
    """The signatures that a `SignatureDefMap` tells."""
    return {
        name: Signature(
            _tensor_specs(definition.inputs),
            _tensor_specs(definition.outputs),
            dict(_defaults(definition.defaults)),
        )
        for name, definition in sorted(message.signature_def.items())
    }


def _tensor_specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _tensor_spec(info) for name, info in sorted(infos.items())}


def _tensor_spec(info: Any) -> TensorSpec:
    known = info.dtype in DType._value2member_map_
    dtype = DType(info.dtype) if known else info.dtype
    if info.tensor_shape.unknown_rank:
        return TensorSpec(dtype, None)
    sizes = (dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(dtype, tuple(None if size < 0 else size for size in sizes))


def _defaults(tensors: Mapping[str, Any]) -> Iterable[tuple[str, list[Any]]]:
    """The defaults that have a row, as those of language models do."""
    for name, tensor in sorted(tensors.items()):
        try:
            value = protocol.nested_list(tensor)
        except ValueError:
            continue
        if isinstance(value, list):
            yield name, value
