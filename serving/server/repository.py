"""Follows the base path of a model and keeps the versions loaded that it should.

A version is a folder with a number for its name and a SavedModel inside; all else is
left alone. A policy says which of them serve: the newest, unless it is told
otherwise. A version that goes does so only after one that is wanted has loaded, and is
unloaded when its last request is answered, so that no request ever fails on account of
a change.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grpc import StatusCode

from ..errors import ServingError
from ..export.contract import SAVED_MODEL_FILE
from ..protocol import State
from .servable import Servable, load_servable

_logger = logging.getLogger(__name__)
_VERSION_NAME = re.compile(r"[0-9]+", re.ASCII)
_LARGEST_VERSION = 2**63 - 1  # of an int64
# What TensorFlow loads a SavedModel from.
SAVED_MODEL_FILES = (SAVED_MODEL_FILE, "saved_model.pbtxt")


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, and the error that ended it, if one did."""

    version: int
    state: State
    error: ServingError | None = None


@dataclass(frozen=True)
class Latest:
    """Serves the newest versions, as many as `count`."""

    count: int = 1

    def choose(self, versions: Collection[int]) -> list[int]:
        """The versions that should serve, the newest first."""
        return sorted(versions, reverse=True)[: self.count]


@dataclass(frozen=True)
class All:
    """Serves every version."""

    def choose(self, versions: Collection[int]) -> list[int]:
        """The versions that should serve, the newest first."""
        return sorted(versions, reverse=True)


@dataclass(frozen=True)
class Specific:
    """Serves the versions with these numbers."""

    numbers: frozenset[int]

    def choose(self, versions: Collection[int]) -> list[int]:
        """The versions that should serve, the newest first."""
        return sorted(self.numbers.intersection(versions), reverse=True)


Policy = Latest | All | Specific


@dataclass(frozen=True)
class Retries:
    """How often a version that failed to load is tried again, and after what pause.

    Beyond that it is tried again when its files have changed.
    """

    count: int = 5
    pause_seconds: float = 60.0


@dataclass
class _Failure:
    fingerprint: object
    attempts: int
    retry_at: float


class Listener(Protocol):
    """What a repository tells as it goes; called from its own thread."""

    def waiting(self) -> None:
        """The base path holds no version."""

    def unreadable(self, error: OSError) -> None:
        """The base path cannot be read."""

    def changed(self, status: VersionStatus) -> None:
        """A version has come into another state."""


class _Entry:
    """A loaded version, and how many requests use it."""

    def __init__(self, servable: Servable) -> None:
        self.servable = servable
        self.users = 0


