"""Slices: which bucket a length is in, and which values have a slice each."""

from __future__ import annotations

from collections import Counter

import pytest
from langzoo.components.evaluator.measures.slices import (
    LENGTH_BUCKETS,
    feature_of,
    length_bucket,
    require_slice,
    told_apart,
)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        *((0, "0-255"), (255, "0-255"), (256, "256-1023"), (1023, "256-1023")),
        *((1024, "1024-4095"), (4095, "1024-4095"), (4096, "4096+"), (10**6, "4096+")),
    ],
)
def test_a_bucket_of_lengths_holds_both_its_ends(size, bucket):
    assert length_bucket(b"x" * size) == bucket
    assert bucket in LENGTH_BUCKETS


def test_the_most_frequent_values_are_told_apart_and_those_that_rules_name():
    counts = {
        "site": Counter({b"a": 5, b"d": 1, b"c": 3, b"b": 3, b"e": 1, b"f": 1}),
        "kind": Counter({b"x": 9, b"y": 1, b"z": 1}),
    }
    named = ["overall", "site=e", "kind=q", "length=0-255"]
    # That of one rare value alone needs no name of others.
    assert told_apart(counts, 2, named) == {"site": {b"a", b"b", b"e"}}
    told = told_apart(counts, 1, named)
    assert told == {"site": {b"a", b"e"}, "kind": {b"x", b"q"}}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("source", "must be overall or FEATURE=VALUE, such as length=0-255"),
        ("source=", "must be overall or FEATURE=VALUE"),
        ("length=0-256", "length is one of 0-255, 256-1023, 1024-4095, 4096+"),
        ("author=ann", "known are length, source; corpus.fields adds others"),
    ],
)
def test_a_slice_that_no_document_can_be_in_is_told(name, problem):
    with pytest.raises(ValueError, match=problem.replace("+", r"\+")):
        require_slice(name, ["source"])


def test_a_slice_is_all_documents_or_those_with_a_value():
    assert feature_of("source=a=b") == "source"
    for name in ("overall", "length=4096+", "source=news", "source=a=b"):
        require_slice(name, ["source"])
