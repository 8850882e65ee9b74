"""Rules of the gate, judged on corpora whose numbers are known."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from langzoo.components.evaluator.gate import verdict
from langzoo.components.evaluator.gate.rules import Rule, parse
from langzoo.components.evaluator.measures.sums import CorpusSums, row, seed_of
from langzoo.components.evaluator.results import Evaluation

DOCUMENTS = 200
BITS = Rule("bits_per_byte", against="last_blessed")


def corpus(bits, scatter=0.0, documents=DOCUMENTS, seed=0):
    """Sums of documents of 100 bytes that need about so many bits a byte."""
    noise = np.random.default_rng(seed).normal(size=documents)
    noise -= noise.mean()
    return CorpusSums.of(
        (
            seed_of(f"document {index}".encode()),
            row(
                {
                    "nll": 100 * math.log(2) * (bits + scatter * noise[index]),
                    "tokens": 50,
                    "bytes": 100,
                    "words": 20,
                    "correct_at_1": 20,
                }
            ),
        )
        for index in range(documents)
    )


def evaluation(candidate, last_blessed=None, **others):
    models = {"candidate": candidate, "last_blessed": last_blessed}
    sums = {name: {"overall": value} for name, value in models.items() if value}
    return Evaluation(sums=sums, **others)


def outcome(rule, of):
    """What becomes of a rule; the conditions are kept here."""
    decision = verdict.decide([rule], of)
    *conditions, judged = decision.outcomes
    assert all(condition.passed for condition in conditions)
    assert decision.blessed == judged.passed
    return judged


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        (Rule("bits_per_byte", max=2.01), True),
        (Rule("bits_per_byte", max=1.99), False),
        (Rule("token_accuracy", min=0.39), True),
        (Rule("token_accuracy", min=0.41), False),
        (Rule("latency_ms", max=5.0), True),
        (Rule("latency_ms", max=4.0), False),
    ],
)
def test_bounds(rule, passed):
    found = evaluation(corpus(2.0), exported={"candidate": {"latency_ms": 4.5}})
    judged = outcome(rule, found)
    assert judged.passed == passed
    assert judged.bound == (rule.max or rule.min)
    assert bool(judged.reason) != passed


@pytest.mark.parametrize(
    ("margin", "passed"), [(0.0, True), (0.09, True), (0.11, False), (-0.5, True)]
)
def test_margins(margin, passed):
    found = evaluation(corpus(2.0), corpus(2.1))
    judged = outcome(dataclasses.replace(BITS, margin=margin), found)
    assert judged.passed == passed
    assert judged.bound == pytest.approx(2.1 - margin)


def test_a_model_as_good_as_the_last_is_good_enough_but_no_significant_improvement():
    found = evaluation(corpus(2.0, 0.3), corpus(2.0, 0.3))
    assert outcome(BITS, found).passed
    assert not outcome(dataclasses.replace(BITS, significant=True), found).passed


def test_of_a_metric_that_should_be_high_a_margin_is_added():
    rule = Rule("token_accuracy", against="last_blessed", margin=0.1)
    judged = outcome(rule, evaluation(corpus(2.0), corpus(2.0)))
    assert judged.bound == pytest.approx(0.5)
    assert not judged.passed


def test_significance_is_of_the_paired_difference():
    """Documents differ much, and alike for both models: their difference is sure."""
    surely = dataclasses.replace(BITS, significant=True)
    paired = evaluation(corpus(2.0, 0.5), corpus(2.02, 0.5))
    judged = outcome(surely, paired)
    assert judged.passed
    assert judged.interval == pytest.approx((2.0, 2.0), abs=1e-6)
    apart = evaluation(corpus(2.0, 0.5), corpus(2.02, 0.5, seed=1))
    judged = outcome(surely, apart)
    assert not judged.passed
    assert judged.interval[0] < 2.0 < 2.02 < judged.interval[1]
    assert outcome(BITS, apart).passed


def test_a_significant_bound_keeps_the_whole_interval():
    found = evaluation(corpus(2.0, 0.5))
    assert outcome(Rule("bits_per_byte", max=2.01), found).passed
    judged = outcome(Rule("bits_per_byte", max=2.01, significant=True), found)
    assert not judged.passed
    assert outcome(Rule("bits_per_byte", max=2.2, significant=True), found).passed


def test_few_documents_say_nothing_significant():
    found = evaluation(corpus(2.0, documents=9), corpus(3.0, documents=9))
    judged = outcome(dataclasses.replace(BITS, significant=True), found)
    assert not judged.passed
    assert judged.reason == "9 documents give no interval"


def test_without_a_last_blessed_model_there_is_nothing_to_beat():
    judged = outcome(BITS, evaluation(corpus(2.0)))
    assert judged.passed
    assert judged.bound is None
    assert judged.reason == "no last_blessed to compare with"
    assert not outcome(
        Rule("bits_per_byte", against="ngram"), evaluation(corpus(2.0))
    ).passed


def test_a_rule_on_a_slice_without_documents_is_not_kept():
    rule = Rule("bits_per_byte", max=9.0, slice="source=news")
    judged = outcome(rule, evaluation(corpus(2.0)))
    assert not judged.passed
    assert judged.reason == "it has no such number"


@pytest.mark.parametrize(
    ("found", "condition"),
    [
        (evaluation(corpus(math.nan)), "finite scores: they add up to"),
        (evaluation(corpus(math.inf)), "finite scores: they add up to"),
        (Evaluation(), "documents >= 1: it was evaluated on none"),
        (
            evaluation(corpus(2.0), missing_signatures=["generate"]),
            "all signatures: it lacks generate",
        ),
    ],
)
def test_what_is_never_blessed(found, condition, tmp_path):
    decision = verdict.decide([], found)
    assert not decision.blessed
    assert str(decision).startswith("refused: ")
    assert condition in str(decision)
    found.write(str(tmp_path))
    decision.write(str(tmp_path))
    for name in ("evaluation.json", "gate.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=pytest.fail)
    assert str(verdict.read_decision(str(tmp_path), str(tmp_path))) == str(decision)


def test_a_decision_is_read_as_it_was_written(tmp_path):
    found = evaluation(corpus(2.0, 0.3), corpus(2.1, 0.3))
    rules = [Rule("bits_per_byte", max=3.0), BITS, Rule("perplexity", max=2.0)]
    decision = verdict.decide(rules, found)
    found.write(str(tmp_path))
    decision.write(str(tmp_path))
    read = verdict.read_decision(str(tmp_path), str(tmp_path))
    assert read.outcomes == decision.outcomes
    assert str(read) == (
        "refused: 2.000 bits per byte, bound 3.000, last blessed 2.100 (margin 0.000); "
        "perplexity <= 2: above the bound"
    )


def test_what_is_infinite_is_read_and_refused(tmp_path):
    found = evaluation(corpus(300.0, 0.3))
    decision = verdict.decide([Rule("word_perplexity", max=99.0)], found)
    found.write(str(tmp_path))
    decision.write(str(tmp_path))
    read = verdict.read_decision(str(tmp_path), str(tmp_path))
    assert read.outcomes == decision.outcomes
    assert read.outcomes[-1].value == math.inf
    assert read.outcomes[-1].interval == (math.inf, math.inf)
    assert not read.blessed


def test_the_gate_says_what_share_of_the_bits_spells_the_unknown():
    values = {"bits_per_byte": 2.0, "nll": 6.0, "spelling_nll": 4.0}
    decision = verdict.Decision(True, [], values)
    said = "blessed: 2.000 bits per byte (40.0% of them spell the unknown)"
    assert str(decision) == said


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule("perplexity", max=30), "perplexity <= 30"),
        (
            Rule("token_accuracy", min=0.2, slice="source=news"),
            "token_accuracy of source=news >= 0.2",
        ),
        (
            Rule("bits_per_byte", against="ngram", margin=0.1, significant=True),
            "bits_per_byte <= ngram - 0.1, significantly",
        ),
        (
            Rule("token_accuracy", against="last_blessed", margin=-0.01),
            "token_accuracy >= last_blessed - 0.01",
        ),
    ],
)
def test_a_rule_in_words(rule, words):
    assert str(rule) == words


def test_two_bounds_are_two_rules():
    section = {"metric": "token_accuracy", "min": 0.1, "max": 0.9}
    assert [str(rule) for rule in parse([section], [])] == [
        "token_accuracy >= 0.1",
        "token_accuracy <= 0.9",
    ]
