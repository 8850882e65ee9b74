"""Cleaning: what each step does, that it is counted, and that nothing else is lost."""

from __future__ import annotations

import ast
import pathlib
import random
import sys
import time
import tracemalloc
import unicodedata

import apache_beam as beam
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import cleaning
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.near_duplicates import MinHash, Signed
from langzoo.components.text_example_gen.settings import CleaningSettings
from langzoo.pipelines.configuration.loading import ConfigError, load

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@pytest.fixture
def clean(tmp_path):
    """Cleans documents, given as texts by id; returns those kept and the counts."""

    def run(texts, **steps):
        chosen = CleaningSettings(**steps)
        documents = [
            text if isinstance(text, Document) else Document(name, text)
            for name, text in texts.items()
        ]
        kept_file = tmp_path / "kept"
        with beam.Pipeline(runner=RUNNER) as pipeline:
            _ = (
                pipeline
                | beam.Create(documents)
                | cleaning.Clean(chosen, str(tmp_path))
                | beam.Map(lambda document: repr((document.id, document.text)))
                | beam.io.WriteToText(
                    str(kept_file), num_shards=1, shard_name_template=""
                )
            )
        kept = [ast.literal_eval(line) for line in kept_file.read_text().splitlines()]
        assert len(kept) == len(dict(kept))
        return dict(kept), cleaning.read_counts(chosen, str(tmp_path))

    return run


def test_every_step_is_off_by_default():
    assert CleaningSettings().steps == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("cleaning.normalize=NFD", "cleaning.normalize: 'NFD' cannot be"),
        ("cleaning.filter=my.module", "cleaning.filter: 'my.module' cannot be"),
        ("cleaning.near_duplicate_threshold=1", "less than 1"),
        ("cleaning={min_bytes: 9, max_bytes: 8}", "9 must be at most"),
        ("cleaning.drop_duplicate=true", "did you mean drop_duplicates?"),
        (
            "corpus={eval_fraction: 0.5, test_fraction: 0.5}",
            "must leave documents for training",
        ),
    ],
)
def test_a_wrong_setting_is_refused(setting, said):
    with pytest.raises(ConfigError) as raised:
        load(settings=[setting])
    assert said in str(raised.value)


def test_each_step_changes_what_it_should_and_counts_it(clean):
    texts = {
        "a": "cafe\u0301",
        "b": "bell\x07 rings",
        "c": "Write to ann@example.org.",
        "d": "Call +49 30 1234567.",
        "e": "Nothing to do here.",
    }
    kept, counts = clean(
        texts,
        normalize="NFC",
        remove_control_characters=True,
        mask_emails=True,
        mask_phones=True,
    )
    assert kept == {
        "a": "caf\u00e9",
        "b": "bell rings",
        "c": "Write to [EMAIL].",
        "d": "Call [PHONE].",
        "e": "Nothing to do here.",
    }
    assert counts == {
        "normalized": 1,
        "control_characters": 1,
        "emails": 1,
        "phones": 1,
        "empty": 0,
    }


def test_nfkc_also_folds_compatibility_characters(clean):
    kept, _ = clean({"a": "\ufb01ne \uff21"}, normalize="NFKC")
    assert kept == {"a": "fine A"}


def test_a_document_that_is_blank_once_it_is_clean_is_dropped_and_counted(clean):
    texts = {"a": "\x00\x1b\x9f", "b": "text"}
    kept, counts = clean(texts, remove_control_characters=True)
    assert kept == {"b": "text"}
    assert counts["empty"] == 1


@pytest.mark.parametrize(
    ("limits", "kept", "short", "long"),
    [
        ({"min_characters": 3}, {"ééé", "xxxx"}, 1, 0),
        ({"max_characters": 3}, {"éé", "ééé"}, 0, 1),
        ({"min_bytes": 5}, {"ééé"}, 2, 0),
        ({"max_bytes": 4}, {"éé", "xxxx"}, 0, 1),
        ({"min_bytes": 4, "max_bytes": 6}, {"éé", "ééé", "xxxx"}, 0, 0),
        ({"min_characters": 3, "max_bytes": 5}, {"xxxx"}, 1, 1),
    ],
)
def test_length_limits_count_characters_and_utf_8_bytes(
    clean, limits, kept, short, long
):
    texts = {"a": "éé", "b": "ééé", "c": "xxxx"}
    result, counts = clean(texts, **limits)
    assert set(result.values()) == kept
    assert (counts.get("too_short", 0), counts.get("too_long", 0)) == (short, long)


