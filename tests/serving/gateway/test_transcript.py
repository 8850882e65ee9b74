"""A text that grows token by token, shown as it may be, however it comes in pieces."""

from __future__ import annotations

import json
import math
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.serving.gateway.json_text import dumps
from langzoo.serving.gateway.transcript import (
    ScoredToken,
    Transcript,
    logprobs_body,
    offsets_in,
)


def tokens_of(*pieces: bytes | str) -> list[ScoredToken]:
    """Tokens with the display strings that the vocabulary gives them."""
    return [ScoredToken(shown(piece), -1.0) for piece in pieces]


def shown(piece: bytes | str) -> str:
    if isinstance(piece, str):
        return piece
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in piece)


def cut(data: bytes, stops: list[bytes]) -> bytes:
    """`data` before its first stop string, byte by byte: what Transcript must find."""
    for end in range(1, len(data) + 1):
        starts = [end - len(s) for s in stops if s and data[:end].endswith(s)]
        if starts:
            return data[: min(starts)]
    return data


@given(
    # Few letters, so that stop strings come up; bytes that are no characters.
    st.lists(st.text("abé€", max_size=3).map(str.encode) | st.binary(max_size=2)),
    st.lists(st.text("abé€", min_size=1, max_size=3), max_size=4),
    st.lists(st.booleans()),
)
def test_text_in_pieces_is_the_text_at_once(
    pieces: list[bytes], stops: list[str], looks: list[bool]
) -> None:
    transcript = Transcript(stops)
    texts, tokens, offsets = "", [], []

    def take() -> None:
        nonlocal texts
        text, new_tokens, new_offsets = transcript.take()
        texts += text
        tokens.extend(new_tokens)
        offsets.extend(new_offsets)

    looks = looks + [False] * len(pieces)
    for piece, look in zip(pieces, looks, strict=False):
        transcript.add(tokens_of(piece))
        if look:
            take()
    transcript.end()
    take()
    data = b"".join(token.bytes for token in tokens_of(*pieces))
    expected = cut(data, [stop.encode() for stop in stops])
    assert texts == transcript.shown == expected.decode("utf-8", "replace")
    assert len(tokens) == transcript.count
    assert offsets == sorted(offsets)

    whole = Transcript(stops)
    whole.add(tokens_of(*pieces))
    whole.end()
    assert whole.take() == (texts, tokens, offsets)


def test_a_part_of_a_character_is_held_back() -> None:
    transcript = Transcript()
    transcript.add(tokens_of("1 ", b"\xe2", b"\x82"))
    assert transcript.take()[0] == "1 "
    transcript.add(tokens_of(b"\xac", "!"))
    text, tokens, offsets = transcript.take()
    assert (text, offsets) == ("€!", [2, 3])
    assert [token.text for token in tokens] == ["<0xAC>", "!"]


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    transcript = Transcript(["END."])
    transcript.add(tokens_of("The E", "N"))
    assert transcript.take()[0] == "The "
    transcript.add(tokens_of("D of"))
    assert transcript.take()[0] == "END of"
    transcript.add(tokens_of(" it EN", "D. And"))
    assert transcript.ended
    assert transcript.take()[0] == " it "


@pytest.mark.parametrize(
    ("stops", "text"),
    [(["abc", "b"], "xa"), (["b", "ab"], "x"), (["c", "xa"], "")],
)
def test_the_first_stop_string_that_is_complete_counts(
    stops: list[str], text: str
) -> None:
    transcript = Transcript(stops)
    transcript.add(tokens_of("xa", "bc"))
    assert transcript.take()[0] == text


def test_a_token_after_a_broken_character_begins_behind_it() -> None:
    transcript = Transcript()
    transcript.add(tokens_of(b"\xe2", b"\x82", "x", b"\xff", "y"))
    transcript.end()
    assert transcript.take()[::2] == ("\ufffdx\ufffdy", [0, 0, 1, 2, 3])


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("a €b", ["a", " ", "€", "b"], [0, 1, 2, 3]),
        ("€!", [b"\xe2", b"\x82\xac", "!"], [0, 0, 1]),
        ("two words", [" two", " words"], [0, 3]),  # a tokenizer that adds a space
        ("a  b", ["a", " b"], [0, 3]),  # one that removes spaces
        ("a ? b", ["a", "<unk>", " b"], [0, 1, 3]),
        ("A b", ["a", " b"], [0, 1]),  # one that writes small letters
        ("", [], []),
    ],
)
def test_where_the_tokens_of_a_prompt_begin(
    text: str, pieces: list[bytes | str], expected: list[int]
) -> None:
    assert offsets_in(text, tokens_of(*pieces)) == expected


def test_the_token_itself_is_among_the_likeliest() -> None:
    token = ScoredToken("c", -3.0, (("a", -0.5), ("b", -1.0), ("d", -float("inf"))))
    assert logprobs_body([token], [0], 2) == {
        "tokens": ["c"],
        "token_logprobs": [-3.0],
        "top_logprobs": [{"a": -0.5, "b": -1.0, "c": -3.0}],
        "text_offset": [0],
    }
    # There is no infinity in JSON.
    assert logprobs_body([token], [0], 3)["top_logprobs"][0]["d"] == -9999.0
    assert logprobs_body([token], [0], 0)["top_logprobs"] is None


def test_what_is_no_number_is_null() -> None:
    token = ScoredToken("c", math.nan, (("a", math.nan),))
    body = logprobs_body([ScoredToken("b", None, None), token], [0, 1], 1)
    assert body["token_logprobs"] == [None, None]
    assert body["top_logprobs"] == [None, {"a": None, "c": None}]
    assert json.loads(dumps(body)) == body
    with pytest.raises(ValueError, match="Out of range"):
        dumps({"score": math.nan})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@settings(deadline=None)
def test_long_answers_are_json(value: Any) -> None:
    body = {"value": value, "many": [value] * 2500}
    assert json.loads(dumps(body)) == body
