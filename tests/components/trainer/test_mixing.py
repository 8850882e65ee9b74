"""A mixture is trained in one run: members, weights, and what counts once more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.trainer import mixing
from langzoo.components.trainer.checkpoints import tidy
from langzoo.components.trainer.jobs import Job
from langzoo.components.trainer.records import MEMBER
from langzoo.components.trainer.rows.holding_out import HELD_OUT, LEARNED, hold_out
from langzoo.components.trainer.rows.windows import (
    TokenWindows,
    read_documents,
    read_lengths,
)
from langzoo.models import ByteTokenizer, build_causal_lm
from tiny_models import TINY

CONTEXT = 16
MEMBERS = [
    {"family": "gated_conv", **TINY["gated_conv"]},
    {"family": "ngram", **TINY["ngram"]},
]
ONE_DEVICE = tf.distribute.get_strategy()


def write(path, texts):
    tokenizer = ByteTokenizer()
    TokenWindows.write(
        path,
        [np.array(tokenizer(text)) for text in texts],
        vocabulary_size=tokenizer.vocabulary_size(),
        start_id=tokenizer.start_token_id,
        end_id=tokenizer.end_token_id,
        pad_id=tokenizer.pad_token_id,
        unk_id=tokenizer.unk_token_id,
    )


def pack(folder, evaluated=mixing.__doc__ or ""):
    folder.mkdir()
    write(folder / "train", (TokenWindows.__doc__ + mixing.mix.__doc__).split("\n\n"))
    write(folder / "eval", [evaluated])
    hold_out(str(folder / "train"), 0.2, CONTEXT)
    return str(folder)


@pytest.fixture
def packed(tmp_path):
    return pack(tmp_path / "packed")


def job_of(folder, members=MEMBERS, **training):
    model = {"family": "mixture", "context_length": CONTEXT, "members": members}
    job = Job(
        model={**model, "held_out": 0.2},
        training={"steps": 6, "batch_size": 4, "jit_compile": False, **training},
        train_files=[],
        eval_files=["nowhere/eval/files"],
        transform_graph="",
        checkpoints=str(folder),
    )
    return with_tokenizer(job)


def with_tokenizer(job):
    for one in (job, *job.members):
        vars(one).update(tokenizer=ByteTokenizer(), eval_texts=lambda *_: None)
    return job


def weights_of(model):
    return [np.array(weight) for weight in model.backbone.weights]


def assert_alike(model, other):
    for one, two in zip(weights_of(model), weights_of(other), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("lengths", [[40] * 30, [1000], [3000, 0, 17, 700, 1]])
def test_what_is_held_out_is_not_learned_from(tmp_path, lengths):
    texts, tokens = [], iter(range(5, 60_000))
    for length in lengths:
        texts.append(np.array([next(tokens) for _ in range(length)], int))
    path = tmp_path / "train"
    TokenWindows.write(
        path, texts, vocabulary_size=60_000, start_id=2, end_id=3, pad_id=0
    )
    hold_out(str(path), 0.1, CONTEXT)
    learned, rest = (
        np.concatenate([*read_documents(tmp_path / name)])
        for name in (LEARNED, HELD_OUT)
    )
    assert sorted([*learned, *rest]) == sorted(np.concatenate(texts))
    assert 0.05 < len(rest) / sum(lengths) < 0.2
    assert max(read_lengths(tmp_path / HELD_OUT)) <= 16 * CONTEXT


def test_too_little_text_for_a_mixture_is_an_error_of_one_line(tmp_path):
    write(tmp_path / "train", ["short"])
    with pytest.raises(InputError, match=r"too little text for a mixture.*: 5 tokens"):
        hold_out(str(tmp_path / "train"), 0.1, CONTEXT)


def test_members_learn_as_they_do_alone_and_what_counts_counts_all(tmp_path, packed):
    job = job_of(tmp_path / "mixture")
    model, result = job.train_on(packed, ONE_DEVICE)
    network, ngram = model.parts
    alone = dataclasses.replace(job.members[0], checkpoints=str(tmp_path / "alone"))
    theirs, expected = with_tokenizer(alone).train_on(packed, ONE_DEVICE)
    assert_alike(network, theirs)
    counted = build_causal_lm("ngram", ByteTokenizer(), CONTEXT, **TINY["ngram"])
    counted.fit(read_documents(f"{packed}/train"))
    assert_alike(ngram, counted)
    assert [member.family for member in result.members] == ["gated_conv", "ngram"]
    assert sum(member.weight for member in result.members) == pytest.approx(1)
    assert result.members[0].eval_loss == pytest.approx(expected.eval_loss, rel=1e-4)
    assert result.eval_loss < max(member.eval_loss for member in result.members)
    assert (result.steps, result.parameters) == (6, model.count_params())


def test_the_weights_are_never_fitted_on_the_evaluation(tmp_path, packed):
    other = pack(tmp_path / "other", evaluated="Nothing like what is learned. " * 9)
    models, results = zip(
        *(
            job_of(tmp_path / f"{number}").train_on(folder, ONE_DEVICE)
            for number, folder in enumerate((packed, other))
        ),
        strict=True,
    )
    assert_alike(*models)
    assert results[0].eval_loss != results[1].eval_loss


def test_a_longer_training_of_two_networks_goes_on_from_both(tmp_path, packed):
    members = [MEMBERS[0], {"family": "tcn", **TINY["tcn"]}]
    options = {"schedule": "constant", "warmup_steps": 1, "checkpoint_steps": 1}
    whole, expected = job_of(tmp_path / "whole", members, **options).train_on(
        packed, ONE_DEVICE
    )
    for steps in (3, 6):
        job = job_of(tmp_path / "parts", members, **options, steps=steps)
        resumed, result = job.train_on(packed, ONE_DEVICE)
        tidy(job.checkpoints, began=0)
    assert result.resumed_at == 6  # three of each
    assert result.steps == expected.steps == 12
    steps = [row["step"] for row in result.history]
    assert steps == sorted(steps)
    for one, two in zip(weights_of(whole), weights_of(resumed), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    names = [path.name for path in (tmp_path / "parts" / f"{MEMBER}0").iterdir()]
    assert sum(name.endswith(".index") for name in names) == 1


def test_workers_elsewhere_are_for_single_models(tmp_path):
    job = job_of(tmp_path, strategy="multi_worker")
    with pytest.raises(InputError, match=r"multi_worker is for single models"):
        _ = job.strategy
