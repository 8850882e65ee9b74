"""Rows of sources and targets: each pair once an epoch, in rows of similar lengths."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.components.trainer.networks import _weighed_together
from langzoo.components.trainer.rows import seq_to_seq
from langzoo.components.trainer.rows.augmentation import augmented
from langzoo.components.trainer.rows.settings import AugmentationSettings
from langzoo.components.trainer.rows.windows import read_documents, read_lengths
from langzoo.models import ByteTokenizer, word_tokenizer

CONTEXT, SOURCE_CONTEXT = 12, 16
TOKENIZER = ByteTokenizer()
START, END = TOKENIZER.start_token_id, TOKENIZER.end_token_id
DRAWN = np.random.default_rng(0).integers(1, 12, (100, 2))
PAIRS = [
    ("a dog", "ein Hund"),
    ("", "so"),
    ("a source longer than its context", "x" * (CONTEXT - 1)),
    ("s" * (SOURCE_CONTEXT - 1), "a target longer than its context"),
    *(("s" * s, f"{n:x}"[-t:]) for n, (s, t) in enumerate(DRAWN.tolist())),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The file of the pairs' tokens, written as of transformed examples."""
    ids = {
        name: [np.frombuffer(pair[side].encode(), np.uint8) for pair in PAIRS]
        for side, name in enumerate(("token_ids", "target_ids"))
    }
    path = str(tmp_path_factory.mktemp("rows") / "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            seq_to_seq,
            "read_features",
            lambda patterns, graph, name: ((tokens,) for tokens in ids[name]),
        )
        seq_to_seq.write_documents(path, [], "", TOKENIZER)
    return path


@pytest.fixture(scope="module")
def rows(path):
    return seq_to_seq.PairedRows(path, CONTEXT, SOURCE_CONTEXT)


def ids_of(text):
    return [*text.encode()]


def expected(source, target):
    """What a row reads and predicts of a pair, by its definition."""
    whole = [START, *ids_of(target), END]
    return (
        [*ids_of(source)[: SOURCE_CONTEXT - 1], END],
        whole[:-1][:CONTEXT],
        whole[1:][:CONTEXT],
    )


def read(batches):
    """Sources, inputs and targets of all rows that are not padding."""
    found = []
    for features, targets, weights in batches:
        names = [f"{side}_token_ids" for side in ("encoder", "decoder")]
        masks = [features[n.replace("token_ids", "padding_mask")] for n in names]
        assert np.array_equal(masks[1], weights > 0)
        parts = [*(features[name] for name in names), targets]
        insides = [*masks, weights > 0]
        for row in zip(*parts, *insides, strict=True):
            ids, inside = row[:3], [it.numpy() for it in row[3:]]
            for one in inside:  # padding is on the right
                assert not np.diff(one.astype(int)).max(initial=0) > 0
            if inside[0].any():
                found.append(
                    tuple(
                        it.numpy()[real].tolist()
                        for it, real in zip(ids, inside, strict=True)
                    )
                )
            else:
                assert not any(map(np.any, inside))
    return found


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_an_evaluation_has_each_pair_once(rows, batch_size):
    found = read(rows.evaluation_batches(batch_size))
    assert sorted(found) == sorted(expected(*pair) for pair in PAIRS)


def test_the_pairs_of_rows_stay_together_when_transform_made_them(path):
    # Targets are what an n-gram model counts, and what bytes are counted of.
    assert len(read_lengths(path)) == len(PAIRS)
    texts = [bytes(document.tolist()).decode() for document in read_documents(path)]
    assert texts == [target for _, target in PAIRS]


def test_an_epoch_has_each_pair_once_in_an_order_of_its_own(rows):
    steps = rows.steps_an_epoch(8)
    epochs = []
    for epoch in range(2):
        span = {"first_step": epoch * steps, "last_step": (epoch + 1) * steps}
        batches = rows.training_batches(8, seed=0, **span)
        assert int(batches.cardinality()) == steps
        epochs.append(read(batches))
    assert epochs[0] != epochs[1]
    whole = sorted(expected(*pair) for pair in PAIRS)
    assert sorted(epochs[0]) == sorted(epochs[1]) == whole


