"""What is printed of a decision: a line where that is all, else every rule."""

from __future__ import annotations

import io

from langzoo.components.evaluator.gate.verdict import Decision, Outcome
from langzoo.pipelines.local.decision_table import print_decision
from rich.console import Console

CONDITION = Outcome("documents >= 1", "documents", "overall", None, 9, 1, None, True)
BOUND = Outcome(
    "bits_per_byte <= 3", "bits_per_byte", "overall", None, 2.0, 3.0, None, True
)
ACCURACY = Outcome(
    *("token_accuracy >= 0.5", "token_accuracy", "overall", None),
    *(0.41234, 0.5, (0.4, 0.42), False, "below the bound"),
)


def printed(*outcomes):
    decision = Decision(False, list(outcomes), {"bits_per_byte": 2.0})
    output = io.StringIO()
    print_decision(Console(file=output, width=100), decision)
    return output.getvalue().splitlines()


def test_bits_per_byte_alone_are_a_line():
    assert printed(CONDITION, BOUND) == ["refused: 2.000 bits per byte, bound 3.000"]


def test_more_rules_are_a_table_of_all():
    first, heading, _, *rows = printed(CONDITION, BOUND, ACCURACY)
    assert first.endswith("; token_accuracy >= 0.5: below the bound")
    assert heading.split() == ["rule", "value", "95", "%", "interval", "bound", "kept"]
    assert len(rows) == 3
    shown = "token_accuracy >= 0.5 0.4123 0.4 to 0.42 0.5 NO: below the bound"
    assert rows[-1].split() == shown.split()
