"""Rules of the gate, judged on corpora whose numbers are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from langzoo.components.evaluator.gate import verdict
from langzoo.components.evaluator.gate.decision import Decision
from langzoo.components.evaluator.measured import Measured
from langzoo.components.evaluator.measures.sums import NAMES, CorpusSums, row, seed_of
from langzoo.components.evaluator.records import Evaluation, Verdict
from langzoo.components.evaluator.settings import EvaluatorSettings, RuleSettings

DOCUMENTS = 200


def rule_on(metric, **settings):
    return RuleSettings(metric=metric, **settings)


def beating(**settings):
    return rule_on("bits_per_byte", **{"against": "last_blessed", **settings})


BITS = beating()


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
    return Measured(sums=sums, **others)


def write(decision, folder):
    decision.evaluation.write(str(folder))
    decision.verdict.write(str(folder))


def outcome(rule, of):
    """What becomes of a rule; the conditions are kept here."""
    decision = verdict.decide([rule], of)
    *conditions, judged = decision.verdict.rules
    assert all(condition.passed for condition in conditions)
    assert decision.blessed == judged.passed
    return judged


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        (rule_on("bits_per_byte", max=2.01), True),
        (rule_on("bits_per_byte", max=1.99), False),
        (rule_on("token_accuracy", min=0.39), True),
        (rule_on("token_accuracy", min=0.41), False),
        (rule_on("latency_ms", max=5.0), True),
        (rule_on("latency_ms", max=4.0), False),
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
    judged = outcome(beating(margin=margin), found)
    assert judged.passed == passed
    assert judged.bound == pytest.approx(2.1 - margin)


def test_a_model_as_good_as_the_last_is_good_enough_but_no_significant_improvement():
    found = evaluation(corpus(2.0, 0.3), corpus(2.0, 0.3))
    assert outcome(BITS, found).passed
    assert not outcome(beating(significant=True), found).passed


def test_of_a_metric_that_should_be_high_a_margin_is_added():
    rule = rule_on("token_accuracy", against="last_blessed", margin=0.1)
    judged = outcome(rule, evaluation(corpus(2.0), corpus(2.0)))
    assert judged.bound == pytest.approx(0.5)
    assert not judged.passed


def test_significance_is_of_the_paired_difference():
    """Documents differ much, and alike for both models: their difference is sure."""
    surely = beating(significant=True)
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
    assert outcome(rule_on("bits_per_byte", max=2.01), found).passed
    judged = outcome(rule_on("bits_per_byte", max=2.01, significant=True), found)
    assert not judged.passed
    assert outcome(rule_on("bits_per_byte", max=2.2, significant=True), found).passed


def test_few_documents_say_nothing_significant():
    found = evaluation(corpus(2.0, documents=9), corpus(3.0, documents=9))
    judged = outcome(beating(significant=True), found)
    assert not judged.passed
    assert judged.reason == "9 documents give no interval"


def test_without_a_last_blessed_model_there_is_nothing_to_beat():
    judged = outcome(BITS, evaluation(corpus(2.0)))
    assert judged.passed
    assert judged.bound is None
    assert judged.reason == "no last_blessed to compare with"
    assert not outcome(
        rule_on("bits_per_byte", against="ngram"), evaluation(corpus(2.0))
    ).passed


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (
            evaluation(corpus(2.0), left_out={"last_blessed": "it is gone"}),
            "last_blessed is not compared with: it is gone",
        ),
        (
            evaluation(corpus(2.0), corpus(math.nan)),
            "last_blessed has no such number",
        ),
    ],
)
def test_a_last_blessed_model_that_cannot_be_compared_with_blesses_nothing(
    found, reason
):
    for rule in (BITS, beating(significant=True)):
        judged = outcome(rule, found)
        assert not judged.passed
        assert judged.reason == reason
    decision = verdict.decide([BITS], found)
    assert reason in str(decision)
    assert decision.not_compared


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (BITS, evaluation(corpus(2.0))),
        (BITS, evaluation(corpus(2.0), corpus(1.5))),
        (rule_on("bits_per_byte", max=1.0), evaluation(corpus(2.0))),
        (rule_on("bits_per_byte", against="ngram"), evaluation(corpus(2.0))),
    ],
    ids=["nothing to compare with", "worse", "above a bound", "another is missing"],
)
def test_other_verdicts_are_not_for_want_of_a_comparison(rule, found):
    assert not verdict.decide([rule], found).not_compared


def test_a_model_is_accepted_in_the_place_of_the_last_blessed_one(tmp_path):
    rules = [rule_on("bits_per_byte", max=3.0), BITS, rule_on("perplexity", max=99)]
    worse = evaluation(corpus(2.0), corpus(1.5))
    decision = verdict.decide(rules, worse, accepted=True)
    assert decision.blessed
    assert decision.verdict.rules[-2].reason == "accepted, though above the bound"
    assert decision.verdict.rules[-2].bound == pytest.approx(1.5)
    assert "accepted in the place of the last blessed model" in str(decision)
    write(decision, tmp_path)
    assert json.loads((tmp_path / "gate.json").read_text())["accepted"]
    first = verdict.decide(rules, evaluation(corpus(2.0)), accepted=True)
    assert not first.verdict.accepted
    lost = evaluation(corpus(2.0), left_out={"last_blessed": "it is gone"})
    assert verdict.decide(rules, lost, accepted=True).blessed
    # The other rules are kept, or not, as ever.
    for broken in (rule_on("bits_per_byte", max=1.9), beating(against="ngram")):
        assert not verdict.decide([broken, BITS], worse, accepted=True).blessed
    assert not verdict.decide(
        rules, evaluation(corpus(math.nan)), accepted=True
    ).blessed


def test_a_candidate_that_may_have_learned_the_documents_is_refused():
    learned = evaluation(corpus(2.0), left_out={"candidate": "it has seen them"})
    decision = verdict.decide([], learned)
    assert not decision.blessed
    assert "unseen documents: it has seen them" in str(decision)


def test_what_was_selected_on_is_told_beside_what_it_is_judged_by():
    found = evaluation(corpus(2.0), split="test", selected_on=corpus(1.5))
    decision = verdict.decide([rule_on("bits_per_byte", max=3.0)], found)
    assert str(decision) == (
        "blessed: 2.000 bits per byte of test (1.500 of eval, selected on), bound 3.000"
    )
    told = decision.evaluation
    assert (told.split, told.selected_on.documents) == ("test", DOCUMENTS)
    assert told.candidate["bits_per_byte"].value == pytest.approx(2.0)


def test_a_rule_on_a_slice_without_documents_is_not_kept():
    rule = rule_on("bits_per_byte", max=9.0, slice="source=news")
    judged = outcome(rule, evaluation(corpus(2.0)))
    assert not judged.passed
    assert judged.reason == "it has no such number"


@pytest.mark.parametrize(
    ("found", "condition"),
    [
        (evaluation(corpus(math.nan)), "finite scores: they add up to"),
        (evaluation(corpus(math.inf)), "finite scores: they add up to"),
        (Measured(), "documents >= 1: it was evaluated on none"),
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
    write(decision, tmp_path)
    for name in ("evaluation.json", "gate.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=pytest.fail)
    assert str(Decision.read(str(tmp_path), str(tmp_path))) == str(decision)


def test_what_none_is_blessed_without_is_told_with_value_and_bound():
    of = {"missing_signatures": (0, 0), "documents": (200, 1), "nll": (None, None)}
    for condition in verdict.conditions(evaluation(corpus(2.0))):
        value, bound = of.pop(condition.metric)
        assert condition.bound == bound
        assert value is None or condition.value == value
    assert not of


def test_a_number_that_hangs_on_one_document_is_judged_without_an_interval():
    blocks = corpus(2.0).blocks.copy()
    blocks[:, NAMES.index("words")] = 0
    blocks[-1, NAMES.index("words")] = 20 * DOCUMENTS
    found = evaluation(CorpusSums(blocks))
    judged = outcome(rule_on("word_perplexity", max=1100), found)
    assert judged.value == pytest.approx(2**10)
    assert judged.passed
    assert judged.interval is None


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"max": 2.01}, "not significantly"),
        ({"max": 1.99}, "above the bound"),
        ({"min": 1.99}, "not significantly"),
        ({"min": 2.01}, "below the bound"),
    ],
)
def test_why_a_significant_bound_is_not_kept_is_told(bounds, reason):
    rule = rule_on("bits_per_byte", significant=True, **bounds)
    judged = outcome(rule, evaluation(corpus(2.0, 0.5)))
    assert not judged.passed
    assert judged.reason == reason


def test_the_record_has_sums_and_measures_of_each_slice():
    slices = {
        "overall": corpus(2.0, 0.5),
        "length=0-255": corpus(1.0, 0.1, documents=9),
        "source=a": corpus(3.0, 0.1, documents=50),
    }
    found = Measured(
        sums={"candidate": slices}, exported={"candidate": {"size_mb": 3.0}}
    )
    told = found.record.models["candidate"].slices
    assert told.keys() == slices.keys()
    for name, sums in slices.items():
        bits = sum(sums.blocks[:, NAMES.index("nll")]) / math.log(2)
        assert told[name].documents == len(sums.blocks)
        assert told[name].sums["nll"] == pytest.approx(bits * math.log(2))
        assert told[name].sums["bytes"] == 100 * len(sums.blocks)
        measure = told[name].metrics["bits_per_byte"]
        assert measure.value == pytest.approx(bits / told[name].sums["bytes"])
        assert (measure.low is None) == (name == "length=0-255")
        assert ("size_mb" in told[name].metrics) == (name == "overall")
    assert found.record.documents == DOCUMENTS


def test_a_decision_is_read_as_it_was_written(tmp_path):
    found = evaluation(corpus(2.0, 0.3), corpus(2.1, 0.3))
    rules = [rule_on("bits_per_byte", max=3.0), BITS, rule_on("perplexity", max=2.0)]
    decision = verdict.decide(rules, found)
    write(decision, tmp_path)
    read = Decision.read(str(tmp_path), str(tmp_path))
    assert read.verdict == decision.verdict
    assert str(read) == (
        "refused: 2.000 bits per byte, bound 3.000, last blessed 2.100 (margin 0.000); "
        "perplexity <= 2: above the bound"
    )


def test_what_is_infinite_is_read_and_refused(tmp_path):
    found = evaluation(corpus(300.0, 0.3))
    decision = verdict.decide([rule_on("word_perplexity", max=99.0)], found)
    write(decision, tmp_path)
    read = Decision.read(str(tmp_path), str(tmp_path))
    assert read.verdict == decision.verdict
    assert read.verdict.rules[-1].value == math.inf
    assert read.verdict.rules[-1].interval == (math.inf, math.inf)
    assert not read.blessed


def test_the_gate_says_what_share_of_the_bits_spells_the_unknown():
    overall = {
        "documents": 1,
        "metrics": {"bits_per_byte": {"value": 2.0}},
        "sums": {"nll": 6.0, "spelling_nll": 4.0},
    }
    models = {"candidate": {"slices": {"overall": overall}}}
    found = Evaluation.model_validate({"documents": 1, "models": models})
    decision = Decision(found, Verdict(blessed=True))
    said = "blessed: 2.000 bits per byte (40.0% of them spell the unknown)"
    assert str(decision) == said


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (rule_on("perplexity", max=30), "perplexity <= 30"),
        (
            rule_on("token_accuracy", min=0.2, slice="source=news"),
            "token_accuracy of source=news >= 0.2",
        ),
        (
            rule_on("bits_per_byte", against="ngram", margin=0.1, significant=True),
            "bits_per_byte <= ngram - 0.1, significantly",
        ),
        (
            rule_on("token_accuracy", against="last_blessed", margin=-0.01),
            "token_accuracy >= last_blessed - 0.01",
        ),
    ],
)
def test_a_rule_in_words(rule, words):
    assert str(rule) == words


def test_two_bounds_are_two_rules():
    both = rule_on("token_accuracy", min=0.1, max=0.9)
    assert [str(rule) for rule in EvaluatorSettings(rules=[both]).bounds] == [
        "token_accuracy >= 0.1",
        "token_accuracy <= 0.9",
    ]
