"""Answers as JSON; long ones are made and sent without a pause for all others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from ..client.async_client import unblocked

_SLICE = 500
_SENT_BYTES = 1 << 18
_TYPE = "application/json"


@dataclass(frozen=True)
class LongList:
    """A list that is made as it is written, as to hold or free it would take long.

    Attributes:
        size: how many values are made.
        make: gives those from one place to another.
        rest: values behind them.
    """

    size: int
    make: Callable[[int, int], list[Any]]
    rest: Sequence[Any] = ()

    def __add__(self, others: Sequence[Any]) -> LongList:
        return LongList(self.size, self.make, [*self.rest, *others])

    def __len__(self) -> int:
        return self.size + len(self.rest)

    def __getitem__(self, there: slice) -> list[Any]:
        start, end, _ = there.indices(len(self))
        made = self.make(start, min(end, self.size)) if start < self.size else []
        return [*made, *self.rest[max(start - self.size, 0) : max(end - self.size, 0)]]


async def response(body: Mapping[str, Any], size: int = 0) -> Response:
    """An answer of JSON.

    Args:
        body: of the answer.
        size: about how many bytes it has.
    """
    pieces = await unblocked(size, _encoded, body)
    if len(pieces) == 1:
        return Response(pieces[0], media_type=_TYPE)

    async def sent() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    length = {"Content-Length": str(sum(map(len, pieces)))}
    return StreamingResponse(sent(), media_type=_TYPE, headers=length)


async def event(data: Mapping[str, Any], size: int = 0) -> Sequence[bytes]:
    """A server-sent event of JSON, in pieces that can be sent one by one."""
    return [b"data: ", *await unblocked(size, _encoded, data), b"\n\n"]


def dumps(value: Any) -> bytes:
    """JSON of what holds only values that JSON has.

    Raises:
        ValueError: a number is not finite.
    """
    return b"".join(_encoded(value))


def _encoded(value: Any) -> Sequence[bytes]:
    """JSON in pieces that can be sent one by one."""
    found, piece = [], bytearray()
    for text in _pieces(value):
        piece += text.encode()
        if len(piece) > _SENT_BYTES:
            found.append(bytes(piece))
            piece.clear()
    return [*found, bytes(piece)]


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for index, (name, inner) in enumerate(value.items()):
            yield f"{',' if index else ''}{_plain(name)}:"
            yield from _pieces(inner)
        yield "}"
    elif isinstance(value, LongList) or (
        isinstance(value, list) and len(value) > _SLICE
    ):
        yield "["
        for at in range(0, len(value), _SLICE):
            yield f"{',' if at else ''}{_plain(value[at : at + _SLICE])[1:-1]}"
        yield "]"
    elif isinstance(value, list):
        yield "["
        for index, inner in enumerate(value):
            yield "," if index else ""
            yield from _pieces(inner)
        yield "]"
    else:
        yield _plain(value)


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
