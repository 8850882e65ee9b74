"""Augmentation: a share of the inputs is hidden, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from langzoo.components.errors import InputError
from langzoo.components.trainer.rows.augmentation import augmented, hidden
from langzoo.components.trainer.rows.packing import make_windows
from langzoo.components.trainer.rows.settings import AugmentationSettings
from langzoo.components.trainer.rows.windows import TokenStream

PAD, UNK, START, END = 0, 1, 2, 3
CONTEXT, BATCH_SIZE, STEPS = 64, 16, 20


def make_stream(folder, packing="contiguous", unk_id=UNK):
    generator = np.random.default_rng(0)
    TokenStream.write(
        f"{folder}/stream",
        [generator.integers(4, 300, size) for size in generator.integers(0, 90, 400)],
        vocabulary_size=300,
        start_id=START,
        end_id=END,
        pad_id=PAD,
        unk_id=unk_id,
    )
    return make_windows(f"{folder}/stream", CONTEXT, packing)


@pytest.fixture(params=["contiguous", "best_fit", "lines"])
def stream(tmp_path, request):
    return make_stream(tmp_path, request.param)


def batches(stream, augmentation=None, first_step=0, seed=0):
    plain = stream.training_batches(
        BATCH_SIZE, seed=0, first_step=first_step, last_step=STEPS
    )
    if augmentation is not None:
        plain = augmented(plain, stream, augmentation, seed=seed, first_step=first_step)
    return [
        (features["token_ids"].numpy(), features["padding_mask"].numpy(), *rest)
        for features, *rest in plain
    ]


def hidden_and_tokens(stream, augmentation):
    """What is hidden, and what are tokens of documents, a pair for each batch."""
    pairs = []
    for (ids, *rest), (noisy, *noisy_rest) in zip(
        batches(stream), batches(stream, augmentation), strict=True
    ):
        for expected, other in zip(rest, noisy_rest, strict=True):
            np.testing.assert_array_equal(expected, other)
        places = noisy == UNK
        np.testing.assert_array_equal(noisy[~places], ids[~places])
        pairs.append((places, ids >= 4))
    return pairs


@pytest.mark.parametrize(
    ("augmentation", "share"),
    [
        (AugmentationSettings(token_dropout=0.15), 0.15),
        (AugmentationSettings(span_masking=0.15), 0.15),
        (AugmentationSettings(span_masking=0.15, span_length=7), 0.15),
        (AugmentationSettings(span_masking=0.15, span_length=1), 0.15),
        (AugmentationSettings(token_dropout=0.1, span_masking=0.2), 1 - 0.9 * 0.8),
        (
            AugmentationSettings(token_dropout=0.1, span_masking=0.2, span_length=1),
            1 - 0.9 * 0.8,
        ),
    ],
)
def test_a_share_of_the_inputs_is_hidden_and_nothing_else_changes(
    stream, augmentation, share
):
    pairs = hidden_and_tokens(stream, augmentation)
    assert not any((places & ~tokens).any() for places, tokens in pairs)
    number = sum(tokens.sum() for _, tokens in pairs)
    found = sum(places.sum() for places, _ in pairs) / number
    # Tokens of a span go together: as if there were so many fewer.
    error = np.sqrt(share * (1 - share) / (number / augmentation.span_length))
    assert abs(found - share) < 4 * error


def runs_of(places):
    """The lengths of the runs in rows `[b, t]` that begin and end within a row."""
    steps = np.diff(np.asarray(places).astype(int), axis=1)
    begins = [np.flatnonzero(row == 1) for row in steps]
    ends = [np.flatnonzero(row == -1) for row in steps]
    return np.concatenate(
        [
            end[end > begin[0]] - begin[: (end > begin[0]).sum()]
            for begin, end in zip(begins, ends, strict=True)
            if len(begin)
        ]
    )


def test_dropped_tokens_are_alone_and_masked_ones_in_spans():
    alone = runs_of(hidden(AugmentationSettings(token_dropout=0.05), [200, 99], [0, 0]))
    assert np.mean(alone) == pytest.approx(1 / 0.95, abs=0.05)
    spans = AugmentationSettings(span_masking=0.05, span_length=5)
    lengths = runs_of(hidden(spans, [200, 99], [0, 0]))
    assert lengths.min() == 5
    assert np.mean(lengths == 5) > 0.9


def test_the_beginning_and_the_end_of_a_row_are_hidden_as_often_as_its_middle(tmp_path):
    augmentation = AugmentationSettings(span_masking=0.5, span_length=9)
    places = [hidden(augmentation, [2000, 30], [0, i]) for i in range(5)]
    shares = np.mean(np.concatenate(places), axis=0)
    np.testing.assert_allclose(shares, 0.5, atol=0.03)


def test_the_noise_of_a_step_depends_on_seed_and_step_alone(stream):
    augmentation = AugmentationSettings(token_dropout=0.2, span_masking=0.2)
    whole = [ids for ids, *_ in batches(stream, augmentation)]
    rest = [ids for ids, *_ in batches(stream, augmentation, first_step=7)]
    for expected, ids in zip(whole[7:], rest, strict=True):
        np.testing.assert_array_equal(ids, expected)
    other = [ids for ids, *_ in batches(stream, augmentation, seed=1)]
    assert any((a != b).any() for a, b in zip(whole, other, strict=True))


def test_no_two_steps_have_the_same_noise(tmp_path):
    windows = make_stream(tmp_path)
    pairs = hidden_and_tokens(windows, AugmentationSettings(token_dropout=0.5))
    first, second = (places for places, _ in pairs[:2])
    assert (first != second).any()


def test_without_augmentation_the_batches_are_the_same_object(stream):
    plain = stream.training_batches(BATCH_SIZE, seed=0, first_step=0, last_step=1)
    assert (
        augmented(plain, stream, AugmentationSettings(), seed=0, first_step=0) is plain
    )


@pytest.mark.parametrize("unk_id", [None, START, END])
def test_a_tokenizer_without_an_unknown_token_is_an_error(tmp_path, unk_id):
    windows = make_stream(tmp_path, unk_id=unk_id)
    with pytest.raises(InputError, match="needs a tokenizer with an <unk> token"):
        batches(windows, AugmentationSettings(token_dropout=0.1))