FILTER = """
def has_vowels(text):
    return any(letter in "aeiou" for letter in text)

def share_of_letters(text):
    return sum(letter.isalpha() for letter in text) / len(text)

def fails(text):
    return 1 / (len(text) - 3)
"""


@pytest.fixture
def filters(tmp_path, monkeypatch):
    """A module with filters in the working directory, under a name used only once."""
    name = f"filters_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FILTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_a_filter_may_give_a_bool(clean, filters):
    kept, counts = clean({"a": "hello", "b": "rhythm"}, filter=f"{filters}:has_vowels")
    assert kept == {"a": "hello"}
    assert counts == {"filtered": 1}


def test_a_filter_may_give_a_score(clean, filters):
    texts = {"a": "abc", "b": "ab1", "c": "a12"}
    kept, counts = clean(
        texts, filter=f"{filters}:share_of_letters", filter_threshold=0.6
    )
    assert kept == {"a": "abc", "b": "ab1"}
    assert counts == {"filtered": 1}


def test_a_filter_that_fails_is_an_error_that_names_the_document(clean, filters):
    with pytest.raises(InputError, match=r"failed on b: ZeroDivisionError"):
        clean({"a": "four", "b": "abc"}, filter=f"{filters}:fails")


def test_a_filter_that_is_not_there_is_named(filters):
    with pytest.raises(InputError, match=r"cleaning\.filter absent:f.*no such module"):
        cleaning.function_hash("absent:f")
    with pytest.raises(InputError, match=r"cleaning\.filter .*:absent"):
        cleaning.load_function(f"{filters}:absent")


def test_the_hash_of_a_filter_follows_its_module_s_source(filters, tmp_path):
    before = cleaning.function_hash(f"{filters}:fails")
    (tmp_path / f"{filters}.py").write_text(f"{FILTER}\n# Edited.\n")
    assert cleaning.function_hash(f"{filters}:fails") != before


def test_of_equal_documents_the_one_with_the_smallest_id_stays(clean):
    texts = {f"{number:02}": f"text {number % 7}" for number in range(50)}
    backwards = dict(reversed(texts.items()))
    expected = {f"{number:02}": f"text {number}" for number in range(7)}
    for given in (texts, backwards):
        assert clean(given, drop_duplicates=True) == (expected, {"duplicates": 43})


def test_duplicates_are_sought_in_clean_texts(clean):
    texts = {"a": "caf\u00e9", "b": "cafe\u0301"}
    kept, _ = clean(texts, normalize="NFC", drop_duplicates=True)
    assert list(kept) == ["a"]


def test_equal_texts_with_unequal_fields_are_no_duplicates(clean):
    documents = {
        name: Document(name, "good film", {"label": label})
        for name, label in (("a", "1"), ("b", "0"), ("c", "1"))
    }
    kept, counts = clean(documents, drop_near_duplicates=True)
    assert set(kept) == {"a", "b"}
    assert counts == {"duplicates": 1, "near_duplicates": 0}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [(None, "abcd"), (["label"], "ab"), (["site"], "ac"), ([], "a")],
)
def test_the_user_says_which_fields_duplicates_have_in_common(clean, fields, kept):
    words = " ".join(f"word{number}" for number in range(200))
    documents = {
        "a": Document("a", words, {"label": "1", "site": "x"}),
        "b": Document("b", words, {"label": "0", "site": "x"}),
        "c": Document("c", f"{words} more", {"label": "1", "site": "y"}),
        "d": Document("d", f"{words} or so", {"label": "0", "site": "y", "by": "me"}),
    }
    steps = {"drop_near_duplicates": True, "duplicate_fields": fields}
    assert "".join(sorted(clean(documents, **steps)[0])) == kept


@pytest.mark.parametrize(
    "text",
    [
        "ann@example.org",
        "ann.b+c%d@mail.example.co.uk",
        "jürgen_m@müller.de",
    ],
)
def test_e_mail_addresses_are_masked_whole(text):
    assert cleaning.mask_emails(f"To <{text}>, now.") == "To <[EMAIL]>, now."


@pytest.mark.parametrize(
    "text", ["@decorator", "a @ b", "user@localhost", "x@1.2", "1@2.3", "@a.b"]
)
def test_what_is_no_e_mail_address_stays(text):
    assert cleaning.mask_emails(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "+49 30 1234567",
        "+49 (0)30 123 45 67",
        "+4915112345678",
        "+1-212-555-0123",
        "(030) 123 4567",
        "(212) 555-0123",
        "212-555-0123",
        "1-212-555-0123",
        "212.555.0123",
        "030/123 45678",
        "01 23 45 67 89",
        "020 7946 0958",
    ],
)
def test_phone_numbers_are_masked_whole(text):
    assert cleaning.mask_phones(f"Tel. {text}, now.") == "Tel. [PHONE], now."


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31",
        "01-02-2003 12:30",
        "12:30:45",
        "192.168.100.200",
        "10.0.0.1",
        "3.14159 26535",
        "1,000,000,000",
        "978-3-16-148410-0",
        "0317-8471",
        "100 200 300",
        "1234567890",
        "version 1.2.3",
        "the form +000000120",
        "pages 200-300",
        "0x7fff 0000 1111",
    ],
)
def test_what_is_no_phone_number_stays(text):
    assert cleaning.mask_phones(text) == text


