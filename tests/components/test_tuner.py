"""Searching: what is tried, what is best, and how an interrupted search goes on."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import re

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
from keras_tuner.errors import FatalError
from langzoo.components.errors import InputError
from langzoo.components.progress import as_part, report
from langzoo.components.text_example_gen.records import Labels
from langzoo.components.trainer import callbacks
from langzoo.components.trainer.hyperparameters import with_hyperparameters
from langzoo.components.trainer.jobs import checkpoint_folder
from langzoo.components.transform.records import Tokens, TokenStatistics
from langzoo.components.tuner.component import Tuner
from langzoo.components.tuner.executor import Executor
from langzoo.components.tuner.records import read_trials
from langzoo.components.tuner.search import Measured, Search, make_oracle
from langzoo.components.tuner.settings import SearchSettings
from langzoo.models import ByteTokenizer
from tensorflow_transform.tf_metadata import (
    dataset_metadata,
    metadata_io,
    schema_utils,
)
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.channel import Channel

MODEL = {
    "family": "gated_conv",
    "context_length": 16,
    "num_layers": 1,
    "hidden_dim": 16,
}
TRAINING = {"steps": 1000, "batch_size": 4, "warmup_steps": 2, "jit_compile": False}
SPACE = {
    "trainer.learning_rate": {"min": 1e-3, "max": 3e-2, "sampling": "log"},
    "model.hidden_dim": [8, 16, 32],
}


@pytest.fixture(scope="module")
def inputs(topics, tmp_path_factory):
    """What Transform gives of real text: token ids, their schema and the tokenizer."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = ByteTokenizer()
    counts = {}
    for split, texts in {"train": topics[:6], "eval": topics[6:7]}.items():
        path = folder / "examples" / f"Split-{split}" / "data.gz"
        path.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for number, text in enumerate(texts):
                example = tf.train.Example()
                label = example.features.feature["label"].bytes_list.value
                label.append([b"odd", b"even"][number % 2])
                ids = example.features.feature["token_ids"].int64_list.value
                ids.extend(tokenizer(text[:1500]))
                writer.write(example.SerializeToString())
        size = sum(len(text[:1500]) for text in texts)  # They are ASCII.
        counts[split] = TokenStatistics(tokens=size, unknown=0, bytes=size)
    Tokens(splits=counts).write(str(folder / "examples"))
    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    graph = standard_artifacts.TransformGraph()
    graph.uri = str(folder / "graph")
    kinds = {"token_ids": tf.int64, "label": tf.string}
    spec = {
        name: tf.io.RaggedFeature(kind, row_splits_dtype=tf.int64)
        for name, kind in kinds.items()
    }
    metadata_io.write_metadata(
        dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec)),
        f"{graph.uri}/transformed_metadata",
    )
    tokenizer.save_to_preset(f"{graph.uri}/tokenizer")
    documents = {"train": {"odd": 3, "even": 3}, "eval": {"odd": 1}}
    Labels(documents=documents).write(graph.uri)
    return {"examples": [examples], "transform_graph": [graph]}


def run_tuner(inputs, folder, model=MODEL, task="causal_lm", **settings):
    """Runs the component's executor; gives the trials and the best hyperparameters."""
    tuner = Tuner(
        examples=Channel(type=standard_artifacts.Examples),
        transform_graph=Channel(type=standard_artifacts.TransformGraph),
        model=model,
        training=TRAINING,
        search={"trials": 13, "steps": 9, "seed": 0, "space": SPACE, **settings},
        checkpoint_root=str(folder / "checkpoints"),
        task=task,
    )
    outputs = {}
    for name, channel in tuner.outputs.items():
        artifact = channel.type()
        artifact.uri = str(folder / name)
        outputs[name] = [artifact]
    context = Executor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")
    Executor(context).Do(inputs, outputs, tuner.exec_properties)
    best = (folder / "best_hyperparameters" / "best_hyperparameters.txt").read_text()
    return read_trials(str(folder / "tuner_results")), json.loads(best)["values"]


