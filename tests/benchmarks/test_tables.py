"""Tables of benchmarks, on a narrow terminal and in a file."""

import io

import pytest
from langzoo.benchmarks import generation
from langzoo.benchmarks.tables import show, table_of
from langzoo.pipelines.local.console import plain_console

HEADS = ("model", *generation.SIDES, "best / best", "gRPC / best", "goal")
CELLS = ("GPT-2 6 x 256, batch 8", *["12,345"] * (len(HEADS) - 1))


def shown(table, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    file = io.StringIO()
    show(table, plain_console(file))
    return file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_word_of_the_widest_table_is_cut(width, monkeypatch):
    table = table_of("greedy generation", *HEADS, left="model")
    table.add_row(*CELLS)
    table.add_row(*CELLS)
    text = shown(table, width, monkeypatch)
    for word in " ".join([*HEADS, *CELLS]).split():
        assert word in text, word
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width


def test_a_table_that_fits_is_one_with_a_line_a_row(monkeypatch):
    table = table_of("speed", "model", "tokens a second", left="model")
    table.add_row("lstm", "1,234")
    lines = shown(table, 80, monkeypatch).splitlines()
    assert lines[-1].split() == ["lstm", "1,234"]
