"""What a run shows on a terminal."""

from __future__ import annotations

import io
import re

from langzoo.components.progress import report, show
from langzoo.pipelines.local.console import (
    NodeProgress,
    new_table,
    plain_console,
    spinner,
)
from rich.console import Console
from rich.table import Table


def test_a_state_that_is_longer_than_the_terminal_is_wide_is_shown_whole():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=60)
    words = [f"word{number}" for number in range(20)]
    with NodeProgress(console).attached() as progress:
        progress.start("Trainer")
        show(" ".join(words))
        progress.finish(cached=False)
    assert set(re.findall(r"word\d+", output.getvalue())) == set(words)


def test_words_of_the_users_are_neither_markup_nor_codes():
    output = io.StringIO()
    console = plain_console(output)
    said = "[/x] [bold]a :smile: [link"
    console.print(said)
    table = Table(title=said)
    table.add_row(said)
    console.print(table)
    with NodeProgress(console).attached() as progress:
        progress.start(said)
        report(said)
        show(said)
        progress.finish(cached=False)
    assert output.getvalue().count(said) == 5
    with spinner(Console(file=output, force_terminal=True), said):
        pass
    assert output.getvalue().count(said) > 5


def test_nothing_that_is_printed_acts_on_the_terminal():
    output = io.StringIO()
    console = plain_console(output)
    said = "a\x1b[2Jb\x9bc"
    console.print(said)
    table = new_table(title=said)
    table.add_column(said)
    table.add_row(said)
    console.print(table)
    with NodeProgress(console).attached() as progress:
        progress.start("Trainer")
        report(f"{said}\nforged")
        progress.finish(cached=False)
    assert output.getvalue().count(r"a\x1b[2Jb\x9bc") == 5
    assert r"\nforged" in output.getvalue()
    assert not {"\x1b", "\x9b"} & set(output.getvalue())
