"""Processes of a test, each a fork of one that has imported TFX already.

Containers of a rehearsal are as quick as pipelines in tests besides, and as little
checked.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection
from typing import IO, Any

import quick_beam
import unchecked
from hurried import hurry
from langzoo import cli
from langzoo.pipelines.kubeflow import container
from langzoo.pipelines.kubeflow.resources import Resources
from langzoo.pipelines.local import beam_worker

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",
        "langzoo.pipelines.pipeline",
        "langzoo.components.trainer.run",
        "langzoo.pipelines.local.beam_worker",
    ]
)
# Who starts one looks at the others, and each may be asked once how it ended.
_ONE = threading.Lock()


def run_forked(
    command: list[str], *, env: dict[str, str], cwd: Any, stdout: IO[bytes], **_: Any
) -> tuple[int, Resources]:
    """What `run_measured` does with a command of `container`, of which nothing is said.

    Its imports are those of the fork's parent, and so is what is read by them.
    """
    arguments = command[command.index(container.__name__) :]
    told = (arguments, env, str(cwd), stdout.name)
    with _ONE:
        fork = _FORKS.Process(target=_contained, args=told)
        fork.start()
    connection.wait([fork.sentinel])
    with _ONE:
        fork.join()
    return fork.exitcode, Resources()


def _contained(arguments: list[str], env: dict[str, str], cwd: str, log: str) -> None:
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(cwd)
    _begin(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = arguments
    with quick_beam.remembering(), unchecked.pipelines():
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


class Fork:
    """What `subprocess.Popen` is of a command of `langzoo`."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self._start(_commanded, words, env)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        with _ONE:
            self._process = _FORKS.Process(target=target, args=arguments)
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        connection.wait([self._process.sentinel])
        with _ONE:
            self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class BeamWorker(Fork):
    """What it is to Beam, which starts a worker process with it."""

    def __init__(self, command: str, *, shell: bool, env: dict[str, str]) -> None:
        self._start(_worked, env)


def _begin(env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    hurry()  # what is traced says so


def _commanded(words: list[str], env: dict[str, str]) -> None:
    _begin(env)
    with quick_beam.remembering(), unchecked.pipelines():
        cli.app(words)


def _worked(env: dict[str, str]) -> None:
    _begin(env)
    beam_worker.sdk_worker_main.main([beam_worker.__name__])
