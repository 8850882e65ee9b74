"""Versions that come and go while the server runs."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
from google.protobuf import text_format
from langzoo.serving.errors import ServingError
from langzoo.serving.server.repository import (
    ModelRepository,
    Retries,
    Specific,
    State,
    VersionStatus,
)
from langzoo.serving.server.servable import Servable, load_servable
from tensorflow.core.protobuf import saved_model_pb2

Push = Callable[[Path, Path, int], None]
ScaleModel = Callable[[int], Path]


class Log:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.waits = 0
        self.unreadables: list[OSError] = []
        self.changes: list[tuple[int, State]] = []

    def waiting(self) -> None:
        self.waits += 1

    def unreadable(self, error: OSError) -> None:
        self.unreadables.append(error)

    def changed(self, status: VersionStatus) -> None:
        self.changes.append((status.version, status.state))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def repository(tmp_path: Path, log: Log) -> Iterator[ModelRepository]:
    """Not started yet, of the base path `tmp_path / "base"`, which is there."""
    (tmp_path / "base").mkdir()
    repository = ModelRepository("scale", tmp_path / "base", log, poll_seconds=0.02)
    yield repository
    repository.close(timeout=30)


def await_state(
    repository: ModelRepository, version: int, state: State
) -> VersionStatus:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for status in repository.statuses():
            if (status.version, status.state) == (version, state):
                return status
        time.sleep(0.01)
    raise AssertionError(f"version {version} is not {state}: {repository.statuses()}")


def polls(repository: ModelRepository) -> None:
    """Waits for as long as the repository needs to look several times."""
    time.sleep(0.2)


def factor(repository: ModelRepository, version: int | None = None) -> float:
    with repository.use(version) as servable:
        signature = servable.signature()
        assert signature is not None
        outputs = signature.run({"x": np.float32([1]), "offset": np.float32([0])})
        return float(outputs["y"][0])


def test_the_newest_version_is_loaded_and_no_other(
    repository: ModelRepository, scale_model: ScaleModel, push: Push
) -> None:
    push(scale_model(2), repository.base_path, 2)
    push(scale_model(1), repository.base_path, 10)
    repository.start()
    assert repository.wait_available(30)
    assert factor(repository) == 1
    assert repository.statuses() == [VersionStatus(10, State.AVAILABLE)]


def test_versions_change_under_load_without_a_failed_request(
    repository: ModelRepository, scale_model: ScaleModel, push: Push
) -> None:
    models = [scale_model(1), scale_model(2)]
    push(models[0], repository.base_path, 1)
    repository.start()
    assert repository.wait_available(30)
    stop = threading.Event()
    wrong: list[object] = []
    answers: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                with repository.use() as servable:
                    signature = servable.signature()
                    assert signature is not None
                    y = signature.run({"x": np.float32([1])})["y"][0] - 2
                    if y != 2 - servable.version % 2:
                        wrong.append((servable.version, y))
                    answers.append(servable.version)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(2, 6):
        push(models[(version - 1) % 2], repository.base_path, version)
        await_state(repository, version, State.AVAILABLE)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert set(answers) >= {1, 4}
    for version in range(1, 5):
        await_state(repository, version, State.END)


def test_an_old_version_stays_until_its_last_request_is_answered(
    repository: ModelRepository, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), repository.base_path, 1)
    repository.start()
    assert repository.wait_available(30)
    with repository.use() as servable:
        push(scale_model(2), repository.base_path, 2)
        await_state(repository, 2, State.AVAILABLE)
        await_state(repository, 1, State.UNLOADING)
        assert factor(repository) == 2
        signature = servable.signature()
        assert signature is not None
        assert signature.run({"x": np.float32([1])})["y"][0] == 3
        assert (1, State.END) not in log.changes
    await_state(repository, 1, State.END)


def test_a_version_that_does_not_load_is_reported_and_the_old_one_goes_on(
    repository: ModelRepository, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), repository.base_path, 1)
    repository.start()
    assert repository.wait_available(30)
    broken = repository.base_path / "2"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"garbage")
    error = await_state(repository, 2, State.END).error
    assert error is not None
    assert error.code is grpc.StatusCode.DATA_LOSS
    assert "saved_model.pb" in error.message
    assert factor(repository) == 1
    with pytest.raises(ServingError, match=r"Specific\(scale, 2\)"):
        factor(repository, version=2)
    polls(repository)
    assert log.changes.count((2, State.LOADING)) == 1


def test_a_version_without_its_variables_does_not_load(
    repository: ModelRepository, scale_model: ScaleModel, push: Push
) -> None:
    push(scale_model(1), repository.base_path, 1)
    for file in (repository.base_path / "1" / "variables").iterdir():
        file.unlink()
    repository.start()
    assert await_state(repository, 1, State.END).error is not None


def test_a_version_that_did_not_load_is_tried_again_when_its_files_change(
    repository: ModelRepository, scale_model: ScaleModel
) -> None:
    version = repository.base_path / "1"
    version.mkdir()
    (version / "saved_model.pb").write_bytes(b"garbage")
    repository.start()
    await_state(repository, 1, State.END)
    shutil.copytree(scale_model(2), version, dirs_exist_ok=True)
    await_state(repository, 1, State.AVAILABLE)
    assert factor(repository) == 2


def test_versions_go_up_to_the_largest_int64_and_models_may_be_text(
    repository: ModelRepository, scale_model: ScaleModel, push: Push
) -> None:
    largest = 2**63 - 1
    push(scale_model(1), repository.base_path, largest)
    push(scale_model(2), repository.base_path, largest + 1)
    binary = repository.base_path / str(largest) / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    binary.with_suffix(".pbtxt").write_text(text_format.MessageToString(model))
    binary.unlink()
    repository.start()
    assert repository.wait_available(30)
    assert repository.statuses() == [VersionStatus(largest, State.AVAILABLE)]
    assert factor(repository, largest) == 1


def test_what_is_no_complete_version_is_left_alone(
    repository: ModelRepository, scale_model: ScaleModel, push: Push
) -> None:
    push(scale_model(1), repository.base_path, 1)
    half_copied = repository.base_path / "2"
    shutil.copytree(scale_model(2), half_copied)
    (half_copied / "saved_model.pb").unlink()
    for name in ("3.tmp", ".unfinished-4", "-5", "v6", "\u0667", "9" * 200):
        shutil.copytree(scale_model(2), repository.base_path / name)
    (repository.base_path / "8").write_text("a file")
    repository.start()
    assert repository.wait_available(30)
    polls(repository)
    assert repository.statuses() == [VersionStatus(1, State.AVAILABLE)]


def test_a_version_that_is_taken_away_gives_way_to_the_one_before(
    repository: ModelRepository, scale_model: ScaleModel, push: Push
) -> None:
    push(scale_model(1), repository.base_path, 1)
    push(scale_model(2), repository.base_path, 2)
    repository.start()
    assert repository.wait_available(30)
    shutil.rmtree(repository.base_path / "2")
    await_state(repository, 1, State.AVAILABLE)
    await_state(repository, 2, State.END)
    assert factor(repository) == 1


def test_a_version_comes_back_while_its_last_request_is_answered(
    repository: ModelRepository, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), repository.base_path, 1)
    repository.start()
    assert repository.wait_available(30)
    with repository.use():
        push(scale_model(2), repository.base_path, 2)
        await_state(repository, 2, State.AVAILABLE)
        shutil.rmtree(repository.base_path / "2")
        await_state(repository, 1, State.AVAILABLE)
    await_state(repository, 2, State.END)
    polls(repository)
    assert factor(repository) == 1
    assert log.changes.count((1, State.LOADING)) == 1


def test_it_waits_for_the_base_path_and_for_a_first_version(
    repository: ModelRepository, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    repository.base_path.rmdir()
    repository.start()
    polls(repository)
    with pytest.raises(ServingError, match=r"Latest\(scale\)"):
        factor(repository)
    repository.base_path.mkdir()
    polls(repository)
    assert log.waits == 1
    push(scale_model(1), repository.base_path, 1)
    await_state(repository, 1, State.AVAILABLE)


def test_it_goes_on_while_the_base_path_is_gone(
    repository: ModelRepository, scale_model: ScaleModel, push: Push
) -> None:
    push(scale_model(1), repository.base_path, 1)
    repository.start()
    assert repository.wait_available(30)
    repository.base_path.rename(repository.base_path.with_name("elsewhere"))
    polls(repository)
    assert factor(repository) == 1


def test_a_base_path_that_cannot_be_read_is_told_once(
    repository: ModelRepository, log: Log
) -> None:
    repository.base_path.rmdir()
    repository.base_path.write_text("a file")
    repository.start()
    polls(repository)
    assert [type(error) for error in log.unreadables] == [NotADirectoryError]


def test_a_poll_interval_of_zero_looks_once(
    tmp_path: Path, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), tmp_path, 1)
    repository = ModelRepository("scale", tmp_path, log, poll_seconds=0)
    repository.start()
    assert repository.wait_available(30)
    push(scale_model(2), tmp_path, 2)
    time.sleep(0.2)
    assert repository.statuses() == [VersionStatus(1, State.AVAILABLE)]
    repository.close(timeout=30)
    assert repository.statuses() == [VersionStatus(1, State.END)]


def test_another_policy_holds_at_once(
    tmp_path: Path, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), tmp_path, 1)
    push(scale_model(2), tmp_path, 2)
    repository = ModelRepository("scale", tmp_path, log, poll_seconds=0)
    repository.start()
    assert repository.wait_available(30)
    assert factor(repository) == 2
    repository.reconfigure(tmp_path, Specific(frozenset([1])))
    await_state(repository, 1, State.AVAILABLE)
    await_state(repository, 2, State.END)
    assert factor(repository) == 1
    repository.close(timeout=30)


class Moody:
    """Loads a version, but fails as often as it is told to before."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.attempts: list[float] = []

    def __call__(self, version: int, path: Path) -> Servable:
        self.attempts.append(time.monotonic())
        if len(self.attempts) <= self.failures:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, "the disk is away")
        return load_servable(version, path)