class ModelRepository:
    """The versions of one model.

    Args:
        name: the name that requests call the model by.
        base_path: the folder of its version folders. It need not exist yet.
        listener: is told what happens.
        poll_seconds: how long to wait between two looks at the base path; 0 looks once.
        policy: which versions serve.
        retries: of versions that fail to load.
        load: loads the version of a number from its folder, ready to answer.
        files: one of these makes a folder a version.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        listener: Listener,
        *,
        poll_seconds: float = 1.0,
        policy: Policy = Latest(),
        retries: Retries = Retries(),
        load: Callable[[int, Path], Servable] = load_servable,
        files: Sequence[str] = SAVED_MODEL_FILES,
    ) -> None:
        self.name = name
        self.base_path = base_path
        self._listener = listener
        self._poll_seconds = poll_seconds
        self._policy = policy
        self._retries = retries
        self._load = load
        self._files = files
        # Guards what follows, and wakes the thread and those who wait for a version.
        self._condition = threading.Condition()
        self._available: dict[int, _Entry] = {}
        self._retired: list[_Entry] = []
        self._statuses: dict[int, VersionStatus] = {}
        self._closing = False
        self._draining = False
        self._changed = False
        self._looks = 0
        # Only the thread touches these.
        self._failed: dict[int, _Failure] = {}
        self._told: object = None
        self._thread = threading.Thread(
            target=self._follow, name=f"langzoo-versions-{name}", daemon=True
        )

    def start(self) -> None:
        """Starts to follow the base path, in a thread."""
        self._thread.start()

    def reconfigure(self, base_path: Path, policy: Policy) -> None:
        """Follows another base path, or by another policy, from now on."""
        with self._condition:
            if (base_path, policy) == (self.base_path, self._policy):
                return
            self.base_path, self._policy = base_path, policy
            self._changed = True
            self._condition.notify_all()

    def offers(self, policy: Policy) -> bool:
        """Whether a policy would choose a version, if there are any to choose from."""
        try:
            found = find_versions(self.base_path, self._files)
        except OSError:
            return True
        return not found or bool(policy.choose(found))

    def retire(self) -> None:
        """Stops following; unloads each version when its last request is answered."""
        with self._condition:
            self._retire_all_but([])
            self._closing = self._draining = True
            self._condition.notify_all()

    def close(self, timeout: float | None = None) -> None:
        """Stops following and unloads everything, even what is in use."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        with self._condition:
            self._retire_all_but([])
            entries, self._retired = self._retired, []
        for entry in entries:
            self._unload(entry)

    @contextlib.contextmanager
    def use(self, version: int | None = None) -> Iterator[Servable]:
        """Holds a loaded version, the newest if none is named, for one request.

        Raises:
            ServingError: NOT_FOUND, if it is not loaded.
        """
        with self._condition:
            wanted = max(self._available, default=None) if version is None else version
            entry = None if wanted is None else self._available.get(wanted)
            if entry is None:
                raise not_found(self.name, version)
            entry.users += 1
        try:
            yield entry.servable
        finally:
            with self._condition:
                entry.users -= 1
                if not entry.users:
                    self._condition.notify_all()

    def statuses(self) -> list[VersionStatus]:
        """All versions this repository has ever tried, by number."""
        with self._condition:
            return [status for _, status in sorted(self._statuses.items())]

    def wait_available(self, timeout: float | None = None) -> bool:
        """Waits until a version can be used; False if none came in time."""
        with self._condition:
            return self._condition.wait_for(lambda: bool(self._available), timeout)

    def wait_settled(self, timeout: float | None = None) -> bool:
        """Waits until it has looked at its base path and tried what it found there.

        That is: a version can be used, or one has failed, or there is none.
        """
        with self._condition:
            return self._condition.wait_for(
                lambda: bool(self._available) or self._looks > 0 or self._closing,
                timeout,
            )

    def _follow(self) -> None:
        # A negative interval never looks, as in TensorFlow Serving.
        next_poll = time.monotonic() if self._poll_seconds >= 0 else None
        while not self._closing:
            if next_poll is not None and time.monotonic() >= next_poll:
                next_poll = self._look()
            self._unload_unused()
            with self._condition:
                pause = None if next_poll is None else next_poll - time.monotonic()
                self._condition.wait_for(
                    lambda: (
                        self._closing
                        or self._changed
                        or any(not e.users for e in self._retired)
                    ),
                    pause,
                )
                if self._changed:
                    self._changed = False
                    next_poll = time.monotonic()
        if self._draining:
            with self._condition:
                self._retire_all_but([])
                self._condition.wait_for(
                    lambda: not any(e.users for e in self._retired)
                )
            self._unload_unused()

    def _look(self) -> float | None:
        """Looks at the base path; gives the time of the next look, if there is one."""
        try:
            self._poll()
        except Exception:
            # Whatever it was, what serves now goes on, and the next look may go well.
            _logger.exception("looking for versions of %s failed", self.name)
        with self._condition:
            self._looks += 1
            self._condition.notify_all()
        if self._poll_seconds > 0:
            return time.monotonic() + self._poll_seconds
        # One look is enough, but what failed to load is still tried again.
        retries = [failure.retry_at for failure in self._failed.values()]
        return min((at for at in retries if at < math.inf), default=None)

    def _poll(self) -> None:
        with self._condition:
            base_path, policy = self.base_path, self._policy
        try:
            found = find_versions(base_path, self._files)
        except FileNotFoundError:
            # It may come, or come back: what is loaded stays.
            if not self._available:
                self._tell(None)
            return
        except OSError as error:
            self._tell(error)
            return
        if not found:
            with self._condition:
                self._retire_all_but([])
            self._tell(None)
            return
        self._told = None
        wanted = policy.choose(found)
        for version in wanted:
            if self._closing or self._changed:
                return
            self._aspire(version, found[version])
        with self._condition:
            # What serves stays until something that is wanted can take its place.
            if not wanted or any(version in self._available for version in wanted):
                self._retire_all_but(wanted)
        self._failed = {v: f for v, f in self._failed.items() if v in wanted}

    def _tell(self, error: OSError | None) -> None:
        """Tells the listener why nothing loads, unless it was the last thing told."""
        reason = "waiting" if error is None else str(error)
        if reason == self._told:
            return
        self._told = reason
        if error is None:
            self._listener.waiting()
        else:
            self._listener.unreadable(error)

    def _aspire(self, version: int, path: Path) -> None:
        if version in self._available:
            return
        if self._take_back(version):
            return
        failure = self._failed.get(version)
        fingerprint = _fingerprint(path)
        if failure is not None:
            if failure.fingerprint != fingerprint:
                failure = None
            elif time.monotonic() < failure.retry_at:
                return
        self._change(VersionStatus(version, State.LOADING))
        try:
            servable = self._load_or_explain(version, path)
        except ServingError as error:
            attempts = 1 if failure is None else failure.attempts + 1
            self._failed[version] = _Failure(
                fingerprint, attempts, self._retry_at(attempts)
            )
            self._change(VersionStatus(version, State.END, error))
            return
        self._failed.pop(version, None)
        self._make_available(_Entry(servable))

    def _load_or_explain(self, version: int, path: Path) -> Servable:
        try:
            return self._load(version, path)
        except ServingError:
            raise
        except Exception as error:
            _logger.exception("loading version %d of %s failed", version, self.name)
            message = f"{type(error).__name__}: {error}"
            raise ServingError(StatusCode.INTERNAL, message) from error

    def _retry_at(self, attempts: int) -> float:
        if attempts > self._retries.count:
            return math.inf
        return time.monotonic() + max(0.0, self._retries.pause_seconds)

    def _take_back(self, version: int) -> bool:
        """Lets a version serve again that is only kept for its last requests."""
        with self._condition:
            entries = [e for e in self._retired if e.servable.version == version]
            self._retired = [e for e in self._retired if e not in entries]
        for entry in entries:
            self._make_available(entry)
        return bool(entries)

    def _make_available(self, entry: _Entry) -> None:
        status = VersionStatus(entry.servable.version, State.AVAILABLE)
        with self._condition:
            self._available[status.version] = entry
            self._statuses[status.version] = status
            self._condition.notify_all()
        self._listener.changed(status)

    def _retire_all_but(self, keep: Collection[int]) -> None:
        for version in [v for v in self._available if v not in keep]:
            self._retired.append(self._available.pop(version))
            self._statuses[version] = VersionStatus(version, State.UNLOADING)

    def _unload_unused(self) -> None:
        with self._condition:
            unused = [entry for entry in self._retired if not entry.users]
            self._retired = [entry for entry in self._retired if entry.users]
        for entry in unused:
            self._unload(entry)
        if unused:
            # A graph and its operations refer to each other.
            del entry, unused
            gc.collect()

    def _unload(self, entry: _Entry) -> None:
        entry.servable.close()
        self._change(VersionStatus(entry.servable.version, State.END))

    def _change(self, status: VersionStatus) -> None:
        with self._condition:
            self._statuses[status.version] = status
            self._condition.notify_all()
        self._listener.changed(status)


def not_found(name: str, version: int | None) -> ServingError:
    """The error for a model or a version that is not loaded."""
    request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return ServingError(
        StatusCode.NOT_FOUND, f"Servable not found for request: {request}"
    )


def find_versions(
    base_path: Path, files: Sequence[str] = SAVED_MODEL_FILES
) -> dict[int, Path]:
    """The version folders in a base path that hold one of the files, by number."""
    return {
        int(folder.name): folder
        for folder in sorted(base_path.iterdir())
        if _VERSION_NAME.fullmatch(folder.name)
        and int(folder.name) <= _LARGEST_VERSION
        and any((folder / file).is_file() for file in files)
    }


def _fingerprint(path: Path) -> object:
    """Changes whenever a file of the folder does."""
    try:
        stats = [(str(file), file.stat()) for file in sorted(path.rglob("*"))]
    except OSError:
        return time.monotonic()  # a file went while we looked: it is changing
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
