"""Completions piece by piece.

A Predict of TensorFlow Serving answers once, with a whole text. So the text is asked
for in pieces of 1, 2, 4, 8 and then 16 tokens: each request's prompt is the prompt and
the text so far, and `seed_offset` says how many tokens that is, which makes the text
that of one request with the same seed. Where it would not be, the whole text is asked
for at once, and its rest comes in one piece:

- a prompt that has to give way: one request would leave out more of it than the first
  pieces do;
- tokens that, as text, are read as other tokens, which happens with subwords where the
  model has drawn a spelling that its tokenizer does not choose.

To notice the latter, each piece draws the last token of the one before again, and with
it those of a character that is not complete: the log-probability of a token depends on
all tokens before it, so that it is another one where these are not what they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple, TypeVar

from ...client import AsyncClient, Generation
from ..transcript import ScoredToken, Transcript, logprobs_body
from .serving import (
    STOPPED,
    Completion,
    Echo,
    choice_body,
    placed_tokens,
    text_of,
    tokens_of,
)

_LARGEST_PIECE = 16
_INT32_MAX = 2**31 - 1
_T = TypeVar("_T")


class Limits(NamedTuple):
    """Of an export: tokens of context, and the most new tokens of a request."""

    context: int
    new_tokens: int


class LimitsOf:
    """Finds out the limits of the version that a model server serves.

    Its protocol does not tell them, but `prompt_tokens` says how much of a prompt is
    read, and that is the context without the room for new tokens.

    Args:
        client: of the model.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._known: tuple[int, Limits] | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Limits:
        """The limits, which are asked for again when another version answers."""
        async with self._lock:
            version = (await self._client.metadata()).version
            if self._known is None or self._known[0] != version:
                self._known = version, await self._measure()
            return self._known[1]

    async def _measure(self) -> Limits:
        size = 1 << 12
        while True:
            prompt = "a " * size
            shorter, longer = await self._client.generate(
                [prompt, prompt * 2], max_new_tokens=0
            )
            if shorter.prompt_tokens == longer.prompt_tokens:
                break
            size *= 4
        [most] = await self._client.generate(
            [prompt],
            max_new_tokens=_INT32_MAX,
            temperature=0.0,
            # Likely to come up soon: the text itself is of no use.
            stop=["a", " ", "e", "\n"],
        )
        context = shorter.prompt_tokens or 0
        return Limits(context, context - (most.prompt_tokens or 0))


async def stream(
    completion: Completion, limits_of: LimitsOf
) -> AsyncGenerator[dict[str, Any], None]:
    """The parts of the answer, as they come.

    Raises:
        ServingError: the model server refuses, or does not answer.
    """
    request = completion.request
    echoes = await completion.echoes()
    rows = [echo for echo in echoes for _ in range(request.n)]
    prompts = [prompt for prompt in request.prompt for _ in range(request.n)]
    limits = await limits_of.get()
    streams = [
        _Stream(completion, limits, index, *row).parts()
        for index, row in enumerate(zip(prompts, rows, completion.seeds(), strict=True))
    ]
    async with contextlib.aclosing(_merged(streams)) as parts:
        async for choice in parts:
            yield completion.body([choice])
    if request.stream_options is not None and request.stream_options.include_usage:
        yield {**completion.body([]), "usage": completion.usage.body()}


class _Piece(NamedTuple):
    """Some of a text, its tokens and where they begin, and why the text ends here."""

    text: str
    tokens: list[ScoredToken]
    offsets: list[int]
    reason: str | None


