"""Which models may have learned documents of a split, as their splittings say."""

from __future__ import annotations

import random
import re

import pytest
from langzoo.components.text_example_gen import sketches
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.near_duplicates import MinHash
from langzoo.components.text_example_gen.records import Splitting, judged_split
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    CorpusSettings,
)

OTHERWISE = "it has learned from documents made otherwise"


def splitting(cleaning=None, **corpus):
    settings = CorpusSettings(**{"path": "texts", **corpus})
    cleaned = CleaningSettings(**cleaning or {})
    return Splitting.of(settings.all_sources, cleaned, settings.buckets)


def judged(now):
    return judged_split(now.buckets)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"documents": "paragraph"}, "corpus.documents paragraph instead of file"),
        ({"format": "jsonl"}, "corpus.format jsonl instead of auto"),
        ({"text_field": "body"}, "corpus.text_field body instead of text"),
        ({"path": "more"}, "corpus more instead of texts"),
        (
            {"path": "demo", "sources": [{"path": "texts"}, {"path": "more"}]},
            "corpus more, texts instead of texts",
        ),
        ({"cleaning": {"normalize": "NFC"}}, "cleaning.normalize NFC instead of noth"),
        ({"cleaning": {"mask_emails": True}}, "cleaning.mask_emails True instead of F"),
        (
            {"cleaning": {"drop_near_duplicates": True}},
            "cleaning.drop_near_duplicates True instead of False",
        ),
    ],
)
def test_documents_that_are_made_otherwise_may_have_been_learned(changes, said):
    before, now = splitting(), splitting(**changes)
    assert now.seen_by(before, "eval").startswith(f"{OTHERWISE} ({said}")
    assert before.seen_by(now, "eval").startswith(OTHERWISE)


@pytest.mark.parametrize(
    "changes",
    [
        {"strict": True, "allow_fewer_documents": True},
        {"path": "./texts/"},
        {"fields": {"label": "sentiment"}},
        {"path": "demo", "sources": [{"path": "texts", "weight": 3.0}]},
        {"cleaning": {"min_bytes": 9, "max_characters": 99, "drop_duplicates": True}},
        {"cleaning": {"filter": "module:passes", "filter_threshold": 0.1}},
        {"cleaning": {"shingles": "characters"}},  # of near duplicates that stay
    ],
)
def test_what_drops_documents_or_repeats_them_leaves_them_in_their_splits(changes):
    assert splitting(**changes).seen_by(splitting(), "eval") == ""


def test_a_model_that_says_nothing_may_have_learned_anything():
    assert splitting().seen_by(None, "eval") == (
        "it does not say what documents it has learned from"
    )


def test_a_key_that_is_new_has_its_default():
    older = splitting().model_copy(update={"sources": {"texts": {}}, "cleaning": {}})
    assert splitting().seen_by(older, "eval") == ""
    assert splitting(documents="line").seen_by(older, "eval").startswith(OTHERWISE)


def splits(texts, **corpus):
    """The texts of each split, as the component deals them out."""
    buckets = CorpusSettings(path="texts", **corpus).buckets
    found = {name: set() for name in buckets}
    for text in texts:
        found[Document("1", text).split_of(buckets)].add(text)
    return found


@pytest.mark.parametrize(
    ("before", "now", "seen"),
    [
        ({"eval_fraction": 0.1}, {"eval_fraction": 0.2}, True),
        ({"eval_fraction": 0.2}, {"eval_fraction": 0.1}, False),
        ({"eval_fraction": 0.2}, {"eval_fraction": 0.1, "test_fraction": 0.1}, False),
        ({"eval_fraction": 0.1}, {"eval_fraction": 0.1, "test_fraction": 0.1}, True),
        ({"eval_fraction": 0.1, "test_fraction": 0.1}, {"eval_fraction": 0.2}, False),
        ({"eval_fraction": 0.1, "test_fraction": 0.1}, {"eval_fraction": 0.1}, False),
    ],
)
def test_other_fractions_matter_where_documents_were_learned(topics, before, now, seen):
    paragraphs = {part for text in topics for part in text.split("\n\n")}
    assert len(paragraphs) > 300
    split = judged(splitting(**now))
    learned = splits(paragraphs, **before)["train"] & splits(paragraphs, **now)[split]
    assert bool(learned) == seen
    said = splitting(**now).seen_by(splitting(**before), split)
    expected = f"documents of {split} were in the split that it learned from"
    assert said == (expected if seen else "")


def test_it_lies_with_the_examples(run_example_gen, topics, tmp_path):
    corpus = tmp_path / "texts"
    corpus.mkdir()
    for number, text in enumerate(topics):
        (corpus / f"{number}.txt").write_text(text, encoding="utf-8")
    source = {"path": str(corpus), "documents": "paragraph"}
    examples = run_example_gen([source], test_fraction=0.1, measured=True)
    found = Splitting.read(examples.uri)
    alone = splitting(path="demo", sources=[source], test_fraction=0.1)
    assert found.model_copy(update={"sketches": {}}) == alone
    assert found.sketches.keys() == found.buckets.keys()
    assert found.buckets == {"train": 800, "test": 100, "eval": 100}
    # The same files cut otherwise, of which only the words tell.
    files = {**source, "documents": "file"}
    whole = run_example_gen([files], "whole", measured=True)
    before = Splitting.read(whole.uri).model_copy(update={"sources": found.sources})
    before = before.model_copy(update={"buckets": found.buckets})
    assert "it has learned from documents of test" in found.seen_by(before, "test")
    assert found.seen_by(found, "test") == ""


def words(seed, number):
    chance = random.Random(seed)
    return [f"w{chance.randrange(300)}" for _ in range(number)]


def sketched(**splits):
    """A splitting of texts of which each split is as given."""
    shingles = {name: MinHash().shingles_of(text) for name, text in splits.items()}
    kept = {name: sketches.dump(sketches.smallest([s])) for name, s in shingles.items()}
    settings = CorpusSettings(path="texts")
    buckets = settings.buckets
    return Splitting.of(settings.all_sources, CleaningSettings(), buckets, kept)


def test_documents_that_were_cut_otherwise_are_known_by_their_words():
    train, evaluation = words(0, 50_000), words(1, 6_000)
    now = sketched(train=" ".join(train), eval=" ".join(evaluation))
    assert now.seen_by(now, "eval") == ""
    more = sketched(train=" ".join([*train, *words(2, 50_000)]))
    assert now.seen_by(more, "eval") == ""
    before = sketched(train=" ".join([*evaluation[3_000:], *train[:9_000]]))
    said = now.seen_by(before, "eval")
    assert said.startswith("it has learned from documents of eval (")
    assert 40 < int(re.search(r"\((\d+)% of their runs", said)[1]) < 60
    assert said.endswith("where 0% are common)")


def test_a_few_words_are_no_evidence():
    now = sketched(train="a b c d e f", eval="g h i j k l m")
    assert now.seen_by(sketched(train="h i j k l"), "eval") == ""


def test_what_initial_weights_had_learned_counts():
    evaluation = " ".join(words(1, 6_000))
    now = sketched(train=" ".join(words(0, 20_000)), eval=evaluation)
    begun = sketched(train=evaluation)
    model = now.after(begun)
    assert "100% of their runs" in now.seen_by(model, "eval")
    # Through any number of trainings.
    assert "100% of their runs" in now.seen_by(now.after(model), "eval")
    assert now.seen_by(now.after(now), "eval") == ""
    assert now.after(None) == now
