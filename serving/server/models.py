"""The models that a server has: which, where their versions lie, and their labels.

Configurations are those of TensorFlow Serving's `ModelServerConfig`; codes and messages
of errors are those of its `server_core.cc`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from grpc import StatusCode
from tensorflow_serving.config.model_server_config_pb2 import (
    TENSORFLOW,
    ModelConfig,
    ModelServerConfig,
)

from ..errors import ServingError, invalid
from ..protocol import State
from .base_path import lies_within, refusal
from .repository import All, Latest, ModelRepository, Policy, Specific

PLATFORM = "tensorflow"


def single_model(name: str, base_path: str) -> ModelServerConfig:
    """The configuration of a server with one model, of which the newest serves."""
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=base_path, model_platform=PLATFORM
    )
    return config


class Models:
    """The models of a server by name; a new configuration may change them at any time.

    Args:
        create: makes the repository of a model from its name, base path and policy.
        labels_in_advance: lets a label that is new point to a version that is not
            loaded yet.
    """

    def __init__(
        self,
        create: Callable[[str, Path, Policy], ModelRepository],
        *,
        labels_in_advance: bool = False,
    ) -> None:
        self._create = create
        self._labels_in_advance = labels_in_advance
        self._changing = threading.Lock()
        self._config = ModelServerConfig()
        self._roots: frozenset[str] = frozenset()
        # Replaced, never changed, so that requests read them without a lock.
        self._repositories: Mapping[str, ModelRepository] = {}
        self._labels: Mapping[str, Mapping[str, int]] = {}

    def get(self, name: str) -> ModelRepository | None:
        """The model of this name, if there is one."""
        return self._repositories.get(name)

    def labelled(self, name: str, label: str) -> int:
        """The version that a label of a model means.

        Raises:
            ServingError: INVALID_ARGUMENT, if there is no such label.
        """
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise invalid(f"Unrecognized servable version label: {label}")
        return version

    def configure(
        self,
        config: ModelServerConfig,
        timeout: float | None = 0,
        *,
        confined: bool = False,
    ) -> None:
        """Serves the models of this configuration from now on, and no others.

        Args:
            config: all models.
            timeout: seconds to wait for those that are new; None waits for ever.
            confined: refuse what takes a model away, or brings one from outside of the
                base paths that were configured without this.

        Raises:
            ServingError: the configuration is refused, and nothing has changed; or a
                new model has not become available (UNKNOWN), and is still tried.
        """
        with self._changing:
            kind = config.WhichOneof("config")
            if kind is None:
                return
            if kind != "model_config_list":
                raise invalid("ModelServer does not yet support custom model config.")
            self._check(config)
            models = config.model_config_list.config
            if confined:
                self._confine(models)
            else:
                self._roots = frozenset(model.base_path for model in models)
            labels = self._new_labels(config)
            added = self._replace(config)
            self._config.CopyFrom(config)
            self._labels = labels
        if timeout != 0:
            _await_models(added, timeout)

    def wait_available(self, timeout: float | None = None) -> bool:
        """Waits until every model has a version to use; False if one has none in time.

        Models that have no versions yet are waited for as well.
        """
        return self._wait_all(ModelRepository.wait_available, timeout)

    def wait_settled(self, timeout: float | None = None) -> bool:
        """Waits until every model has been tried; False if one has not in time."""
        return self._wait_all(ModelRepository.wait_settled, timeout)

    def _wait_all(
        self,
        wait: Callable[[ModelRepository, float | None], bool],
        timeout: float | None,
    ) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        return all(
            wait(repository, _left(deadline))
            for repository in list(self._repositories.values())
        )

    def failures(self) -> list[str]:
        """What keeps each model from serving that has failed to load."""
        return [
            _unavailable(repository)
            for repository in list(self._repositories.values())
            if not repository.wait_available(0)
            and any(status.error for status in repository.statuses())
        ]

    def available(self) -> bool:
        """Whether there are models, and every one has a version to use."""
        repositories = list(self._repositories.values())
        return bool(repositories) and all(r.wait_available(0) for r in repositories)

    def close(self, timeout: float | None = None) -> None:
        """Unloads all models, for whose threads it waits `timeout` seconds together."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changing:
            repositories, self._repositories = self._repositories, {}
        for repository in repositories.values():
            repository.close(_left(deadline))

    def _check(self, config: ModelServerConfig) -> None:
        names: set[str] = set()
        for model in config.model_config_list.config:
            if model.name in names:
                raise invalid(
                    f"Illegal to list model {model.name} multiple times in config list"
                )
            names.add(model.name)
        for model in config.model_config_list.config:
            path = model.base_path
            if trouble := refusal(path):
                raise invalid(f"Model {model.name}: {trouble}")
            if not path.startswith("/"):
                raise invalid(
                    f"Expected model {model.name} to have an absolute path or URI; "
                    f"got base_path()={path}"
                )
            platform = _platform(model)
            if platform != PLATFORM:
                raise invalid(
                    f"Model {model.name} requests unsupported platform {platform}"
                )
            if model.HasField("logging_config"):
                raise invalid(
                    f"Model {model.name}: logging_config: No request-logger-creator "
                    "provided."
                )

    def _confine(self, models: Collection[ModelConfig]) -> None:
        wanted = {model.name: model for model in models}
        for name, repository in self._repositories.items():
            model = wanted.get(name)
            if model is None or Path(model.base_path) != repository.base_path:
                raise _denied(f"model {name} would go from {repository.base_path}")
            if not repository.offers(_policy(model)):
                raise _denied(f"no version of model {name} would be left")
        for model in models:
            if not lies_within(model.base_path, self._roots):
                raise _denied(
                    f"{model.base_path} of model {model.name} lies outside of the base "
                    "paths that this server was started with"
                )

    def _new_labels(self, config: ModelServerConfig) -> dict[str, dict[str, int]]:
        labels = {}
        for model in config.model_config_list.config:
            labels[model.name] = dict(model.version_labels)
            for label, version in model.version_labels.items():
                before = self._labels.get(model.name, {}).get(label, version)
                if self._labels_in_advance and before == version:
                    continue
                if not self._is_available(model.name, version):
                    raise ServingError(
                        StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model "
                        f"{model.name}, which is not currently available for inference",
                    )
        return labels

    def _is_available(self, name: str, version: int) -> bool:
        repository = self._repositories.get(name)
        statuses = repository.statuses() if repository else []
        return any(
            status.version == version and status.state is State.AVAILABLE
            for status in statuses
        )

    def _replace(self, config: ModelServerConfig) -> list[ModelRepository]:
        """Starts, changes and stops repositories; gives those that are new."""
        repositories, added = {}, []
        for model in config.model_config_list.config:
            path, policy = Path(model.base_path), _policy(model)
            repository = self._repositories.get(model.name)
            if repository is None:
                repository = self._create(model.name, path, policy)
                added.append(repository)
            else:
                repository.reconfigure(path, policy)
            repositories[model.name] = repository
        before, self._repositories = self._repositories, repositories
        for repository in added:
            repository.start()
        for name, repository in before.items():
            if name not in repositories:
                repository.retire()
        return added


