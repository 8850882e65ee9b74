"""Packing: nothing lost or doubled, documents whole, an order that the seed fixes."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.components.errors import InputError
from langzoo.components.trainer.rows.packing import best_fit, cut, make_windows
from langzoo.components.trainer.rows.settings import PACKINGS
from langzoo.components.trainer.rows.windows import TokenStream

PAD, START, END = 0, 2, 3
LENGTHS = [5, 0, 41, 17, 1, 90, 16, 15, 3, 8, 2]
CONTEXT = 16


def make_documents(lengths):
    """Every token of all documents is another one."""
    ends = np.cumsum(lengths)
    return [np.arange(end - n, end) + 4 for n, end in zip(lengths, ends, strict=True)]


def pack(folder, lengths, packing, context_length=CONTEXT, start_id=START, end_id=END):
    TokenStream.write(
        f"{folder}/stream",
        make_documents(lengths),
        vocabulary_size=2**16,
        start_id=start_id,
        end_id=end_id,
        pad_id=PAD,
    )
    return make_windows(f"{folder}/stream", context_length, packing)


def epoch_of(windows, batch_size, number=0, seed=0):
    """The batches of an epoch of training; of windows that go on across it, rows."""
    if not hasattr(windows, "contiguous_batches"):
        steps = windows.steps_an_epoch(batch_size)
    else:
        batch_size, steps = 1, len(windows)
    first = number * steps
    return windows.training_batches(
        batch_size, seed=seed, first_step=first, last_step=first + steps
    )


def predictions(batches):
    """Counts what is predicted from which token."""
    counts = Counter()
    for features, targets, weights in batches:
        counted = weights.numpy() > 0
        pairs = np.stack([features["token_ids"], targets], axis=-1)[counted]
        counts.update(map(tuple, pairs.tolist()))
    return counts


def expected_predictions(lengths, start_id=START, end_id=END):
    return Counter(
        pair
        for document in make_documents(lengths)
        for pair in zip(
            [start_id, *document.tolist()], [*document.tolist(), end_id], strict=True
        )
    )


def rows_of(batches):
    """The inputs of each row that has any, without padding."""
    return [
        ids[mask].tolist()
        for features, _, _ in batches
        for ids, mask in zip(*(features[k].numpy() for k in features), strict=True)
        if mask.any()
    ]


@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=20),
    context_length=st.integers(1, 20),
    batch_size=st.integers(1, 5),
    epoch=st.integers(0, 2),
)
def test_every_token_is_predicted_once_an_epoch_from_the_one_before(
    packing, lengths, context_length, batch_size, epoch
):
    expected = expected_predictions(lengths)
    with tempfile.TemporaryDirectory() as folder:
        windows = pack(folder, lengths, packing, context_length)
        assert predictions(epoch_of(windows, batch_size, epoch)) == expected
        assert predictions(windows.evaluation_batches(batch_size)) == expected


@pytest.mark.parametrize("packing", PACKINGS)
def test_one_token_may_start_end_and_pad(tmp_path, packing):
    lengths = [5, 41, 17, 1]
    windows = pack(tmp_path, lengths, packing, start_id=PAD, end_id=PAD)
    expected = expected_predictions(lengths, PAD, PAD)
    assert predictions(epoch_of(windows, batch_size=3)) == expected


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_batch_depends_on_seed_and_step_alone(tmp_path, packing):
    windows = pack(tmp_path, LENGTHS, packing)

    def inputs(first_step):
        batches = windows.training_batches(
            5, seed=3, first_step=first_step, last_step=30
        )
        return [features["token_ids"].numpy() for features, _, _ in batches]

    whole, rest = inputs(0), inputs(11)
    assert len(whole) == 30
    for batch, other in zip(whole[11:], rest, strict=True):
        np.testing.assert_array_equal(batch, other)


@pytest.mark.parametrize("packing", PACKINGS)
def test_epochs_and_seeds_are_ordered_differently(tmp_path, packing):
    windows = pack(tmp_path, LENGTHS * 3, packing)

    def order(seed, epoch):
        return rows_of(epoch_of(windows, 2, epoch, seed))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert sorted(order(0, 0)) == sorted(order(1, 1))


@pytest.mark.parametrize("packing", ["best_fit", "lines"])
def test_documents_that_fit_are_whole_and_others_lose_their_context_only(
    tmp_path, packing
):
    rows = rows_of(epoch_of(pack(tmp_path, LENGTHS, packing), batch_size=3))
    text = [",".join(map(str, row)) for row in rows]
    for document in make_documents(LENGTHS):
        inputs = [START, *document.tolist()]
        first = (len(inputs) - 1) % CONTEXT + 1
        pieces = [inputs[:first], *np.reshape(inputs[first:], (-1, CONTEXT)).tolist()]
        for piece in pieces:
            assert any(",".join(map(str, piece)) in row for row in text)


def test_whatever_shares_a_row_begins_with_the_start_token(tmp_path):
    rows = rows_of(epoch_of(pack(tmp_path, LENGTHS, "best_fit"), batch_size=3))
    shared = [row for row in rows if START in row]
    assert all(row[0] == START for row in shared)
    assert any(row.count(START) > 1 for row in shared)
    assert all(len(row) == CONTEXT for row in rows if START not in row)


def test_an_unknown_packing_is_an_error_that_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match="one of contiguous, best_fit, lines, not 'x'"):
        pack(tmp_path, LENGTHS, "x")


def test_lines_are_alone_in_rows_of_few_lengths(tmp_path):
    windows = pack(tmp_path, range(40), "lines")
    lengths = []
    for features, _, _ in epoch_of(windows, batch_size=4):
        ids, mask = features["token_ids"].numpy(), features["padding_mask"].numpy()
        assert ((ids == START).sum(axis=1) <= 1).all()
        sizes = mask.sum(axis=1)
        least = min(n for n in (2, 4, 8, 16) if n >= sizes.max())
        assert ids.shape == (4, least)
        assert (sizes[sizes > 0] > (0 if least == 2 else least // 2)).all()
        lengths.append(least)
    assert set(lengths) == {2, 4, 8, 16}
    assert lengths != sorted(lengths)


def test_a_step_of_lines_counts_its_tokens_only(tmp_path):
    windows = pack(tmp_path, LENGTHS, "lines")
    targets = sum(LENGTHS) + len(LENGTHS)
    expected = targets / len(list(epoch_of(windows, batch_size=3)))
    assert windows.targets_a_step(batch_size=3) == pytest.approx(expected)


def best_fit_piece_by_piece(sizes, capacity):
    """The definition: the space left in each row."""
    spaces = []
    for size in sorted(sizes, reverse=True):
        fitting = [space for space in spaces if space >= size]
        space = min(fitting, default=capacity)
        if fitting:
            spaces.remove(space)
        spaces.append(space - size)
    return spaces


@settings(max_examples=200)
@given(sizes=st.lists(st.integers(1, 30), max_size=60), capacity=st.integers(30, 60))
def test_best_fit_is_its_definition(sizes, capacity):
    rows = best_fit(np.array(sizes, np.int64), capacity)
    filled = np.bincount(rows, sizes, minlength=0).astype(int)
    expected = best_fit_piece_by_piece(sizes, capacity)
    assert sorted(capacity - filled) == sorted(expected)


def test_best_fit_wastes_next_to_nothing_where_one_after_the_other_does():
    lengths = np.random.default_rng(0).lognormal(4, 1.2, 20_000).astype(np.int64)
    _, sizes = cut(lengths, 256)
    rows = best_fit(sizes, 256).max() + 1
    one_after_the_other, space = 0, 0
    for size in sizes.tolist():
        if size > space:
            one_after_the_other, space = one_after_the_other + 1, 256
        space -= size
    least = sizes.sum() / 256
    assert rows < 1.01 * least
    assert one_after_the_other > 1.1 * least


def test_a_document_is_cut_into_whole_contexts_behind_what_is_left_over():
    starts, sizes = cut(np.array([3, 0, 8, 7]), 4)
    # The stream is <s> 1 2 3 </s>, <s> </s>, and so on: 5, 2, 10 and 9 places.
    assert starts.tolist() == [0, 5, 7, 8, 12, 17, 21]
    assert sizes.tolist() == [4, 1, 1, 4, 4, 4, 4]


@pytest.mark.parametrize("packing", ["best_fit", "lines"])
@pytest.mark.parametrize("pieces", [1, 20])
def test_memory_of_packing_is_bounded_by_pieces(tmp_path, packing, pieces):
    pack(tmp_path, [0], packing)
    number = 20_000
    lengths = np.full(number // pieces, CONTEXT * pieces - 1)
    lengths.tofile(tmp_path / "stream.lengths")
    tracemalloc.start()
    windows = make_windows(tmp_path / "stream", CONTEXT, packing)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    windows._epoch(8, np.random.default_rng(0))
    most_in_epoch = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= 50 * number
    assert kept <= most_in_epoch <= 50 * number