@hypothesis.given(st.text())
def test_rewriting_any_text_is_done_after_one_pass(text):
    once = cleaning.remove_control_characters(text)
    assert not any(
        unicodedata.category(character) == "Cc" and character not in "\n\t"
        for character in once
    )
    masked = cleaning.mask_phones(cleaning.mask_emails(once))
    assert cleaning.mask_phones(cleaning.mask_emails(masked)) == masked


@pytest.mark.parametrize("text", ["a" * 200_000, "1 " * 100_000, "a." * 100_000 + "@"])
def test_masking_takes_no_quadratic_time(text):
    start = time.process_time()
    cleaning.mask_phones(cleaning.mask_emails(text))
    assert time.process_time() - start < 2  # 0.02 where it is linear


def varied(generator, words, changed):
    """A copy of words, some of them replaced by new ones."""
    words = list(words)
    for place in generator.sample(range(len(words)), changed):
        words[place] = f"new{generator.random()}"
    return " ".join(words)


def test_near_duplicates_of_real_text_are_dropped_and_the_rest_stays(clean, topics):
    generator = random.Random(0)
    texts = {f"{number:02}": text for number, text in enumerate(topics)}
    long = [name for name, text in texts.items() if len(text.split()) > 200]
    copies = {
        f"{name}-copy": varied(generator, texts[name].split(), 2) for name in long
    }
    kept, counts = clean(texts | copies, drop_near_duplicates=True)
    assert kept == texts
    assert counts == {"duplicates": 0, "near_duplicates": len(copies)}


def test_the_same_near_duplicates_are_dropped_in_any_order(clean, topics):
    generator = random.Random(1)
    lines = [line for text in topics for line in text.splitlines() if len(line) > 40]
    words = [line.split() for line in lines[:60]]
    texts = {f"{n:03}": varied(generator, words[n % 60], 1) for n in range(180)}
    steps = {
        "drop_near_duplicates": True,
        "near_duplicate_threshold": 0.5,
        "shingles": "characters",
    }
    kept, counts = clean(texts, **steps)
    assert len(kept) + counts["near_duplicates"] == 180
    assert counts["near_duplicates"] > 0
    shuffled = list(texts.items())
    generator.shuffle(shuffled)
    assert clean(dict(shuffled), **steps) == (kept, counts)


def jaccard(one, other):
    return len(one & other) / len(one | other)


@pytest.mark.parametrize("changed", [0, 1, 3, 10, 40])
def test_signatures_estimate_the_jaccard_similarity_of_shingles(changed):
    generator = random.Random(changed)
    words = [f"word{number}" for number in range(400)]
    other = varied(generator, words, changed).split()

    def shingles(tokens):
        return {tuple(tokens[start : start + 5]) for start in range(len(tokens) - 4)}

    min_hash = MinHash()
    first, second = (min_hash.signature(" ".join(tokens)) for tokens in (words, other))
    similarity = jaccard(shingles(words), shingles(other))
    # Four standard deviations of a mean of 128 draws.
    assert abs((first == second).mean() - similarity) < 4 * 0.5 / 128**0.5


def test_words_of_a_long_text_are_not_held_together():
    text = " ".join(f"word{number % 1000}" for number in range(200_000))
    min_hash = MinHash()
    min_hash.shingles_of(text)
    tracemalloc.start()
    min_hash.shingles_of(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9])
def test_texts_at_the_threshold_share_a_band_and_unlike_ones_do_not(threshold):
    min_hash, generator = MinHash(threshold, length=1), random.Random(0)

    def share_of_pairs(similarity, pairs=200, size=60):
        """How many pairs of texts that are so alike have a band in common."""
        both = round(2 * similarity / (1 + similarity) * size)
        found = 0
        for _ in range(pairs):
            words = [f"w{generator.getrandbits(64)}" for _ in range(2 * size - both)]
            texts = " ".join(words[:size]), " ".join(words[size - both :])
            signatures = np.stack([min_hash.signature(text) for text in texts])
            signed = Signed(["a", "b"], signatures, np.zeros(2, np.uint64))
            one, other = min_hash.keys(signed).reshape(min_hash.bands, 2).T
            found += bool((one == other).any())
        return found / pairs

    assert share_of_pairs(threshold) > 0.97
    assert share_of_pairs(threshold / 4) < 0.45


