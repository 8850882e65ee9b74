"""Checkpoints: what is damaged or does not fit on the disk is never taken for whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from langzoo.components.errors import InputError
from langzoo.components.trainer.checkpoints import Checkpoints, History, tidy
from langzoo.components.trainer.jobs import Job
from tfx.components.trainer.fn_args_utils import FnArgs


def make(folder, **options):
    """A model and its checkpoints."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1000)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    history = History()
    checkpoints = Checkpoints(model, model.optimizer, history, str(folder), **options)
    return model, checkpoints


def saved(folder, *numbers):
    """Saves a model at each number, all of its weights being that number."""
    model, checkpoints = make(folder)
    for number in numbers:
        model.set_weights([np.full_like(w, number) for w in model.get_weights()])
        checkpoints.save(number)
    return checkpoints


def damage(folder, number):
    (path,) = Path(folder).glob(f"ckpt-{number}.data-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a full disk, no file can grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_newest_is_loaded(tmp_path):
    saved(tmp_path, 1, 2)
    model, checkpoints = make(tmp_path)
    assert checkpoints.restore() == 2
    assert all(np.all(weight == 2) for weight in model.get_weights())


def test_one_that_is_damaged_is_named_and_the_one_before_is_loaded(tmp_path, caplog):
    saved(tmp_path, 1, 2)
    damage(tmp_path, 2)
    model, checkpoints = make(tmp_path)
    with caplog.at_level(logging.INFO, "langzoo"):
        assert checkpoints.restore() == 1
    assert "ckpt-2 is no whole checkpoint" in caplog.text
    assert all(np.all(weight == 1) for weight in model.get_weights())


def test_where_none_is_whole_nothing_is_begun_anew_unasked(tmp_path):
    saved(tmp_path, 1, 2)
    damage(tmp_path, 1)
    damage(tmp_path, 2)
    with pytest.raises(InputError, match=f"no checkpoint in {tmp_path} is whole"):
        make(tmp_path)[1].restore()


def test_a_full_disk_leaves_the_last_one_and_nothing_of_the_next(tmp_path):
    checkpoints = saved(tmp_path, 1)
    before = sorted(path.name for path in tmp_path.iterdir())
    with (
        files_of_at_most(10_000),
        pytest.raises(InputError, match=f"can be written to {tmp_path}: .*is kept"),
    ):
        checkpoints.save(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert make(tmp_path)[1].restore() == 1
    checkpoints.save(3)
    assert make(tmp_path)[1].restore() == 3


def test_as_many_are_kept_as_was_said(tmp_path):
    _, checkpoints = make(tmp_path, keep=3)
    for number in range(1, 6):
        checkpoints.save(number)
    kept = {path.name.split(".")[0] for path in tmp_path.glob("ckpt-*")}
    assert kept == {"ckpt-3", "ckpt-4", "ckpt-5"}


def test_the_best_one_is_kept_besides_the_newest(tmp_path):
    _, checkpoints = make(tmp_path, keep=2)
    checkpoints.save(1)
    checkpoints.save_best(1)
    checkpoints.save_best(2)
    _, resumed = make(tmp_path, keep=2)
    for number in range(3, 7):
        resumed.save(number)
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("ckpt-*.index")}
    assert kept == {"ckpt-5.index", "ckpt-6.index", "best/ckpt-2.index"}
    resumed.save_best(7)
    (best,) = (tmp_path / "best").glob("ckpt-*.index")
    assert best.name == "ckpt-7.index"


def test_where_no_other_is_whole_the_best_one_is_loaded(tmp_path):
    model, checkpoints = make(tmp_path)
    for number in (1, 2, 3):
        model.set_weights([np.full_like(w, number) for w in model.get_weights()])
        (checkpoints.save_best if number == 1 else checkpoints.save)(number)
    damage(tmp_path, 2)
    damage(tmp_path, 3)
    model, checkpoints = make(tmp_path)
    assert checkpoints.restore() == 1
    assert all(np.all(weight == 1) for weight in model.get_weights())


def test_a_failure_is_noted_beside_them(tmp_path):
    path = saved(tmp_path, 1).note_failure({"step": 7})
    assert json.loads(Path(path).read_text()) == {"step": 7}
    assert make(tmp_path)[1].restore() == 1


def folder_of(training=None, **others):
    """Where a training with some changes has its checkpoints."""
    config = {
        "checkpoint_root": "root",
        "model": {"family": "lstm"},
        "training": {"steps": 1000, "schedule": "constant", **(training or {})},
        "export": {},
        **others,
    }
    fn_args = FnArgs(
        train_files=["train"], transform_graph_path="graph", custom_config=config
    )
    return Job.of(fn_args).checkpoints


STOPS = {"early_stopping_patience": 2, "eval_every_steps": 100}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"checkpoint_seconds": 1.0, "checkpoint_steps": 5}),
        ({}, {"keep_checkpoints": 9, "jit_compile": False}),
        ({}, {"strategy": "mirrored"}),
        ({}, {"eval_every_steps": 50}),
        ({}, {"steps": 2000}),
        (STOPS, {**STOPS, "steps": 2000}),
        ({"schedule": "cosine"}, {"schedule": "cosine", "keep_checkpoints": 1}),
    ],
)
def test_settings_that_change_no_step_keep_the_checkpoints(before, after):
    assert folder_of(before) == folder_of(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"seed": 1}),
        ({}, {"learning_rate": 0.5}),
        ({"schedule": "cosine"}, {"schedule": "cosine", "steps": 2000}),
        ({"schedule": "linear"}, {"schedule": "linear", "steps": 2000}),
        (STOPS, {**STOPS, "eval_every_steps": 50}),
        # Its last step is evaluated, which that of the longer one is not.
        ({**STOPS, "steps": 1050}, {**STOPS, "steps": 2000}),
    ],
)
def test_settings_that_change_a_step_have_checkpoints_of_their_own(before, after):
    assert folder_of(before) != folder_of(after)


def test_what_is_exported_and_watched_keeps_the_checkpoints():
    shown = {"export": {"generate": False}, "watch": {"graph": True}}
    assert folder_of() == folder_of(**shown)
    assert folder_of() != folder_of(model={"family": "gru"})


def test_of_a_training_that_has_ended_the_newest_stays_and_of_others_nothing(tmp_path):
    own, killed, live, waiting, search, theirs = (
        tmp_path / name
        for name in ("a" * 16, "b" * 16, "c" * 16, "d" * 16, f"{'e' * 16}-search", "me")
    )
    model, checkpoints = make(own)
    checkpoints.save_best(1)
    for number in (1, 2):
        model.set_weights([np.full_like(w, number) for w in model.get_weights()])
        checkpoints.save(number)
    (own / "trained.npz").write_bytes(b"")
    for folder in (killed, live, waiting, search / "trial", theirs):
        saved(folder, 1)
    (search / "trial-9.json").write_text("{}")
    (waiting / "job.json").write_text("{}")
    began = time.time()
    for path in tmp_path.rglob("*"):
        os.utime(path, (began - 60, began - 60))
    os.utime(live / "checkpoint")
    tidy(str(own), began)
    assert {path.name for path in own.iterdir()} == {
        "checkpoint",
        "ckpt-2.index",
        "ckpt-2.data-00000-of-00001",
    }
    assert make(own)[1].restore() == 2
    assert not killed.exists()
    assert [path.name for path in search.iterdir()] == ["trial-9.json"]
    assert all(any(path.iterdir()) for path in (live, waiting, theirs))