def test_a_step_is_the_same_wherever_a_training_begins_and_another_by_seed(path, rows):
    steps = rows.steps_an_epoch(8)
    span = {"first_step": 0, "last_step": 2 * steps}
    whole = list(rows.training_batches(8, seed=3, **span))
    again = seq_to_seq.PairedRows(path, CONTEXT, SOURCE_CONTEXT)
    resumed = again.training_batches(
        8, seed=3, first_step=steps - 1, last_step=steps + 2
    )
    for before, after in zip(whole[steps - 1 :], resumed, strict=False):
        tf.nest.map_structure(np.testing.assert_array_equal, before, after)
    other = rows.training_batches(8, seed=4, first_step=0, last_step=2 * steps)
    assert read(other) != read(whole)


def test_rows_of_a_batch_are_alike_and_of_few_lengths(rows):
    steps = rows.steps_an_epoch(4)
    batches = rows.training_batches(4, seed=0, first_step=0, last_step=20 * steps)
    shapes = {
        (features["encoder_token_ids"].shape[1], targets.shape[1])
        for features, targets, _ in batches
    }
    assert len(shapes) <= 16
    assert max(shapes) == (SOURCE_CONTEXT, CONTEXT)
    places = sum(
        int(tf.size(features["encoder_token_ids"]) + tf.size(targets))
        for features, targets, _ in batches.take(steps)
    )
    # All rows as long as the longest ones would take twice as many.
    assert places < 0.6 * 4 * steps * (SOURCE_CONTEXT + CONTEXT)