@pytest.mark.parametrize("text", ["x", "one two", "—", "\U0001f600"])
def test_a_text_shorter_than_a_shingle_is_like_itself_alone(text):
    min_hash = MinHash()
    assert (min_hash.signature(text) == min_hash.signature(text)).all()
    assert (min_hash.signature(text) == min_hash.signature("other")).mean() < 0.1


def test_signatures_are_those_of_exact_integer_arithmetic():
    ones, golden, first = 2**64 - 1, 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9

    def mix(value):
        value = (value ^ (value >> 30)) * first & ones
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & ones
        return value ^ (value >> 31)

    def value(shingle, seed):
        value = shingle ^ seed
        value = (value * golden & ones) ^ (value >> 29)
        return (value * first & ones) >> 32

    text, length = "The quick brown fox jumps over the lazy dog.", 4
    shingles = []
    for start in range(len(text) - length + 1):
        shingle = 0
        for character in text[start : start + length].lower():
            shingle = mix(shingle + ord(character) + golden & ones)
        shingles.append(shingle)
    expected = [
        min(value(shingle, mix((number + 1) * golden & ones)) for shingle in shingles)
        for number in range(128)
    ]
    signature = MinHash(shingles="characters", length=length).signature(text)
    assert signature.dtype == np.uint32
    assert signature.tolist() == expected


PAIRS = {
    "alike": ("a dog", "ein Hund"),
    "long": ("a dog", "ein Hund und noch einer"),
    "copy": ("A dog ", "a  dog"),
    "short": ("a dog and a cat", "?"),
    "blank": ("a dog", "\x01\n"),
}


@pytest.mark.parametrize(
    ("steps", "dropped", "counts"),
    [
        ({"max_length_ratio": 2}, {"long", "short", "blank"}, {"unlike_lengths": 3}),
        ({"max_length_ratio": 20}, set(), {"unlike_lengths": 0}),
        ({"drop_copies": True}, {"copy"}, {"copies": 1}),
        ({"min_target_characters": 2, "max_target_characters": 8}, None, {}),
        ({"min_target_bytes": 3}, {"short", "blank"}, {"too_short": 2}),
        ({"min_characters": 6}, {"alike", "long", "blank"}, {"too_short": 3}),
        ({"max_target_bytes": 8}, {"long"}, {"too_long": 1}),
        (
            {"remove_control_characters": True},
            {"blank"},
            {"control_characters": 1, "empty": 1},
        ),
        ({"filter": "test_cleaning:is_longer"}, {"copy", "short", "blank"}, {}),
    ],
)
def test_pairs_are_dropped_by_both_sides(clean, monkeypatch, steps, dropped, counts):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))
    pairs = {
        name: Document(name, text, target=target)
        for name, (text, target) in PAIRS.items()
    }
    kept, found = clean(pairs, **steps)
    dropped = {"long", "short"} if dropped is None else dropped
    assert kept.keys() == PAIRS.keys() - dropped
    assert counts.items() <= found.items()


def is_longer(source, target):
    return len(target) > len(source)


def test_what_changes_texts_changes_targets_and_counts_a_document_once(tmp_path):
    step = cleaning._CleanEach(CleaningSettings(normalize="NFC", mask_emails=True))
    step.setup()
    pair = Document("x", "e\u0301 a@b.org", target="to a@b.org, e\u0301")
    *counted, found = step.process(pair)
    assert (found.text, found.target) == ("é [EMAIL]", "to [EMAIL], é")
    assert [output.value for output in counted] == ["normalized", "emails"]


def test_duplicates_are_equal_in_both_unless_sources_alone_are_asked(clean):
    pairs = {
        name: Document(name, "a dog", target=target)
        for name, target in (("1", "Hund"), ("2", "Köter"), ("3", "Hund"))
    }
    kept, counts = clean(pairs, drop_duplicates=True)
    assert kept.keys() == {"1", "2"}
    assert counts == {"duplicates": 1}
    kept, _ = clean(pairs, drop_duplicates=True, duplicate_fields=[])
    assert kept.keys() == {"1"}


def test_what_pairs_are_dropped_for_is_told():
    counts = {"unlike_lengths": 3, "copies": 1}
    assert cleaning.describe(counts) == (
        "cleaning: dropped 3 with a target of unlike length, 1 with a copy for a target"
    )
