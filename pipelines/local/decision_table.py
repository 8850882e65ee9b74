"""What the gate decided, on the terminal: a line, and a table where that is not all."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ...components.evaluator.gate.decision import Decision
from ...components.evaluator.records import Outcome
from ...components.evaluator.wording import name_of
from .console import new_table


def print_decision(console: Console, decision: Decision) -> None:
    """Prints the decision; every rule in a table, where the line does not say all."""
    console.print(str(decision), soft_wrap=True)
    for name, measure in decision.evaluation.adapted.items():
        if name.endswith(decision.task.metric):
            told = f"adapting while it scores: {measure.value:.3f} {name_of(name)}"
            console.print(told, soft_wrap=True)
    if decision.further:
        console.print(_table(decision))


def _table(decision: Decision) -> Table:
    table = new_table()
    table.add_column("rule")
    for heading in ("value", "95 % interval", "bound"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("kept")
    for outcome in decision.verdict.rules:
        table.add_row(*_cells(outcome))
    return table


def _cells(outcome: Outcome) -> tuple[str, ...]:
    low_to_high = ""
    if outcome.interval:
        low_to_high = " to ".join(map(_number, outcome.interval))
    kept = "yes" if outcome.passed else "NO"
    if outcome.reason:
        kept = f"{kept}: {outcome.reason}"
    value, bound = _number(outcome.value), _number(outcome.bound)
    return outcome.rule, value, low_to_high, bound, kept


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
