"""Masked rows: what is hidden, by what, and that it depends on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from langzoo.components.trainer.rows.masking import MaskedWindows
from langzoo.components.trainer.rows.packing import make_windows
from langzoo.components.trainer.rows.settings import MaskingSettings
from langzoo.components.trainer.rows.windows import TokenStream
from langzoo.models.tokenizers.byte import ByteTokenizer
from pydantic import ValidationError

CONTEXT, BATCH_SIZE, STEPS, MASK = 64, 16, 20, 260
TEXT = b"to be, or not to be, that is the question: whether tis nobler in the mind "


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "stream"
    generator = np.random.default_rng(0)
    documents = [
        np.frombuffer(TEXT * 3, np.uint8)[:size].astype(int) + 4
        for size in generator.integers(0, 200, 200)
    ]
    TokenStream.write(
        path,
        documents,
        vocabulary_size=260,
        start_id=2,
        end_id=3,
        pad_id=0,
        unk_id=1,
    )
    return str(path)


def windows(path, packing="contiguous", **masking):
    settings = MaskingSettings(**masking)
    return MaskedWindows(path, CONTEXT, packing, ByteTokenizer(), settings)


def arrays(batches):
    """Each batch as NumPy: ids, padding, positions, targets, weights."""
    names = ("token_ids", "padding_mask", "mask_positions")
    return [
        (*(features[name].numpy() for name in names), targets.numpy(), weights.numpy())
        for features, targets, weights in batches
    ]


def training(path, packing="contiguous", first_step=0, seed=0, **masking):
    return arrays(
        windows(path, packing, **masking).training_batches(
            BATCH_SIZE, seed=seed, first_step=first_step, last_step=STEPS
        )
    )


def whole(ids, positions, targets, weights):
    """The rows as they were before anything was hidden."""
    ids = ids.copy()
    rows = np.broadcast_to(np.arange(len(ids))[:, None], positions.shape)
    there = weights > 0
    ids[rows[there], positions[there]] = targets[there]
    return ids


@pytest.mark.parametrize("packing", ["contiguous", "lines"])
def test_a_share_of_each_row_is_to_predict_and_the_rest_stands(path, packing):
    plain = make_windows(path, CONTEXT - 1, packing).training_batches(
        BATCH_SIZE, seed=0, first_step=0, last_step=STEPS
    )
    for (features, targets, _), masked in zip(
        plain, training(path, packing), strict=True
    ):
        ids, inside, positions, hidden, weights = masked
        known = whole(ids, positions, hidden, weights)
        np.testing.assert_array_equal(
            known[:, 1:][inside[:, 1:]], targets.numpy()[inside[:, 1:]]
        )
        np.testing.assert_array_equal(known[:, 0], features["token_ids"].numpy()[:, 0])
        ordinary = (inside & (known >= 4)).sum(axis=1)
        expected = np.minimum(np.maximum(np.round(0.15 * ordinary), 1), ordinary)
        np.testing.assert_array_equal(weights.sum(axis=1), expected)
        assert (hidden[weights > 0] >= 4).all()


def test_eight_of_ten_are_the_mask_one_is_another_token_one_stays(path):
    found = np.concatenate(
        [
            np.stack([np.take_along_axis(ids, at, 1)[w > 0], targets[w > 0]], axis=1)
            for ids, _, at, targets, w in training(path)
        ]
    )
    masked, same = found[:, 0] == MASK, found[:, 0] == found[:, 1]
    assert masked.mean() == pytest.approx(0.8, abs=0.03)
    assert same.mean() == pytest.approx(0.1, abs=0.03)
    others = found[~masked & ~same, 0]
    assert others.min() >= 4
    assert others.max() < MASK
    assert len(set(others)) > 50


def test_words_are_hidden_whole(path):
    for ids, inside, at, targets, weights in training(path, units="words"):
        known = whole(ids, at, targets, weights)
        for row, there, places, weight in zip(known, inside, at, weights, strict=True):
            hidden = set(places[weight > 0].tolist())
            letters = there & (row > 4 + ord(" "))
            edges = np.flatnonzero(np.diff(letters, prepend=False, append=False))
            words = [set(range(*pair)) for pair in edges.reshape(-1, 2)]
            cut = [word for word in words if word & hidden and not word <= hidden]
            # Only the first unit may have more than the share.
            assert not cut or all(len(word) > 9 for word in cut)


def test_spans_are_as_long_as_wanted(path):
    lengths = []
    for _, _, at, _, weights in training(path, units="spans", span_length=4.0):
        for places, weight in zip(at, weights, strict=True):
            hidden = np.sort(places[weight > 0])
            runs = np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1)
            lengths += [len(run) for run in runs if len(run)]
    # Of what is cut off at the share, and of spans that touch.
    assert 2.5 < np.mean(lengths) < 5
    single = [weights.sum() for *_, weights in training(path)]
    assert sum(lengths) > 0.7 * sum(single)


def test_a_step_is_decided_by_seed_and_number(path):
    resumed = training(path, first_step=7)
    for one, other in zip(training(path)[7:], resumed, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
    assert (training(path, seed=1)[7][2] != resumed[0][2]).any()


def test_evaluation_hides_the_same_in_any_batch_and_whatever_training_hides(path):
    def of(size, **masking):
        batches = arrays(windows(path, **masking).evaluation_batches(size))
        rows = {}
        for ids, _, at, targets, weights in batches:
            known = whole(ids, at, targets, weights)
            for row, *hidden in zip(known, ids, at, targets, weights, strict=True):
                rows[row.tobytes()] = [part.tobytes() for part in hidden]
        return rows, batches

    rows, batches = of(16)
    assert rows == of(5)[0] | rows
    assert rows == of(16, units="spans", share=0.4)[0]
    for ids, _, at, _, weights in batches:
        assert (np.take_along_axis(ids, at, 1)[weights > 0] == MASK).all()


def test_shares_beyond_one_are_refused():
    with pytest.raises(ValidationError, match="must be at most 1 together"):
        MaskingSettings(mask_share=0.8, random_share=0.3)
