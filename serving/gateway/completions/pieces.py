"""A text written piece by piece, from answers that come whole.

A Predict of TensorFlow Serving answers once, with a whole text. So the text is asked
for in pieces of 1, 2, 4, 8 and then 16 tokens: each request's prompt is the tokens of
the prompt and of the text so far, and `seed_offset` says how many the latter are, which
makes the text that of one request with the same seed. An export that takes prompts of
text alone is asked for the whole text at once, and it comes in one piece.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

from ...client import Alternative, Generation
from ..prompts import Prompt
from ..transcript import ScoredToken, Transcript
from ..versions import Version
from .schema import CompletionRequest

STOPPED = "stop"
_LARGEST_PIECE = 16


class Piece(NamedTuple):
    """Some of a text, its tokens and where they begin, and why the text ends here."""

    text: str
    tokens: list[ScoredToken]
    offsets: list[int]
    reason: str | None


class Writer:
    """Writes one text after a prompt.

    Args:
        version: of the model that writes.
        request: what is asked.
        prompt: to go on from.
        settings: of `generate`.

    Attributes:
        prompt_tokens: how many were read, when the text has ended.
        new_tokens: how many the text has a part of by then.
    """

    def __init__(
        self,
        version: Version,
        request: CompletionRequest,
        prompt: Prompt,
        settings: dict[str, Any],
    ) -> None:
        self._client, self._info = version.client, version.info
        self._request = request
        self._prompt = prompt
        self._settings = settings
        self.prompt_tokens = self.new_tokens = 0

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The pieces as they come; the last has the reason why it is.

        Raises:
            ServingError: the model server refuses, or does not answer.
        """
        if self._info is None:
            yield await self._whole()
            return
        total = min(self._request.max_tokens, self._info.max_new_tokens)
        transcript, size = Transcript(self._request.stop), 1
        ids: tuple[int, ...] = ()
        reason = None
        while reason is None:
            count = min(size, total - len(ids))
            piece = await self._ask(ids, count)
            ids += piece.token_ids or ()
            transcript.add(tokens_of(piece))
            if transcript.ended:
                reason = STOPPED
            elif len(ids) >= total or piece.new_tokens < count:
                reason = piece.finish_reason
            if reason is not None:
                transcript.end()
                self.prompt_tokens = self._prompt.size
                self.new_tokens = transcript.count
            yield Piece(*transcript.take(), reason)
            size = min(2 * size, _LARGEST_PIECE)

    async def written(self) -> Generation:
        """The whole text, as if it had come at once."""
        pieces = [piece async for piece in self.pieces()]
        text = "".join(piece.text for piece in pieces)
        tokens = [token for piece in pieces for token in piece.tokens]
        return Generation(
            text,
            self.new_tokens,
            pieces[-1].reason or "",
            self.prompt_tokens,
            tuple(token.text for token in tokens),
            tuple(token.log_probability or 0.0 for token in tokens),
            tuple(
                tuple(Alternative(*other) for other in token.top or ())
                for token in tokens
            ),
            text.encode(),
        )

    async def _ask(self, ids: tuple[int, ...], count: int) -> Generation:
        """The next tokens, `count` at most, after the new ones so far."""
        [piece] = await self._client.generate(
            [""],
            prompt_ids=[(*(self._prompt.ids or ()), *ids)],
            max_new_tokens=count,
            seed_offset=len(ids) or None,
            **self._settings,
        )
        return piece

    async def _whole(self) -> Piece:
        [whole] = await self._client.generate(
            [self._prompt.text],
            max_new_tokens=self._request.max_tokens,
            stop=self._request.stop or None,
            **self._settings,
        )
        self.prompt_tokens = whole.prompt_tokens or 0
        self.new_tokens = whole.new_tokens
        return Piece(text_of(whole), *placed_tokens(whole), whole.finish_reason)


def text_of(generation: Generation) -> str:
    """The new text; bytes that are no character become U+FFFD."""
    return generation.text_bytes.decode("utf-8", "replace")


def tokens_of(generation: Generation) -> list[ScoredToken]:
    """The new tokens; none of a model that was exported before they were served."""
    return scored_tokens(
        generation.tokens or (),
        generation.log_probabilities or (),
        generation.alternatives or (),
    )


def placed_tokens(generation: Generation) -> tuple[list[ScoredToken], list[int]]:
    """The new tokens, and the character of the new text at which each begins."""
    transcript = Transcript()
    transcript.add(tokens_of(generation))
    transcript.end()
    _, tokens, offsets = transcript.take()
    return tokens, offsets


def scored_tokens(
    tokens: Sequence[str],
    log_probabilities: Sequence[float],
    alternatives: Sequence[Sequence[Alternative]],
) -> list[ScoredToken]:
    """Tokens as the client gives them."""
    return [
        ScoredToken(
            token,
            log_probability,
            tuple((other.token, other.log_probability) for other in others),
        )
        for token, log_probability, others in zip(
            tokens, log_probabilities, alternatives, strict=True
        )
    ]