def test_a_part_of_an_evaluation_is_from_all_over_it(rows):
    some = list(rows.evaluation_batches(8, most=3))
    every = list(rows.evaluation_batches(8))
    assert len(some) == 3
    for mine, of_all in zip(
        some, (every[0], every[len(every) // 2], every[-1]), strict=True
    ):
        tf.nest.map_structure(np.testing.assert_array_equal, mine, of_all)


def test_steps_and_targets_are_counted(rows):
    for batch_size in (1, 3, 8, 1000):
        batches = list(rows.evaluation_batches(batch_size))
        assert rows.steps_an_epoch(batch_size) == len(batches)
        targets = sum(float(tf.reduce_sum(weights)) for *_, weights in batches)
        mean = rows.targets_a_step(batch_size)
        assert mean == pytest.approx(targets / len(batches))
    assert len(rows) == len(PAIRS)


def test_padding_and_what_is_cut_is_told(path, listening):
    with listening() as said:
        rows = seq_to_seq.read_rows(path, CONTEXT, "", TOKENIZER, None, SOURCE_CONTEXT)
    [line] = said
    pairs = [expected(*pair) for pair in PAIRS]
    held = sum(len(source) + len(target) for source, _, target in pairs)
    sizes = [[len(pair[side]) for pair in pairs] for side in (0, 2)]
    places = sum(
        min(level for level in seq_to_seq.levels(np.array(side), 4) if level >= size)
        for side in sizes
        for size in side
    )
    assert line == (
        f"train: {len(PAIRS)} pairs in rows of similar lengths, "
        f"{1 - held / places:.1%} padding; 1 source(s) cut at {SOURCE_CONTEXT} tokens; "
        f"1 target(s) cut at {CONTEXT} tokens"
    )
    whole = seq_to_seq.PairedRows(path, 64)
    assert "cut" not in str(whole)
    assert len(whole) == len(rows)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_lengths_are_those_that_pad_least_of_all(number):
    generator = np.random.default_rng(number)
    for _ in range(20):
        sizes = generator.integers(1, 12, size=generator.integers(1, 30))

        def places(lengths, sizes=sizes):
            return np.asarray(lengths)[np.searchsorted(lengths, sizes)].sum()

        known = np.unique(sizes)
        choices = (
            sorted({*some, known[-1]})
            for count in range(number)
            for some in itertools.combinations(known, count)
        )
        found = seq_to_seq.levels(sizes, number)
        assert len(found) <= number
        assert places(found) == min(map(places, choices))


def test_lengths_of_long_texts_are_chosen_among_some():
    sizes = np.arange(1, 5001)
    # Of equally frequent sizes, at equal distances.
    found = seq_to_seq.levels(sizes, 4)
    np.testing.assert_allclose(found, [1250, 2500, 3750, 5000], atol=20)


def test_memory_does_not_grow_with_the_texts(rows):
    arrays = [rows._kinds]
    for side in (rows._sources, rows._targets):
        arrays += [it for it in vars(side).values() if isinstance(it, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 50 * (len(rows) + 1)


def test_batches_that_are_one_step_are_padded_together(rows):
    batches = rows.training_batches(8, seed=0, first_step=0, last_step=2)
    sums = [float(tf.reduce_sum(weights)) for *_, weights in batches]
    together = list(_weighed_together(batches, 2))
    assert sum(float(tf.reduce_sum(weights)) for *_, weights in together) == (
        pytest.approx(2)
    )
    first, second = (int(tf.math.count_nonzero(weights)) for *_, weights in together)
    assert [first, second] == sums
    assert read(batches) == [
        row for batch in together for row in read([(*batch[:2], batch[2])])
    ]


def test_noise_is_of_both_sides_and_not_of_what_is_predicted(tmp_path, monkeypatch):
    tokenizer = word_tokenizer(["a", "b"])
    monkeypatch.setattr(
        seq_to_seq,
        "read_features",
        lambda *told: ((np.full(10, tokenizer.vocabulary_size() - 1),),) * 8,
    )
    path = str(tmp_path / "train")
    seq_to_seq.write_documents(path, [], "", tokenizer)
    rows = seq_to_seq.PairedRows(path, 16)
    batches = rows.training_batches(8, seed=0, first_step=0, last_step=1)
    noise = AugmentationSettings(token_dropout=0.5)
    [(features, targets, _)] = augmented(batches, rows, noise, seed=0, first_step=0)
    [(_, same, _)] = batches
    assert np.array_equal(targets, same)
    sides = [
        features[f"{side}_token_ids"].numpy() == rows.unk_id
        for side in ("encoder", "decoder")
    ]
    assert all(0.2 < side.mean() < 0.8 for side in sides)
    # Each side is hidden by a draw of its own.
    assert not np.array_equal(sides[0][:, :-1], sides[1][:, 1:])


def test_a_network_of_four_inputs_learns_from_them(rows):
    sides = ("encoder", "decoder")
    inputs = {
        f"{side}_{name}": keras.Input((None,), dtype=dtype, name=f"{side}_{name}")
        for side in sides
        for name, dtype in (("token_ids", "int32"), ("padding_mask", "bool"))
    }
    embed = keras.layers.Embedding(TOKENIZER.vocabulary_size(), 8)
    source, target = (embed(inputs[f"{side}_token_ids"]) for side in sides)
    mask = keras.ops.cast(inputs["encoder_padding_mask"], "float32")[..., None]
    summed = keras.ops.sum(source * mask, axis=1, keepdims=True)
    logits = keras.layers.Dense(TOKENIZER.vocabulary_size())(target + summed)
    network = keras.Model(inputs, logits)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    span = {"first_step": 0, "last_step": 40}
    network.fit(rows.training_batches(8, seed=0, **span), epochs=1, verbose=0)
    loss = network.evaluate(rows.evaluation_batches(8), verbose=0)
    assert loss < 0.9 * np.log(TOKENIZER.vocabulary_size())
