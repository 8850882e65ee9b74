"""How much of an evaluation stands in training: what is found, counted and bounded."""

from __future__ import annotations

import math
import random

import pytest
from langzoo.components.evaluator.probes import contamination as probe
from langzoo.components.evaluator.settings import GateSettings
from langzoo.components.text_example_gen.contamination import Wanted
from langzoo.components.text_example_gen.near_duplicates import MinHash
from langzoo.components.text_example_gen.records import Contamination, Summary
from langzoo.components.text_example_gen.settings import SourceSettings

THRESHOLD = 0.8


def shingles(text):
    words = text.lower().split()
    return {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))}


def jaccard(one, other):
    one, other = shingles(one), shingles(other)
    return len(one & other) / len(one | other)


def altered(text, chance, words):
    """The text with some of its last words exchanged."""
    parts = text.split()
    for at in range(len(parts) - words, len(parts)):
        parts[at] = f"new{chance.random()}".replace(".", "")
    return " ".join(parts)


@pytest.fixture(scope="module")
def texts():
    chance = random.Random(0)
    vocabulary = [f"word{number}" for number in range(500)]
    return [" ".join(chance.choices(vocabulary, k=60)) for _ in range(40)]


def test_what_is_found_is_what_all_pairs_of_sets_say(texts):
    chance = random.Random(1)
    train = [altered(text, chance, n % 12) for n, text in enumerate(texts)]
    train += [texts[3], f"{texts[3]} ", texts[5].upper()]
    wanted = Wanted(texts, MinHash(THRESHOLD))
    for text in train:
        found = list(wanted.find(text))
        assert {n for n, is_equal in found if is_equal} == {
            n for n, other in enumerate(texts) if other == text
        }
        assert {n for n, is_equal in found if not is_equal} == {
            n for n, other in enumerate(texts) if jaccard(text, other) >= THRESHOLD
        }


def test_no_document_is_found_in_nothing():
    assert list(Wanted([], MinHash()).find("some text")) == []
    assert list(Wanted(["some text"], MinHash()).find("")) == []


def test_an_ingestion_counts_and_tells_it(texts, run_example_gen, tmp_path, caplog):
    caplog.set_level("INFO", "langzoo")
    chance = random.Random(2)
    near = [altered(text, chance, 2) for text in texts[:10]]
    (tmp_path / "eval.txt").write_text("\n".join(texts))
    others = [altered(text, chance, 50) for text in texts]
    train = [*near, *texts[5:8], *others]
    (tmp_path / "train.txt").write_text("\n".join(train))
    (tmp_path / "test.txt").write_text("\n".join([train[-1], "some", "more", "texts"]))
    sources = [
        SourceSettings(
            path=f"{tmp_path}/{name}.txt", documents="line", split=name, weight=2
        )
        for name in ("train", "eval", "test")
    ]
    summary = Summary.read(run_example_gen(sources, measured=True).uri)
    assert summary.contamination == {
        "eval": Contamination(documents=40, exact=3, near=10),
        "test": Contamination(documents=4, exact=1, near=1),
    }
    said = "eval: of 40 documents 25.00% have a near duplicate in train, 7.50% an equal"
    assert f"{said} one" in caplog.messages


def test_the_gate_measures_it_by_the_name_of_a_rule(texts):
    rule = {"metric": "contamination", "max": 0.01}
    assert "contamination" in GateSettings(rules=[rule]).asked([]).probed
    chance = random.Random(3)
    train = [altered(texts[0], chance, 2), texts[1], "something else"]
    metrics, details = probe.probe(train, texts)
    assert metrics == {"contamination": 2 / 40, "contamination_exact": 1 / 40}
    assert details == {"contamination": {"documents": 40, "exact": 1, "near": 2}}


@pytest.mark.parametrize(("train", "evaluation"), [([], ["a"]), (["a"], [])])
def test_without_texts_there_is_no_number(train, evaluation):
    metrics, _ = probe.probe(train, evaluation)
    assert all(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_many_texts_are_looked_through_as_each_is(texts, kind):
    chance = random.Random(4)
    train = [altered(text, chance, n % 12) for n, text in enumerate(texts)]
    train += ["", "two words", texts[3], "a a a a a a a", " ".join(texts[:2])]
    wanted = Wanted([*texts[:30], "two words", "ab"], MinHash(shingles=kind))
    found = set(wanted.find_all(train))
    assert found == {pair for text in train for pair in wanted.find(text)}
    assert {(3, True), (30, True)} < found
    assert set(wanted.find_all(["two words"])) == {(30, True), (30, False)}
    assert not set(Wanted([], MinHash()).find_all(train))


def test_what_an_ingestion_has_found_is_not_searched_again():
    known = Contamination(documents=4, exact=1, near=2)
    metrics, _ = probe.probe(iter(lambda: 1 / 0, None), ["a"], known)
    assert metrics == {"contamination": 0.5, "contamination_exact": 0.25}