def by_steps(trials):
    counts = {}
    for trial in trials:
        counts[trial.steps] = counts.get(trial.steps, 0) + 1
    return counts


def ended(trials):
    return [(trial.values, trial.steps, trial.figure) for trial in trials]


@pytest.fixture(scope="module")
def hyperband(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hyperband")
    return *run_tuner(inputs, folder, algorithm="hyperband"), folder


def test_hyperband_goes_on_with_the_best(hyperband):
    trials, best, _ = hyperband
    assert by_steps(trials) == {1: 9, 3: 3, 9: 1}
    for short, long in ((1, 3), (3, 9)):
        begun = [trial.values for trial in trials if trial.steps == short]
        gone_on = [trial.values for trial in trials if trial.steps == long]
        for values in gone_on:
            assert values in begun[: len(gone_on)]
    scores = [trial.figure for trial in trials]
    assert scores == sorted(scores)
    assert best == trials[0].values


def test_a_trial_that_goes_on_ends_as_one_that_was_not_stopped(
    hyperband, inputs, tmp_path
):
    trials, _, _ = hyperband
    (longest,) = [trial for trial in trials if trial.steps == 9]
    space = {key: [value] for key, value in longest.values.items()}
    (whole,), _ = run_tuner(inputs, tmp_path, algorithm="random", trials=1, space=space)
    assert whole.steps == 9
    assert whole.figure == pytest.approx(longest.figure, abs=1e-6)
    assert whole.parameters == longest.parameters


def test_classifiers_are_searched_by_the_cross_entropy_of_the_label(
    inputs, tmp_path, listening
):
    space = {
        "trainer.classifier.pooling": ["mean", "last"],
        "trainer.classifier.random_swap": [0.2],
    }
    with listening() as shown:
        trials, best = run_tuner(
            *(inputs, tmp_path),
            task="text_classifier",
            algorithm="random",
            trials=2,
            steps=3,
            space=space,
        )
    poolings = {trial.values["trainer.classifier.pooling"] for trial in trials}
    assert poolings == {"mean", "last"}
    assert best == trials[0].values
    assert trials[0].figure <= trials[1].figure
    assert "cross entropy after 3 steps" in " ".join(shown)


def test_the_artifact_has_the_trials_as_a_table(hyperband):
    trials, _, folder = hyperband
    with open(folder / "tuner_results" / "tuner_results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [t.figure for t in trials]
    assert {int(row["model.hidden_dim"]) for row in rows} <= {8, 16, 32}


def test_of_the_checkpoints_only_results_stay(hyperband):
    _, _, folder = hyperband
    left = [path for path in folder.glob("checkpoints/**/*") if path.is_file()]
    assert len(left) == 13
    assert {path.suffix for path in left} == {".json"}


def test_an_interrupted_search_goes_on(
    hyperband, inputs, tmp_path, monkeypatch, listening
):
    monkeypatch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)
    began = []
    for stop in ("trial 4/13, best", "step 3/3", None):
        with listening(stop) as shown:
            if stop:
                with pytest.raises(KeyboardInterrupt):
                    run_tuner(inputs, tmp_path, algorithm="hyperband")
            else:
                trials, best = run_tuner(inputs, tmp_path, algorithm="hyperband")
        words = [re.match(r"trial (\d+)/13", line) for line in shown]
        began.append({int(word[1]) for word in words if word})
    # Only those that were interrupted began twice; the second had its last checkpoint.
    assert [min(numbers) for numbers in began] == [1, 4, 10]
    assert [max(numbers) for numbers in began] == [4, 10, 13]
    assert any("resumed from the checkpoint of step 3 of 3" in line for line in shown)
    expected, expected_best, _ = hyperband
    assert [trial.values for trial in trials] == [trial.values for trial in expected]
    assert [trial.figure for trial in trials] == pytest.approx(
        [trial.figure for trial in expected], abs=1e-6
    )
    assert best == expected_best


# --- With a formula in the place of training ---


def formula(values, steps, folder):
    """Better with a learning rate near 0.01, and with more steps."""
    distance = abs(values["trainer.learning_rate"] - 1e-2) / 1e-2
    return Measured(2 + distance + values["model.hidden_dim"] / 1e3 - steps / 1e4, 1)


def run_search(folder, algorithm, train=formula, trials=13, seed=0, space=SPACE):
    settings = SearchSettings(
        algorithm=algorithm, space=space, trials=trials, seed=seed
    )
    search = Search(make_oracle(settings), str(folder), 90)
    search.search(contextlib.nullcontext(train))
    return search


@pytest.mark.parametrize("algorithm", ["hyperband", "random", "bayesian"])
def test_no_trial_is_run_twice_and_the_others_are_the_same(tmp_path, algorithm):
    whole = run_search(tmp_path / "whole", algorithm)
    assert len(whole.trials) == 13
    calls = []

    def dying(values, steps, folder):
        if len(calls) in (2, 9):
            calls.append("died")
            raise KeyboardInterrupt
        calls.append((dict(values), steps))
        return formula(values, steps, folder)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_search(tmp_path / "parts", algorithm, dying)
    parts = run_search(tmp_path / "parts", algorithm, dying)
    assert ended(parts.trials) == ended(whole.trials)
    assert parts.best_hyperparameters() == whole.best_hyperparameters()
    calls = [call for call in calls if call != "died"]
    assert calls == [(trial.values, trial.steps) for trial in whole.trials]


@pytest.mark.parametrize("algorithm", ["hyperband", "random", "bayesian"])
def test_another_seed_has_other_trials(tmp_path, algorithm):
    first = run_search(tmp_path / "0", algorithm, seed=0, trials=3)
    second = run_search(tmp_path / "1", algorithm, seed=1, trials=3)
    assert first.trials[0].values != second.trials[0].values


def test_bayesian_search_comes_near_the_best(tmp_path):
    search = run_search(tmp_path, "bayesian", trials=14)
    assert search.best().values["trainer.learning_rate"] == pytest.approx(0.01, rel=0.1)


def test_more_trials_go_on_from_those_that_are_done(tmp_path, listening):
    before = run_search(tmp_path, "random", trials=3)
    before.forget_checkpoints()
    calls = []

    def counted(values, steps, folder):
        calls.append(values)
        return formula(values, steps, folder)

    with listening() as shown:
        after = run_search(tmp_path, "random", counted, trials=5)
    said = [line for line in shown if not line.startswith("trial ")]
    assert said == ["the search goes on after 3 trial(s)"]
    assert ended(after.trials)[:3] == ended(before.trials)
    assert len(calls) == 2


def test_a_space_that_is_exhausted_ends_the_search(tmp_path):
    space = {"trainer.learning_rate": [0.01, 0.02], "model.hidden_dim": [8, 16, 32]}
    search = run_search(tmp_path, "random", space=space)
    assert len({json.dumps(trial.values) for trial in search.trials}) == 6


def test_the_steps_of_a_range_add_up_without_an_error(tmp_path):
    space = SPACE | {"model.dropout": {"min": 0.0, "max": 0.5, "step": 0.1}}
    trials = run_search(tmp_path, "random", space=space).trials
    found = {trial.values["model.dropout"] for trial in trials}
    assert 0.3 in found
    assert found <= {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}


def test_within_a_trial_only_warnings_stay(caplog):
    with caplog.at_level(logging.INFO, "langzoo"), as_part("trial 1: "):
        report("resumed")
        report("warning: damaged")
    assert caplog.messages == ["trial 1: resumed", "trial 1: warning: damaged"]
    stays = [not getattr(record, "transient", False) for record in caplog.records]
    assert stays == [False, True]


def test_booleans_and_words_stay_what_they_are(tmp_path):
    space = {
        "trainer.learning_rate": [0.01],
        "model.hidden_dim": [8],
        "model.use_bias": [True, False],
        "model.positions": ["rotary", "learned"],
    }
    search = run_search(tmp_path, "random", space=space)
    found = {
        (t.values["model.use_bias"], t.values["model.positions"]) for t in search.trials
    }
    assert found == {(b, w) for b in (True, False) for w in ("rotary", "learned")}
    assert all(isinstance(value, bool) for value, _ in found)


@pytest.mark.parametrize("algorithm", ["hyperband", "random", "bayesian"])
def test_a_search_survives_trials_that_fail(tmp_path, algorithm):
    def failing(values, steps, folder):
        if values["model.hidden_dim"] == 8:
            raise InputError("too narrow")
        return formula(values, steps, folder)

    search = run_search(tmp_path, algorithm, failing)
    failed = [trial for trial in search.trials if trial.figure is None]
    assert failed
    assert {trial.message for trial in failed} == {"too narrow"}
    assert search.best().values["model.hidden_dim"] != 8
    if algorithm == "hyperband":
        assert by_steps(search.trials) == {10: 9, 30: 3, 90: 1}


def test_a_search_of_failures_alone_is_an_error(tmp_path):
    def failing(values, steps, folder):
        raise InputError("no such thing")

    with pytest.raises(InputError, match=r"none of the 13 trials .*: no such thing"):
        run_search(tmp_path, "random", failing)
    assert len(run_search(tmp_path, "random").trials) == 13


def test_what_no_hyperparameter_can_help_ends_the_search(tmp_path):
    def without_room(values, steps, folder):
        raise InputError("no checkpoint can be written") from OSError(28, "no space")

    with pytest.raises(FatalError) as raised:
        run_search(tmp_path, "random", without_room)
    assert isinstance(raised.value.__cause__, InputError)
    assert not list(tmp_path.glob("*.json"))


# --- The rest of what trains ---


def test_a_combination_that_cannot_be_built_is_a_failed_trial(inputs, tmp_path):
    space = {"model.num_heads": [2, 3]}
    settings = {"algorithm": "random", "trials": 2, "steps": 1, "space": space}
    model = MODEL | {"family": "transformer"}
    trials, best = run_tuner(inputs, tmp_path, model=model, **settings)
    assert best == {"model.num_heads": 2}
    assert trials[1].figure is None
    assert "num_heads" in trials[1].message


def test_an_n_gram_model_is_searched_by_its_order(inputs, tmp_path):
    space = {"model.order": {"min": 1, "max": 4}}
    model = {"family": "ngram", "context_length": 16}
    trials, best = run_tuner(
        inputs, tmp_path, model=model, algorithm="random", space=space
    )
    orders = {trial.values["model.order"]: trial.figure for trial in trials}
    assert set(orders) == {1, 2, 3, 4}
    assert orders[3] < orders[1]
    assert best == {"model.order": trials[0].values["model.order"]}


def test_hyperparameters_take_the_place_of_settings():
    config = {"model": {"hidden_dim": 8}, "training": {"steps": 3}, "source": "x"}
    values = {"model.hidden_dim": 16, "trainer.augmentation.token_dropout": 0.1}
    assert with_hyperparameters(config, values) == {
        "model": {"hidden_dim": 16},
        "training": {"steps": 3, "augmentation": {"token_dropout": 0.1}},
        "source": "x",
    }
    assert config["model"] == {"hidden_dim": 8}


def test_checkpoints_of_other_hyperparameters_are_others():
    fn_args = FnArgs(train_files=["a"], transform_graph_path="b")
    config = {"model": {"dropout": 0.1}, "training": {}, "checkpoint_root": "c"}
    changed = with_hyperparameters(config, {"model.dropout": 0.2})
    assert checkpoint_folder(fn_args, config) != checkpoint_folder(fn_args, changed)
