"""Training by several processes equals training by one, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time

import psutil
import pytest
from forked_containers import Fork
from langzoo.cli import EXIT_REFUSED
from langzoo.components.trainer.records import TrainingResult


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def member(index, ports):
    """The environment of a process of the cluster."""
    workers = [f"localhost:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    return os.environ | {
        "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})
    }


def training_of(process):
    """The process that trains for another."""
    while True:
        for child in psutil.Process(process.pid).children(recursive=True):
            if "langzoo.components.trainer.workers" in child.cmdline():
                return child
        assert process.poll() is None


def newest_result(root):
    paths = root.glob("demo/artifacts/Trainer/model_run/*/training.json")
    path = max(paths, key=lambda path: path.stat().st_mtime)
    return TrainingResult.read(str(path.parent))


def test_two_processes_of_which_one_dies_train_what_one_does(first, settings):
    config, run, _ = first
    root, expected = config.folder.parent, run.training
    changes = [
        "trainer.checkpoint_steps=10",
        "gate.max_bits_per_byte=0.1",  # so that no other test meets the model
    ]
    changes += ["trainer.strategy=multi_worker"]
    options = [f"--set={setting}" for setting in (*settings, *changes)]
    ports = free_ports(2)
    # With what has been trained, nothing would be left to do.
    shutil.rmtree(root / "demo" / "checkpoints")
    chief = Fork(["run", *options], env=member(0, ports))
    worker = Fork(["worker", *options], env=member(1, ports))
    try:
        while not list(root.glob("demo/checkpoints/*/ckpt-*.index")):
            assert chief.poll() is None
            time.sleep(0.05)
        training_of(worker).kill()
        assert worker.wait() == 0
        assert chief.wait() == EXIT_REFUSED
    finally:
        for process in (chief, worker):
            process.kill()
            process.wait()
    result = newest_result(root)
    assert result.resumed_at > 0
    assert result.steps == expected.steps
    assert result.eval_loss == pytest.approx(expected.eval_loss, abs=1e-3)
    assert result.history[-1]["loss"] == pytest.approx(
        expected.history[-1]["loss"], abs=1e-3
    )
    (left,) = root.glob("demo/checkpoints/*/ckpt-*.index")
    assert left.name == f"ckpt-{result.steps}.index"
