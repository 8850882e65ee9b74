"""Figures of models that adapt: metrics of sums of their own, told apart."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from langzoo.components.evaluator.gate import verdict
from langzoo.components.evaluator.measured import Measured
from langzoo.components.evaluator.measures.sums import CorpusSums, row, seed_of
from langzoo.components.evaluator.measures.tables import ADAPTED_MEASURES, MEASURES
from langzoo.components.evaluator.settings import EvaluatorSettings, GateSettings
from langzoo.components.pusher.model_card import model_card
from langzoo.components.pusher.settings import Card
from langzoo.models.tasks.adaptation.settings import AdaptSettings, NeuralCache
from langzoo.pipelines.configuration.loading import ConfigError, load
from langzoo.pipelines.local.console import plain_console
from langzoo.pipelines.local.decision_table import print_decision
from langzoo.pipelines.report import page
from langzoo.pipelines.report.data import RunReport


def corpus(**adapted):
    """Twenty documents of a perplexity of e ** 2, and what else is given of each."""
    sums = {"nll": 20.0, "tokens": 10, "bytes": 40, "characters": 40, "words": 8}
    documents = [
        (seed_of(f"{i}".encode()), row({**sums, **adapted})) for i in range(20)
    ]
    return CorpusSums.of(documents)


@pytest.fixture(scope="module")
def decision():
    """By the rules that are always there, of a model that a cache makes better."""
    sums = {"candidate": {"overall": corpus(cache_nll=10.0)}}
    measured = Measured(sums=sums, adapt=AdaptSettings(cache=NeuralCache(size=77)))
    return verdict.decide(
        EvaluatorSettings(rules=GATE.rules_of("causal_lm")).bounds, measured
    )


GATE = GateSettings(max_bits_per_byte=0.6)


def test_a_metric_is_of_the_likelihood_that_adapts():
    sums = corpus(cache_nll=10.0, dynamic_nll=15.0)
    values = {name: one.values(sums)[0] for name, one in ADAPTED_MEASURES.items()}
    assert values["cache_perplexity"] == pytest.approx(math.e)
    assert values["dynamic_perplexity"] == pytest.approx(math.exp(1.5))
    assert values["cache_bits_per_byte"] == pytest.approx(10 / 40 / math.log(2))
    static = MEASURES["perplexity"].values(sums)[0]
    assert static == pytest.approx(math.exp(2))
    assert np.isnan(ADAPTED_MEASURES["cache_perplexity"].values(corpus())[0])


def test_the_gate_goes_by_the_static_figure(decision):
    value = 20 / 40 / math.log(2)
    assert decision.value == pytest.approx(value)
    assert not decision.blessed
    evaluation = decision.evaluation
    assert evaluation.adapted["cache_bits_per_byte"].value == pytest.approx(value / 2)
    assert "dynamic_bits_per_byte" not in evaluation.adapted
    assert not [name for name in evaluation.candidate if name.startswith("cache")]


def test_a_rule_may_name_the_adapted_figure(decision):
    rules = [{"metric": "cache_bits_per_byte", "max": 0.6}]
    gate = GateSettings.model_validate({"max_bits_per_byte": 9.0, "rules": rules})
    assert gate.adapting == AdaptSettings(cache=NeuralCache())
    sums = {"candidate": {"overall": corpus(cache_nll=10.0)}}
    asked = gate.asked([])
    assert EvaluatorSettings.parse(asked.dump()) == asked
    assert verdict.decide(asked.bounds, Measured(sums=sums)).blessed
    # What was not measured keeps no rule.
    other = verdict.decide(
        asked.bounds, Measured(sums={"candidate": {"overall": corpus()}})
    )
    assert not other.blessed


def test_it_is_told_apart_on_terminal_page_and_card(decision):
    terminal = io.StringIO()
    print_decision(plain_console(terminal), decision)
    first, second = terminal.getvalue().splitlines()[:2]
    assert "0.721 bits per byte" in first
    assert second == "adapting while it scores: 0.361 cache bits per byte"
    run = {"pipeline": "p", "run_id": "1", "started": "2026-01-02T03:04:05"}
    shown = page.run_page(RunReport(**run, seconds=1, evaluation=decision.evaluation))
    static, adapted = shown.split("<h3>Adapting while it scores</h3>")
    assert "<th>cache perplexity</th>" in adapted
    assert "cache perplexity" not in static
    assert "size 77" in adapted
    card = Card(
        name="p",
        model={"family": "lstm", "context_length": 8},
        tokenizer="bpe",
        sources=["x"],
    )
    text = model_card(card, decision.evaluation, decision.verdict, None, None)
    metadata, measures = text.split("## Measures")
    assert "cache" not in metadata
    table, adapted = measures.split("As it adapts to each document")
    assert "cache" not in table
    assert "| cache bits per byte | 0.3607 |" in adapted


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["gate.rules=[{metric: dynamic_perplexity, against: ngram}]"],
            "of the candidate only: give min, max",
        ),
        (
            ["gate.adapt={dynamic: {}}", "model={family: ngram}"],
            "gate.adapt.dynamic, or a rule about it, needs a family that learns by",
        ),
        (["gate.adapt={cache: {size: 0}}"], "gate.adapt.cache.size: 0 cannot be"),
        (["gate.adapt={cash: {}}"], "unknown key gate.adapt.cash: did you mean cache?"),
    ],
)
def test_what_cannot_adapt_is_refused_in_a_line(settings, said):
    with pytest.raises(ConfigError) as raised:
        load(settings=settings)
    assert said in str(raised.value)