def test_a_failed_load_is_tried_again_after_a_pause(
    tmp_path: Path, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), tmp_path, 1)
    load = Moody(failures=2)
    # One look has to be enough: what failed is tried again all the same.
    repository = ModelRepository(
        "scale", tmp_path, log, poll_seconds=0, retries=Retries(5, 0.1), load=load
    )
    repository.start()
    assert repository.wait_available(30)
    first, second, third = load.attempts
    assert min(second - first, third - second) >= 0.1
    assert log.changes.count((1, State.END)) == 2
    repository.close(timeout=30)


def test_an_error_that_nobody_thought_of_is_reported_like_any_other(
    tmp_path: Path, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), tmp_path, 1)

    def load(version: int, path: Path) -> Servable:
        raise KeyError(version)

    repository = ModelRepository("scale", tmp_path, log, poll_seconds=0.02, load=load)
    repository.start()
    error = await_state(repository, 1, State.END).error
    assert error is not None
    assert (error.code, error.message) == (grpc.StatusCode.INTERNAL, "KeyError: 1")
    polls(repository)
    assert log.changes.count((1, State.LOADING)) == 1
    repository.close(timeout=30)


def test_a_load_that_fails_for_good_is_given_up_and_reported(
    tmp_path: Path, scale_model: ScaleModel, push: Push, log: Log
) -> None:
    push(scale_model(1), tmp_path, 1)
    load = Moody(failures=1000)
    repository = ModelRepository(
        "scale", tmp_path, log, poll_seconds=0.02, retries=Retries(2, 0.02), load=load
    )
    repository.start()
    deadline = time.monotonic() + 30
    while len(load.attempts) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    polls(repository)
    assert len(load.attempts) == 3
    [status] = repository.statuses()
    assert status.state is State.END
    assert status.error is not None
    assert status.error.message == "the disk is away"
    with pytest.raises(ServingError, match=r"Latest\(scale\)"):
        factor(repository)
    repository.close(timeout=30)
