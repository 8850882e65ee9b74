"""A text that grows token by token: what of it may be shown, and where tokens stand.

A token is known by its display string (see `models.display.display_strings`), from
which its bytes come back: those of a piece of a character are written as `<0xE2>`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")
_SPACE = re.compile(rb"\s*")
# JSON has no infinity; OpenAI's API has this in its place.
_LOWEST = -9999.0
# Within so many bytes the token behind an unknown piece is looked for.
_LONGEST_UNKNOWN = 1 << 10


class ScoredToken(NamedTuple):
    """A token, its log-probability in nats, and the likeliest tokens in its place.

    The first of a text has neither, as nothing comes before it.
    """

    text: str
    log_probability: float | None
    top: Sequence[tuple[str, float]] | None = ()

    @property
    def bytes(self) -> bytes:
        """What the token stands for in a text."""
        if _BYTES.fullmatch(self.text):
            return bytes.fromhex(self.text.replace("<0x", "").replace(">", ""))
        return self.text.encode()


class Transcript:
    """A text that grows, of which something may have to be held back.

    Held back are the first bytes of a character, and whatever may turn out to be the
    beginning of a stop string. As in the signature `generate`, the text ends where its
    first stop string is complete, and is cut before it; of those that are complete at
    the same byte, the longest counts.

    Args:
        stops: strings that end the text.

    Attributes:
        tokens: all that were added.
        data: the bytes of all tokens.
        shown: the text that was taken so far.
        ended: whether nothing can be added.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self.data = b""
        self.shown = ""
        self.ended = False
        self._stops = [stop.encode() for stop in stops]
        self.tokens: list[ScoredToken] = []
        self._starts: list[int] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoded = 0
        self._taken = 0

    @property
    def count(self) -> int:
        """How many tokens the text has a part of."""
        return sum(start < len(self.data) for start in self._starts)

    def add(self, tokens: Iterable[ScoredToken]) -> None:
        """Appends tokens, until one completes a stop string."""
        for token in tokens:
            if self.ended:
                return
            self.tokens.append(token)
            self._starts.append(len(self.data))
            self.data += token.bytes
            self._cut(len(token.bytes))

    def end(self) -> None:
        """Nothing comes any more."""
        self.ended = True

    def take(self) -> tuple[str, list[ScoredToken], list[int]]:
        """What may be shown now and was not before: text, tokens and their offsets.

        A token's offset is that of the character at which it begins. Once the text has
        ended, a character that is not complete becomes U+FFFD.
        """
        end = len(self.data) - (0 if self.ended else self._held_back())
        before, first, offsets = len(self.shown), self._taken, []
        while self._taken < len(self.tokens) and self._starts[self._taken] < end:
            start = self._starts[self._taken]
            self._decode(start)
            offsets.append(len(self.shown) + self._is_broken_off(start))
            self._taken += 1
        self._decode(end, self.ended)
        return self.shown[before:], self.tokens[first : self._taken], offsets

    def _is_broken_off(self, place: int) -> bool:
        """Whether a character before a place is not completed there."""
        is_begun = self._decoder.getstate()[0] != b""
        return is_begun and self.data[place] & 0xC0 != 0x80

    def _decode(self, end: int, final: bool = False) -> None:
        # What a stop string turned out not to be was held back before.
        self.shown += self._decoder.decode(self.data[self._decoded : end], final)
        self._decoded = max(self._decoded, end)

    def _cut(self, added: int) -> None:
        """Ends the text before a stop string that the last bytes complete."""
        found = []
        for stop in self._stops:
            start = self.data.find(stop, max(0, len(self.data) - added - len(stop) + 1))
            if start >= 0:
                found.append((start + len(stop), start))
        if found:
            self.data = self.data[: min(found)[1]]
            self.ended = True

    def _held_back(self) -> int:
        """How many last bytes may begin a stop string."""
        return max(
            (
                size
                for stop in self._stops
                for size in range(1, len(stop))
                if self.data.endswith(stop[:size])
            ),
            default=0,
        )


def offsets_in(text: str, tokens: Iterable[ScoredToken]) -> list[int]:
    """The character of `text` at which each of its tokens begins.

    Tokens need not spell the text: `<unk>` stands for something unknown, and a
    tokenizer may have changed spaces. A token that is not found where it should be
    begins where the one before ended.
    """
    data = text.encode()
    place, unknown, places = 0, False, []
    for token in tokens:
        found = _find(data, token.bytes, place, unknown)
        unknown = found is None
        start, place = found or (place, place)
        places.append(start)
    return _characters(data, places)


def _find(
    data: bytes, piece: bytes, place: int, anywhere: bool
) -> tuple[int, int] | None:
    """Where a piece is from `place` on: there, after white space, or `anywhere`."""
    after_space = _SPACE.match(data, place).end()  # type: ignore[union-attr]
    for wanted in (piece, piece.strip()):
        starts = [s for s in (place, after_space) if data.startswith(wanted, s)]
        if anywhere:
            starts.append(data.find(wanted, place, place + _LONGEST_UNKNOWN))
        if starts and starts[0] >= 0:
            return starts[0], starts[0] + len(wanted)
    return None


def _characters(data: bytes, places: Iterable[int]) -> list[int]:
    """Places among bytes of UTF-8, in rising order, as places among characters."""
    counts, count, before = [], 0, 0
    for place in places:
        # Every byte but those that go on with a character begins one.
        count += sum(byte & 0xC0 != 0x80 for byte in data[before:place])
        inside = place < len(data) and data[place] & 0xC0 == 0x80
        counts.append(count - inside)
        before = place
    return counts


def logprobs_body(
    tokens: Iterable[ScoredToken], offsets: Iterable[int], count: int
) -> dict[str, Any]:
    """`logprobs` of a choice, with the `count` likeliest tokens at each place.

    The token itself is among them, as in OpenAI's API, though it may be one more. The
    lists hold plain values alone, as there may be many.
    """
    names, scores, tops = [], [], []
    for token in tokens:
        names.append(token.text)
        scores.append(_shown(token.log_probability))
        if count:
            tops.append(_top(token, count))
    return {
        "tokens": names,
        "token_logprobs": scores,
        "top_logprobs": tops if count else None,
        "text_offset": list(offsets),
    }


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """`logprobs` of a text and of what follows it."""
    return {
        name: None if values is None else values + second[name]
        for name, values in first.items()
    }


def _top(token: ScoredToken, count: int) -> dict[str, float | None] | None:
    if token.top is None:
        return None
    top: dict[str, float | None] = {}
    for text, log_probability in [
        *token.top[:count],
        (token.text, token.log_probability),
    ]:
        # Two tokens may look alike; the likelier is the one that is meant.
        top.setdefault(text, _shown(log_probability))
    return top


def _shown(log_probability: float | None) -> float | None:
    """As JSON has it, which knows no infinity; what is no number is nothing."""
    if log_probability is None or log_probability != log_probability:
        return None
    return max(log_probability, _LOWEST)
