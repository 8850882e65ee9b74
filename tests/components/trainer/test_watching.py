"""Watching: a training is shown as it goes, once, and comes to what it would anyway."""

from __future__ import annotations

import csv
import logging
import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import wandb
from langzoo.components.errors import InputError
from langzoo.components.trainer import callbacks, training
from langzoo.components.trainer.evaluation import Texts
from langzoo.components.trainer.networks import network_of, prepared
from langzoo.components.trainer.rows.windows import TokenWindows
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.components.trainer.watching.sampling import Sampler
from langzoo.components.trainer.watching.settings import WatchSettings
from langzoo.components.trainer.watching.watching import Watching
from langzoo.models import ByteTokenizer, build_causal_lm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.tsl.profiler.protobuf import xplane_pb2

STEPS = 8
PROMPT = "Args:"
BYTES_PER_TOKEN = 4.0
TEXTS = Texts(targets=1000, bytes=4000)


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    tokenizer = ByteTokenizer()
    path = tmp_path_factory.mktemp("windows") / "stream"
    TokenWindows.write(
        path,
        [np.array(tokenizer(text)) for text in training.train.__doc__.split("\n\n")],
        vocabulary_size=tokenizer.vocabulary_size(),
        start_id=tokenizer.start_token_id,
        end_id=tokenizer.end_token_id,
        pad_id=tokenizer.pad_token_id,
    )
    return TokenWindows(path, context_length=16)


@pytest.fixture(autouse=True, scope="module")
def every_step_is_shown():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)
        yield


def make_model(family="gated_conv"):
    keras.utils.set_random_seed(0)
    return build_causal_lm(
        family, ByteTokenizer(), 16, num_layers=1, hidden_dim=16, dropout=0.2
    )


def train(windows, folder, watched=None, family="gated_conv", **options):
    """Trains a new model, watched as it is said; returns it and the result."""
    model = make_model(family)
    settings = TrainerSettings(
        **{
            "steps": STEPS,
            "batch_size": 4,
            "warmup_steps": 2,
            "jit_compile": False,
            "eval_every_steps": 2,
            **options,
        },
    ).of_family(family)
    trained = prepared(model, settings)
    watcher = Watching(WatchSettings.of(watched or {}), f"{folder}/logs")
    watcher.sample_from(model, trained)
    result = training.train(
        network_of(trained, settings),
        windows,
        windows,
        settings,
        str(folder),
        texts=TEXTS,
        watching=watcher,
    )
    return trained, result


def train_in_two_parts(windows, folder, interrupted, **options):
    """Trains to step 7 and then from the checkpoint of step 5, as after `kill -9`."""
    options |= {"checkpoint_steps": 5, "checkpoint_seconds": 1e6}
    with interrupted("step 7/8, loss"):
        train(windows, folder, **options)
    (newest,) = folder.glob("ckpt-7.index")
    newest.write_bytes(b"")
    _, result = train(windows, folder, **options)
    assert result.resumed_at == 5
    return result


def events(folder):
    """The events of one log, of which there is one."""
    (path,) = Path(folder).glob("events.out.tfevents.*")
    return list(tf.compat.v1.train.summary_iterator(str(path)))


