"""A batch that two devices share teaches what it teaches one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.trainer import distribution
from langzoo.components.trainer.jobs import Job
from langzoo.components.trainer.settings import TrainerSettings

# TensorFlow divides its one CPU only before it is used, so in a process of its own.
SCRIPT = """
import gc, json, pathlib, pydoc_data.topics, sys

gc.disable()
import keras, numpy as np, tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])

from langzoo.components.trainer import callbacks, distribution, training
from langzoo.components.trainer.networks import network_of, prepared
from langzoo.components.trainer.rows.labelled import LabelledRows
from langzoo.components.trainer.rows.packing import make_windows
from langzoo.components.trainer.rows.windows import TokenStream
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.models import ByteTokenizer, build

gc.freeze()
gc.enable()
folder, cases = sys.argv[1], json.loads(sys.argv[2])
callbacks._SHOW_EVERY_SECONDS = 0
tokenizer = ByteTokenizer()
text = pydoc_data.topics.topics["assert"]
TokenStream.write(
    f"{folder}/stream",
    [np.array(tokenizer(paragraph)) for paragraph in text.split("\\n\\n")],
    vocabulary_size=tokenizer.vocabulary_size(),
    start_id=tokenizer.start_token_id,
    end_id=tokenizer.end_token_id,
    pad_id=tokenizer.pad_token_id,
    unk_id=tokenizer.unk_token_id,
)


def labelled(several, settings):
    labels = np.arange(len(text.split("\\n\\n"))) % 3
    labels = np.eye(3)[labels] if several else labels
    np.save(f"{folder}/stream.labels.npy", labels.astype(np.int32))
    pathlib.Path(f"{folder}/stream.labels.json").write_text(json.dumps(list("xyz")))
    options = {
        "task": "text_classifier",
        "of_task": {"labels": list("xyz"), "multi_label": several, "dropout": 0},
    }
    return LabelledRows(f"{folder}/stream", 16, settings.classifier), options


sizes = {"num_layers": 1, "hidden_dim": 16, "ngram_embeddings": 2}


def train(strategy, family, checkpoints, several=None, **settings):
    defaults = {"steps": 6, "batch_size": 4, "eval_every_steps": 3}
    settings = TrainerSettings(**{**defaults, "jit_compile": False, **settings})
    settings = settings.of_family(family)
    windows, options = make_windows(f"{folder}/stream", 16, settings.packing), {}
    if several is not None:
        windows, options = labelled(several, settings)
    keras.utils.set_random_seed(0)
    with distribution.make_strategy(strategy).scope():
        model = build(family, tokenizer, 16, **sizes, **options)
        network = network_of(prepared(model, settings), settings)
    path = f"{folder}/{checkpoints}"
    result = training.train(network, windows, windows, settings, path)
    losses = [row["loss"] for row in [*result.history, *result.evaluations]]
    last_weight = network.get_weights()[-1].ravel().tolist()
    return [*losses, result.eval_loss, *last_weight]


curves = {}
for number, (name, family, settings) in enumerate(cases):
    curves[name] = [
        train("one_device", family, f"{number}-one", **settings),
        train("mirrored", family, f"{number}-two", **settings),
    ]
    if name == "resumed":
        train("mirrored", family, "parts", **{**settings, "steps": 3})
        curves[name].append(train("mirrored", family, "parts", **settings))
print(json.dumps(curves))
"""
CASES = {
    "compiled": ("lstm", {"jit_compile": True}),
    "clipped, lines": (
        "tcn",
        {
            "clip_norm": 0.1,
            "precision": "float16",
            "packing": "lines",
            "augmentation": {"token_dropout": 0.2},
        },
    ),
    "smoothed, averaged": (
        "transformer",
        {
            "label_smoothing": 0.1,
            "packing": "best_fit",
            "ema_momentum": 0.9,
            "early_stopping_patience": 2,
        },
    ),
    "muon, decaying cautiously": (
        "rnn",
        {
            "optimizer": "muon",
            "cautious_decay": True,
            "average_last": 0.5,
            "repack": True,
        },
    ),
    "schedule-free, labels, changed texts": (
        "gated_conv",
        {
            "optimizer": "schedule_free_adamw",
            "several": False,
            "classifier": {
                "class_weights": {"x": 3.0},
                "random_swap": 0.2,
                "random_deletion": 0.2,
            },
        },
    ),
    "several labels, layers apart": (
        "gru",
        {
            "several": True,
            "classifier": {"class_weights": "balanced"},
            "layer_rates": {"recurrent_*": 0.5},
            "unfreeze": {"token_embedding": 3},
        },
    ),
    "resumed": ("rnn", {"schedule": "constant", "warmup_steps": 0}),
}


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """Losses, and the last weights, on one device and on two."""
    cases = [(name, *case) for name, case in CASES.items()]
    folder = tmp_path_factory.mktemp("curves")
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(cases)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=800,
    )
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_two_devices_learn_what_one_does(curves, case):
    one, *others = curves[case]
    for other in others:
        assert other == pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "{}",
        "not JSON",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_cluster_that_does_not_name_the_process_is_an_error(monkeypatch, value):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match="TF_CONFIG must name this process") as raised:
        distribution.make_strategy("multi_worker")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [None, "no-such-tpu"])
def test_a_tpu_that_is_not_there_is_an_error(monkeypatch, name):
    monkeypatch.delenv("TPU_NAME", raising=False)
    if name:
        monkeypatch.setenv("TPU_NAME", name)
    with pytest.raises(InputError, match="no TPU can be reached: set TPU_NAME"):
        distribution.make_strategy("tpu")


@pytest.mark.parametrize(
    ("variables", "strategy"),
    [
        ({}, "one_device"),
        ({"TPU_NAME": "local"}, "tpu"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'}, "multi_worker"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "one_device"),
    ],
)
def test_what_there_is_decides(monkeypatch, variables, strategy):
    for name in ("TPU_NAME", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distribution.wanted("auto") == strategy
    assert distribution.wanted("mirrored") == "mirrored"


def test_a_batch_that_cannot_be_dealt_out_is_an_error():
    distribution.check_batch_size(3, 1)
    with pytest.raises(InputError, match="batch_size 3 must be a multiple of the 2"):
        distribution.check_batch_size(3, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 3}, "batch_size 3 must be a multiple of the 2 devices"),
        ({"carry_state": True}, "carry_state needs one device.* auto is mirrored"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps needs one"),
    ],
)
def test_what_several_gpus_cannot_share_is_told_before_anything_runs(
    monkeypatch, settings, said
):
    two = [tf.config.LogicalDevice(f"GPU:{i}", "GPU") for i in range(2)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: two)
    with pytest.raises(InputError, match=said):
        distribution.check_devices(TrainerSettings(**settings))
    distribution.check_devices(TrainerSettings(strategy="one_device", **settings))
    distribution.check_devices(TrainerSettings())


def test_an_n_gram_model_is_counted_by_one_device(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    settings = {"training": {}, "train_files": [], "eval_files": []}
    paths = {"transform_graph": "", "checkpoints": ""}
    assert Job({"family": "ngram"}, **settings, **paths).strategy == "one_device"
    assert Job({"family": "lstm"}, **settings, **paths).strategy == "tpu"
