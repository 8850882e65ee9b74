"""Packing: every token a target exactly once an epoch, in an order the seed fixes."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from langzoo.components.trainer.rows.windows import TokenWindows

PAD, START, END = 0, 2, 3


@pytest.fixture
def documents():
    generator = np.random.default_rng(0)
    return [generator.integers(4, 300, size) for size in (5, 0, 41, 17, 1, 90)]


@pytest.fixture
def windows(tmp_path, documents):
    TokenWindows.write(
        tmp_path / "stream",
        documents,
        vocabulary_size=300,
        start_id=START,
        end_id=END,
        pad_id=PAD,
    )
    return TokenWindows(tmp_path / "stream", context_length=16)


def weighted_targets(batches):
    counts = Counter()
    for _, targets, weights in batches:
        counts.update(targets.numpy()[weights.numpy() > 0].tolist())
    return counts


def expected_targets(documents):
    counts = Counter(np.concatenate(documents).tolist())
    counts[END] = len(documents)
    return counts


def test_evaluation_counts_every_token_once(windows, documents):
    batches = windows.evaluation_batches(batch_size=4)
    assert weighted_targets(batches) == expected_targets(documents)


def test_one_token_may_start_end_and_pad(tmp_path):
    documents = [np.array([5, 6]), np.array([7] * 20)]
    path = tmp_path / "stream"
    TokenWindows.write(
        path, documents, vocabulary_size=9, start_id=3, end_id=3, pad_id=3
    )
    (batch,) = TokenWindows(path, context_length=30).evaluation_batches(batch_size=1)
    assert weighted_targets([batch]) == {5: 1, 6: 1, 7: 20, 3: 2}
    stream_length = 2 + 2 + 20 + 2
    assert batch[0]["padding_mask"].numpy().sum() == stream_length


def test_an_epoch_of_training_counts_every_token_once(windows, documents):
    steps = len(windows)  # With one window a batch, an epoch is that many steps.
    batches = windows.training_batches(1, seed=0, first_step=0, last_step=steps)
    assert weighted_targets(batches) == expected_targets(documents)


# The stream has 11 windows: rows that end together, that lack some, and too many rows.
@pytest.mark.parametrize("batch_size", [1, 4, 11, 20])
def test_an_epoch_of_contiguous_batches_counts_every_token_once(
    windows, documents, batch_size
):
    steps = windows.steps_an_epoch(batch_size)
    batches = windows.contiguous_batches(
        batch_size, first_step=steps, last_step=2 * steps
    )
    assert weighted_targets(batches) == expected_targets(documents)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_rows_of_contiguous_batches_read_the_stream_from_end_to_end(
    windows, documents, batch_size
):
    batches = windows.contiguous_batches(
        batch_size, first_step=0, last_step=windows.steps_an_epoch(batch_size)
    )
    inputs = [features["token_ids"].numpy() for features, _, _ in batches]
    rows = np.concatenate(inputs, axis=1)
    stream = np.concatenate([[START, *document, END] for document in documents])
    np.testing.assert_array_equal(rows.ravel()[: len(stream)], stream)
    assert not rows.ravel()[len(stream) :].any()


def test_a_contiguous_batch_depends_on_its_step_alone(windows):
    def inputs(first_step, last_step):
        batches = windows.contiguous_batches(
            4, first_step=first_step, last_step=last_step
        )
        return [features["token_ids"].numpy() for features, _, _ in batches]

    np.testing.assert_array_equal(inputs(0, 7)[4:], inputs(4, 7))
    np.testing.assert_array_equal(inputs(0, 3), inputs(3, 6))  # of the next epoch


def test_targets_are_the_inputs_one_place_on(windows):
    for inputs, targets, _ in windows.evaluation_batches(batch_size=4):
        ids = inputs["token_ids"].numpy()
        np.testing.assert_array_equal(ids[:, 1:], targets.numpy()[:, :-1])
        np.testing.assert_array_equal(inputs["padding_mask"].numpy(), ids != PAD)


def test_a_later_first_step_gives_the_same_batches(windows):
    def inputs(first_step):
        batches = windows.training_batches(
            5, seed=3, first_step=first_step, last_step=12
        )
        return [features["token_ids"].numpy() for features, _, _ in batches]

    np.testing.assert_array_equal(inputs(0)[7:], inputs(7))


# --- Documents in a new order every epoch ---


def rows_of(batches):
    return np.concatenate([features["token_ids"].numpy() for features, _, _ in batches])


def repacked(windows, epoch, seed=0, **options):
    """The shuffled batches of an epoch, a window each."""
    steps = len(windows) + 1
    span = {"first_step": epoch * steps, "last_step": (epoch + 1) * steps}
    return windows.training_batches(1, seed=seed, repack=True, **span, **options)


def streamed(windows, epoch, seed=0, batch_size=2):
    """What the rows of an epoch of contiguous batches read, from end to end."""
    steps = windows.steps_an_epoch(batch_size)
    batches = windows.contiguous_batches(
        batch_size,
        first_step=epoch * steps,
        last_step=(epoch + 1) * steps,
        repack_seed=seed,
    )
    ids = [features["token_ids"].numpy() for features, _, _ in batches]
    return np.concatenate(ids, axis=1).ravel()


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_a_repacked_epoch_counts_every_token_once(windows, documents, epoch):
    assert weighted_targets(repacked(windows, epoch)) == expected_targets(documents)


def test_a_token_of_a_repacked_epoch_is_told_by_those_before_it(windows, documents):
    pairs = Counter()
    for document in documents:
        framed = [START, *document.tolist(), END]
        pairs.update(itertools.pairwise(framed))
    found = Counter()
    for features, targets, weights in repacked(windows, 2):
        counted = weights.numpy() > 0
        inputs = features["token_ids"].numpy()[counted].tolist()
        found.update(zip(inputs, targets.numpy()[counted].tolist(), strict=True))
        assert features["padding_mask"].numpy()[counted].all()
    assert found == pairs


def test_every_epoch_has_the_documents_in_another_order_that_the_seed_fixes(
    windows, documents
):
    def order(epoch, seed=0):
        stream = streamed(windows, epoch, seed)[: windows.num_tokens]
        found = np.split(stream, np.flatnonzero(stream == START)[1:])
        return [document.tolist() for document in found]

    expected = [[START, *document, END] for document in documents]
    assert sorted(order(0)) == sorted(expected)
    orders = [order(epoch) for epoch in range(4)]
    assert len(set(map(str, orders))) == 4
    assert order(1) == orders[1]
    assert order(1, seed=7) != orders[1]


def test_a_single_document_is_cut_elsewhere_in_every_epoch(tmp_path):
    path = tmp_path / "stream"
    document = np.arange(4, 104)
    TokenWindows.write(
        path, [document], vocabulary_size=300, start_id=START, end_id=END, pad_id=PAD
    )
    windows = TokenWindows(path, context_length=16)
    begins = [{int(row[0]) for row in rows_of(repacked(windows, e))} for e in range(8)]
    assert len({frozenset(one) for one in begins}) >= 4
    for epoch in range(8):
        assert weighted_targets(repacked(windows, epoch)) == expected_targets(
            [document]
        )


def test_a_later_first_step_gives_the_same_repacked_batches(windows):
    def inputs(first_step):
        span = {"first_step": first_step, "last_step": 12}
        return rows_of(windows.training_batches(5, seed=3, repack=True, **span))

    np.testing.assert_array_equal(inputs(0)[35:], inputs(7))


def test_epochs_and_seeds_are_ordered_differently(windows):
    def order(seed, first_step):
        batches = windows.training_batches(
            len(windows), seed=seed, first_step=first_step, last_step=first_step + 1
        )
        (features, _, _) = next(iter(batches))
        return features["token_ids"].numpy().tolist()

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert sorted(order(0, 0)) == sorted(order(1, 1))