def _denied(what: str) -> ServingError:
    return ServingError(
        StatusCode.PERMISSION_DENIED,
        f"HandleReloadConfigRequest: {what}; --config_reload=any allows it",
    )


def _await_models(added: list[ModelRepository], timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    missing = []
    for repository in added:
        repository.wait_settled(_left(deadline))
        if not repository.wait_available(0):
            missing.append(_unavailable(repository))
    if missing:
        raise not_available(missing)


def _unavailable(repository: ModelRepository) -> str:
    name = repository.name
    errors = [
        f"{{name: {name} version: {status.version} due to error: "
        f"{status.error.code.name}: {status.error.message}}}, "
        for status in repository.statuses()
        if status.error is not None
    ]
    return "".join(errors) or f"{{name: {name}}}, "


def not_available(models: list[str]) -> ServingError:
    """The error for models that do not load."""
    return ServingError(
        StatusCode.UNKNOWN,
        f"{len(models)} model(s) did not become available: {{{''.join(models)}}}",
    )


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _platform(model: ModelConfig) -> str:
    if model.model_type:
        if model.model_platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                f"ModelServerConfig::model_platform, model name is {model.name}"
            )
        if model.model_type != TENSORFLOW:
            raise invalid(
                f"ModelServerConfig::model_type choice {model.model_type} not "
                "supported."
            )
        return PLATFORM
    if not model.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    return model.model_platform


def _policy(model: ModelConfig) -> Policy:
    choice = model.model_version_policy.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(frozenset(model.model_version_policy.specific.versions))
    return Latest(max(1, model.model_version_policy.latest.num_versions))
