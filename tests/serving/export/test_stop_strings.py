"""The search for stop strings, and the numbers of a seed, without a model."""

from __future__ import annotations

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.serving.export.sampling import uniform_draws
from langzoo.serving.export.stop_strings import NO_CUT, StopStrings


@tf.function(
    input_signature=[
        tf.TensorSpec([None, 4], tf.string),
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.string),
    ],
    autograph=False,
)
def grown(stop, text, cut, piece):
    return StopStrings(stop).grown(text, cut, lambda: piece)


# Few letters, so that stop strings occur and overlap.
LETTERS = st.lists(st.sampled_from([b"a", b"b", b"\0", b"\xff"]), max_size=4).map(
    b"".join
)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(LETTERS, min_size=4, max_size=4), st.lists(LETTERS, max_size=6)
        ),
        min_size=1,
        max_size=3,
    )
)
def test_the_cut_is_where_bytes_read_one_by_one_end(rows):
    """However a text comes in pieces; of stops complete at one byte, the longest."""
    count = max(len(pieces) for _, pieces in rows)
    texts, cuts = [b""] * len(rows), [NO_CUT] * len(rows)
    for turn in range(count):
        pieces = [
            row[1][turn] if turn < len(row[1]) and cuts[at] == NO_CUT else b""
            for at, row in enumerate(rows)
        ]
        texts, cuts = grown([stops for stops, _ in rows], texts, cuts, pieces)
    for cut, (stops, pieces) in zip(cuts, rows, strict=True):
        whole = b"".join(pieces)
        ends = [
            (end, end - len(stop))
            for end in range(len(whole) + 1)
            for stop in stops
            if stop and whole[:end].endswith(stop)
        ]
        assert cut == (min(ends)[1] if ends else NO_CUT)


@pytest.mark.parametrize("seed", [0, 7, -1, 2**31 - 1])
def test_an_offset_goes_on_in_the_sequence_of_the_seed(seed):
    numbers = tf.random.stateless_uniform([40], [seed, 0], alg="philox").numpy()
    offsets = np.arange(25)
    draws = uniform_draws(tf.fill([25], seed), tf.constant(offsets, tf.int32), 9)
    for offset, row in zip(offsets, draws.numpy(), strict=True):
        np.testing.assert_array_equal(row, numbers[offset : offset + 9])
