"""Signatures that are alike, beside a comparison of all pairs, and at what cost."""

from __future__ import annotations

import numpy as np
import pytest
from langzoo.components.text_example_gen import alike

HASHES = 128


def bands(signatures, kinds):
    """Of six positions each, as of a threshold of 0.8."""

    def keys(band):
        hashes = alike.mix(kinds + np.uint64(band))
        for column in signatures[:, 6 * band : 6 * band + 6].T:
            hashes = alike.mix(hashes + column)
        return hashes

    return keys


def later_alike(signatures, kinds=None, threshold=0.8):
    if kinds is None:
        kinds = np.zeros(len(signatures), np.uint64)
    keys = bands(signatures, kinds)
    return alike.later_alike(signatures, kinds, threshold, keys, HASHES // 6)


def drawn(draw, *shape):
    return draw.integers(0, 2**32, shape, np.uint32)


def with_own(draw, template, share):
    """Signatures of texts that share a template and have so much of their own."""
    own = drawn(draw, *template.shape)
    return np.where(draw.random(template.shape) < share, own, template)


@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.95])
def test_of_few_signatures_all_pairs_are_compared(threshold):
    draw = np.random.default_rng(0)
    templates = np.repeat(drawn(draw, 40, HASHES), 8, axis=0)
    signatures = with_own(draw, templates, (1 - threshold) * draw.random((320, 1)))
    kinds = draw.integers(0, 2, 320, np.uint64)
    low = signatures.astype(np.uint8)
    agreeing = (low[:, None] == low).mean(axis=2)
    equal = (agreeing >= threshold) & (kinds[:, None] == kinds)
    expected = np.tril(equal, -1).any(axis=1)
    assert 10 < expected.sum() < 310
    np.testing.assert_array_equal(later_alike(signatures, kinds, threshold), expected)


@pytest.mark.parametrize(
    ("share", "comparisons", "least", "most"),
    [
        # Any two are alike.
        (0, 2, 0.99, 1),
        (0.05, 2, 0.99, 1),
        # Many are like one of the leaders, few, none but the copies.
        (0.12, 20, 0.7, 0.9),
        (0.17, 64, 0.02, 0.2),
        (0.3, 1, 0, 0),
    ],
)
def test_many_texts_of_one_template_are_compared_with_few_each(
    share, comparisons, least, most, monkeypatch
):
    compared = []
    compare = alike._Pairs._compare

    def counted(pairs, some, others):
        compared.append(len(some))
        return compare(pairs, some, others)

    monkeypatch.setattr(alike._Pairs, "_compare", counted)
    draw, count = np.random.default_rng(1), 4000
    template = np.broadcast_to(drawn(draw, HASHES), (count, HASHES))
    texts = with_own(draw, template, share)
    copies = with_own(draw, texts[::200], 0.05)
    found = later_alike(np.concatenate([texts, copies]))
    assert found[count:].all()
    assert sum(compared) < comparisons * count
    assert least <= found[:count].mean() <= most


def test_of_two_templates_each_has_its_leaders():
    draw = np.random.default_rng(2)
    templates = np.repeat(drawn(draw, 50, HASHES), 40, axis=0)
    signatures = with_own(draw, templates, 0.04)
    order = draw.permutation(len(signatures))
    found = later_alike(signatures[order])
    # Of each template about one stays, and nothing of it is the first.
    assert 50 <= (~found).sum() <= 60
    firsts = [np.flatnonzero(order // 40 == template)[0] for template in range(50)]
    assert not found[firsts].any()


def test_many_texts_of_one_template_are_alike_within_their_kind_only():
    draw, count = np.random.default_rng(3), 400
    template = np.broadcast_to(drawn(draw, HASHES), (count, HASHES))
    # Those of kind 1 have no leader among them, and are like those of kind 0.
    kinds = np.repeat(np.array([0, 1], np.uint64), count // 2)
    own = np.zeros((count, HASHES), bool)
    own[count // 2 :, :20] = True
    signatures = np.where(own, drawn(draw, count, HASHES), template)
    found = later_alike(signatures, kinds)
    assert not found[0]
    assert found[1 : count // 2].all()
    assert not found[count // 2 :].any()
