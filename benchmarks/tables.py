"""Tables of benchmarks, which can be read in 80 columns and in a file."""

from __future__ import annotations

from langzoo.pipelines.local.console import new_table, plain_console
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def table_of(title: str, *heads: str, left: str = "") -> Table:
    """A table of numbers.

    Args:
        title: What stands above it.
        heads: Those of the columns.
        left: The one of words, if there is one.
    """
    table = new_table(title=title)
    for head in heads:
        justify = "left" if head == left else "right"
        table.add_column(head, justify=justify)  # type: ignore[arg-type]
    return table


def show(table: Table, console: Console | None = None) -> None:
    """Prints a table, in whole words: where no room is for them, a line a cell."""
    console = console or plain_console()
    if _width(table, console) > console.width:
        for column in table.columns:  # Only heads go on in the next line.
            words = [*str(column.header).split(), *map(str, column.cells)]
            column.width = max(map(len, words))
    if _width(table, console) <= console.width:
        console.print(table)
    else:
        _show_cells(table, console)


def _width(table: Table, console: Console) -> int:
    """The columns that a table takes where there is room for all."""
    unbounded = console.options.update(width=10_000)
    return Measurement.get(console, unbounded, table).maximum


def _show_cells(table: Table, console: Console) -> None:
    heads = [str(column.header) for column in table.columns]
    width = max(map(len, heads))
    console.print(table.title, soft_wrap=True)
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        console.print()
        for head, cell in zip(heads, cells, strict=True):
            console.print(f"{head:{width}}  {cell}", soft_wrap=True)