class _Stream:
    """One completion, piece by piece.

    Args:
        completion: the request that it belongs to.
        limits: of the model.
        index: of the choice.
        prompt: to go on from.
        echo: what is given back of it.
        seed: of this completion.
    """

    def __init__(
        self,
        completion: Completion,
        limits: Limits,
        index: int,
        prompt: str,
        echo: Echo,
        seed: int,
    ) -> None:
        self._completion = completion
        self._request = completion.request
        self._limits = limits
        self._index = index
        self._prompt = prompt
        self._echo = echo
        self._settings = {**completion.sampling(), "seed": seed}
        self._total = min(self._request.max_tokens, limits.new_tokens)
        self._transcript = Transcript(self._request.stop)
        self._read = 0

    async def parts(self) -> AsyncGenerator[dict[str, Any], None]:
        """The parts of this choice; the last has the reason why it ends."""
        echo = self._echo
        async with contextlib.aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                if any((echo.text, piece.text, piece.tokens, piece.reason)):
                    yield self._part(echo, piece)
                    echo = Echo()

    async def _pieces(self) -> AsyncGenerator[_Piece, None]:
        transcript, size = self._transcript, 1
        exact, reason = True, None
        while reason is None:
            _, start = transcript.place
            again = len(transcript.tokens) - start
            count = min(again + size, self._total - start)
            piece = await self._ask(count)
            if start == 0:
                self._read = piece.prompt_tokens or 0
            if exact and not self._is_exact(piece):
                exact = False
                if rest := await self._rest():
                    yield rest
                    return
            transcript.add(tokens_of(piece)[again:])
            reason = self._reason(piece, count)
            if reason is not None:
                transcript.end()
                self._count(self._read, transcript.count)
            yield _Piece(*transcript.take(), reason)
            size = min(2 * size, _LARGEST_PIECE)

    async def _ask(self, count: int) -> Generation:
        """The next `count` tokens after the place to go on from."""
        size, start = self._transcript.place
        [piece] = await self._completion.client.generate(
            [self._prompt.encode() + self._transcript.data[:size]],
            max_new_tokens=count,
            seed_offset=start or None,
            **self._settings,
        )
        return piece

    async def _rest(self) -> _Piece | None:
        """All that is left, of one request; None if its text is another than so far."""
        [whole] = await self._completion.client.generate(
            [self._prompt],
            max_new_tokens=self._request.max_tokens,
            stop=self._request.stop or None,
            **self._settings,
        )
        shown, text = self._transcript.shown, text_of(whole)
        if not text.startswith(shown):
            return None
        self._count(whole.prompt_tokens or 0, whole.new_tokens)
        tokens, offsets = placed_tokens(whole)
        taken = self._transcript.taken
        return _Piece(
            text[len(shown) :], tokens[taken:], offsets[taken:], whole.finish_reason
        )

    def _is_exact(self, piece: Generation) -> bool:
        """Whether this piece is that of one request for the whole."""
        _, start = self._transcript.place
        # The start of the text takes a place as well.
        fits = 1 + self._read + self._total <= self._limits.context
        if piece.tokens is None or not fits:
            return False
        before = self._transcript.tokens[start:]
        again = tokens_of(piece)[: len(before)]
        return piece.prompt_tokens == self._read + start and (
            len(again) == len(before) and all(map(_is_same, before, again))
        )

    def _reason(self, piece: Generation, count: int) -> str | None:
        if self._transcript.ended:
            return STOPPED
        drawn = len(self._transcript.tokens)
        is_last = drawn >= self._total or piece.new_tokens < count
        return piece.finish_reason if is_last else None

    def _count(self, prompt_tokens: int, new_tokens: int) -> None:
        usage = self._completion.usage
        # A prompt is read once, whatever the number of its completions.
        if self._index % self._request.n == 0:
            usage.prompt_tokens += prompt_tokens
        usage.completion_tokens += new_tokens

    def _part(self, echo: Echo, piece: _Piece) -> dict[str, Any]:
        logprobs = None
        if self._request.logprobs is not None:
            before = len(self._echo.text)
            logprobs = logprobs_body(
                [*echo.tokens, *piece.tokens],
                [*echo.offsets, *(before + offset for offset in piece.offsets)],
                self._request.logprobs,
            )
        return choice_body(self._index, echo.text + piece.text, logprobs, piece.reason)


def _is_same(token: ScoredToken, other: ScoredToken) -> bool:
    """Whether a token was drawn again after the same tokens."""
    return token.text == other.text and math.isclose(
        token.log_probability, other.log_probability, rel_tol=1e-4, abs_tol=1e-4
    )


async def _merged(
    streams: Sequence[AsyncGenerator[_T, None]],
) -> AsyncGenerator[_T, None]:
    """What comes of several, as it comes; whoever stops looking stops them all."""
    queue: asyncio.Queue[_T | Exception | None] = asyncio.Queue()

    async def pump(stream: AsyncGenerator[_T, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for part in stream:
                    queue.put_nowait(part)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    left = len(tasks)
    try:
        while left:
            part = await queue.get()
            if isinstance(part, Exception):
                raise part
            if part is None:
                left -= 1
            else:
                yield part
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