def curves(folder):
    """Steps and values of each scalar of a log."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                point = (event.step, value.simple_value)
                found.setdefault(value.tag, []).append(point)
    return found


def texts(folder):
    return {
        event.step: tf.make_ndarray(value.tensor)[0].decode()
        for event in events(folder)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "text"
    }


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def losses(rows):
    return [row["loss"] for row in rows]


ALL = {
    "tensorboard": True,
    "graph": True,
    "profile_steps": [3, 4],
    "sample_tokens": 8,
    "sample_prompt": PROMPT,
}


AVERAGED = {"ema_momentum": 0.5}


@pytest.fixture(scope="module")
def watched(windows, tmp_path_factory):
    """A training that is watched in all ways: its model, its result, its folder."""
    folder = tmp_path_factory.mktemp("watched")
    return *train(windows, folder, ALL, **AVERAGED), folder


@pytest.fixture(scope="module")
def resumed(windows, interrupted, tmp_path_factory):
    """The result of one that is resumed, and its folder."""
    folder = tmp_path_factory.mktemp("resumed")
    result = train_in_two_parts(windows, folder, interrupted, watched=ALL, **AVERAGED)
    return result, folder


def assert_to_the_bit(one, other):
    (model, expected), (same, result) = one, other
    assert len(result.samples) == STEPS // 2
    assert losses(result.history) == losses(expected.history)
    assert losses(result.evaluations) == losses(expected.evaluations)
    for weight, again in zip(model.weights, same.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), again.numpy())


def test_a_training_comes_to_the_same_bits_where_it_is_watched(
    watched, windows, tmp_path
):
    alone = train(windows, tmp_path, **AVERAGED)
    assert_to_the_bit(alone, watched[:2])
    assert not (tmp_path / "logs").exists()  # Nothing is written that is not wanted.


def test_a_compiled_one_that_carries_a_state_does_too(windows, tmp_path):
    options = {"family": "rnn", "carry_state": True, "jit_compile": True}
    options["gradient_accumulation_steps"] = 2
    alone = train(windows, tmp_path / "alone", **options)
    assert_to_the_bit(alone, train(windows, tmp_path / "watched", ALL, **options))


def test_the_curves_are_those_of_the_history(watched):
    _, result, folder = watched
    learned, evaluated = (
        curves(folder / "logs" / name) for name in ("train", "validation")
    )
    assert set(learned) == {"loss", "perplexity", "learning_rate", "tokens_per_second"}
    assert set(evaluated) == {"loss", "perplexity", "bits_per_byte"}
    for found, rows in ((learned, result.history), (evaluated, result.evaluations)):
        steps, values = zip(*found["loss"], strict=True)
        assert list(steps) == [row["step"] for row in rows]
        np.testing.assert_allclose(values, losses(rows), rtol=1e-6)
        perplexities = [value for _, value in found["perplexity"]]
        np.testing.assert_allclose(perplexities, np.exp(losses(rows)), rtol=1e-5)
    assert all(speed > 0 for _, speed in learned["tokens_per_second"])


def test_a_resumed_training_has_one_curve(watched, resumed):
    (_, whole, _), (result, folder) = watched, resumed
    logs = folder / "logs"
    steps, values = zip(*curves(logs / "train")["loss"], strict=True)
    assert list(steps) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(values, losses(whole.history), atol=1e-6)
    steps, values = zip(*curves(logs / "validation")["loss"], strict=True)
    assert list(steps) == [2, 4, 6, 8]
    np.testing.assert_allclose(values, losses(whole.evaluations), atol=1e-6)
    assert list(texts(logs / "validation")) == [2, 4, 6, 8]
    assert [row.text for row in result.samples] == [row.text for row in whole.samples]


def test_the_tables_of_a_resumed_training_have_every_row_once(resumed, tmp_path):
    result, _ = resumed
    result.write_tables(str(tmp_path / "run"))
    history = table(tmp_path / "run" / "history.csv")
    assert [int(row["step"]) for row in history] == list(range(1, STEPS + 1))
    assert [float(row["loss"]) for row in history] == losses(result.history)
    evaluations = table(tmp_path / "run" / "evaluations.csv")
    assert [float(row["loss"]) for row in evaluations] == losses(result.evaluations)
    for row in evaluations:
        bits = float(row["bits_per_byte"])
        assert float(row["perplexity"]) == pytest.approx(2 ** (bits * BYTES_PER_TOKEN))
    samples = table(tmp_path / "run" / "samples.csv")
    assert [row["text"] for row in samples] == [row.text for row in result.samples]


def test_a_text_is_of_the_weights_that_were_evaluated(windows, tmp_path):
    watched = {"tensorboard": True, "sample_prompt": PROMPT, "sample_tokens": 8}
    # The averages, which are the result, lag far behind.
    options = {"ema_momentum": 0.9, "learning_rate": 0.3, "precision": "bfloat16"}
    model, result = train(windows, tmp_path, watched, **options)
    last = result.samples[-1]
    assert last.step == STEPS
    assert last.text.startswith(PROMPT)
    assert len(last.text) > len(PROMPT)
    assert last.text == Sampler(make_model(), model, PROMPT, 8)()
    shown = texts(tmp_path / "logs" / "validation")[STEPS]
    assert shown.replace("    ", "", 1) == last.text.replace("\n", "\n    ")


def test_a_text_can_begin_with_nothing_and_is_the_same_each_time():
    model = make_model()
    sampler = Sampler(model, model, "", 10)
    text = sampler()
    assert text
    assert sampler() == text
    assert Sampler(model, model, "", 10)() == text


def test_a_prompt_that_fills_the_context_is_refused():
    model = make_model()
    with pytest.raises(InputError, match=r"watch\.sample_prompt has 16 tokens"):
        Sampler(model, model, "x" * 15)


def recorded_batches(profile):
    (host,) = [
        plane
        for plane in xplane_pb2.XSpace.FromString(profile.read_bytes()).planes
        if plane.name == "/host:CPU"
    ]
    return [
        stat.int64_value
        for line in host.lines
        for event in line.events
        if host.event_metadata[event.metadata_id].name == "train"
        for stat in event.stats
        if host.stat_metadata[stat.metadata_id].name == "step_num"
    ]


def test_graph_and_profile_are_there_on_request_only(watched, windows, tmp_path):
    train(windows, tmp_path, {"tensorboard": True})
    asked, other = (folder / "logs" / "train" for folder in (watched[-1], tmp_path))
    (graph,) = [event.graph_def for event in events(asked) if event.graph_def]
    nodes = tf.compat.v1.GraphDef.FromString(graph).node
    assert any("token_embedding" in node.name for node in nodes)
    assert not any(event.graph_def for event in events(other))
    (profile,) = asked.glob("plugins/profile/*/*.xplane.pb")
    assert recorded_batches(profile) == [3, 4]
    assert not (other / "plugins").exists()


def test_logs_are_kept_where_a_run_ends(watched, tmp_path):
    logs = watched[-1] / "logs"
    Watching(None, str(logs)).keep(str(tmp_path / "run"))
    names = {path.relative_to(logs) for path in logs.rglob("*") if path.is_file()}
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (logs / name).read_bytes()


def test_logs_that_cannot_be_written_do_not_end_the_training(windows, tmp_path, caplog):
    (tmp_path / "logs").write_text("")
    with caplog.at_level(logging.INFO, "langzoo"):
        _, result = train(windows, tmp_path, {"tensorboard": True})
    assert result.steps == STEPS
    assert caplog.text.count("there are no more logs in") == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_of_keras_hub_writes_as_well(gpt2_preset, precision):
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(gpt2_preset)
    model = build_causal_lm("keras_hub", tokenizer, 16, preset=gpt2_preset)
    settings = TrainerSettings(precision=precision)
    text = Sampler(model, prepared(model, settings), "the value", 8)()
    assert text.startswith("the value")
    assert len(text) > len("the value")


def test_settings_are_read_from_a_file(tmp_path):
    path = WatchSettings(**ALL).write(str(tmp_path))
    assert WatchSettings.of(path) == WatchSettings(**ALL)


def test_tensorboard_reads_the_logs(watched):
    _, result, folder = watched
    log = EventAccumulator(str(folder / "logs" / "validation")).Reload()
    points = log.Scalars("loss")
    assert [point.step for point in points] == [2, 4, 6, 8]
    assert [point.wall_time for point in points] == pytest.approx(
        [row["time"] for row in result.evaluations]
    )
    assert set(log.PluginTagToContent("text")) == {"sample"}
    log = EventAccumulator(str(folder / "logs" / "train")).Reload()
    assert log.Graph().node


# --- Weights & Biases ---


def test_weights_and_biases_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'langzoo\[wandb\]'"):
        Watching(WatchSettings(wandb_project="zoo"))


def test_a_resumed_training_is_the_same_run_of_weights_and_biases(
    windows, tmp_path, monkeypatch, interrupted
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged = []
    log = wandb.Run.log

    def noted(run, values, step):
        logged.append((run.id, step, values))
        return log(run, values, step=step)

    monkeypatch.setattr(wandb.Run, "log", noted)
    watched = {"wandb_project": "zoo", "sample_tokens": 4}
    result = train_in_two_parts(windows, tmp_path, interrupted, watched=watched)
    assert len({identity for identity, _, _ in logged}) == 1
    logged = {
        step: values["train/loss"]
        for _, step, values in logged
        if "train/loss" in values
    }
    assert logged == {int(row["step"]): row["loss"] for row in result.history}
    runs = list((tmp_path / "logs" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 2
    assert len({run.name for run in runs}) == 1
