"""Text of others is shown, and does nothing to a terminal or a log."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langzoo.serving.wording import (
    LineFormatter,
    in_one_line,
    visible,
    visible_json,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\tb\nc", "a\tb\nc"),
        ("over\rwritten\x08\x07\x7f", r"over\rwritten\x08\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("user\u202etxt.exe\u2028", r"user\u202etxt.exe\u2028"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("für 語 🦊 \\x1b", "für 語 🦊 \\x1b"),
    ],
)
def test_what_would_act_is_shown(text, shown):
    assert visible(text) == shown
    assert in_one_line(text) == shown.replace("\t", r"\t").replace("\n", r"\n")


@given(st.text(st.characters()))
def test_a_line_stays_a_line_and_json_the_same(text):
    line = in_one_line(text)
    assert len(line.splitlines()) <= 1
    assert visible(line) == line
    written = visible_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(written) == text
    assert visible(written) == written


def test_no_error_forges_a_line_of_a_log():
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError("no such text: \nlangzoo: version 9 is available\x1b[2J")
    except ValueError:
        logger.exception("a request for %s failed", "a\nb")
    first, heading, *code, last = written.getvalue().splitlines()
    assert first == r"a request for a\nb failed"
    assert heading == "Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in code)
    said = r"ValueError: no such text: \nlangzoo: version 9 is available\x1b[2J"
    assert last == said
