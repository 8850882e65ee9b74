"""What is printed of a decision: a line where that is all, else every rule."""

from __future__ import annotations

import io

from langzoo.components.evaluator.gate.decision import Decision
from langzoo.components.evaluator.records import (
    Evaluated,
    Evaluation,
    Measure,
    Outcome,
    Slice,
    Verdict,
)
from langzoo.pipelines.local.decision_table import print_decision
from rich.console import Console

CONDITION = Outcome(
    rule="documents >= 1", metric="documents", value=9, bound=1, passed=True
)
BOUND = Outcome(
    rule="bits_per_byte <= 3", metric="bits_per_byte", value=2, bound=3, passed=True
)
ACCURACY = Outcome(
    rule="token_accuracy >= 0.5",
    metric="token_accuracy",
    value=0.41234,
    bound=0.5,
    interval=(0.4, 0.42),
    passed=False,
    reason="below the bound",
)
MEASURES = {"overall": Slice(documents=9, metrics={"bits_per_byte": Measure(value=2)})}


def printed(*outcomes):
    evaluation = Evaluation(
        documents=9, models={"candidate": Evaluated(slices=MEASURES)}
    )
    decision = Decision(evaluation, Verdict(blessed=False, rules=list(outcomes)))
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
