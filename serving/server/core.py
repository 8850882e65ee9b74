"""What the server does with a request, whichever protocol brought it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from ..errors import ServingError, invalid
from . import inference
from .base_path import Reload
from .caller import Caller
from .metrics import Metrics
from .models import Models
from .repository import VersionStatus, not_found
from .servable import Servable

METADATA_FIELD = "signature_def"
# In metrics, for all models that a request names and that there are not.
NO_MODEL = "(none)"


@dataclass(frozen=True)
class ModelSpec:
    """The model that a request names: the newest version unless it says otherwise."""

    name: str
    version: int | None = None
    label: str | None = None

    @classmethod
    def of(cls, spec: model_pb2.ModelSpec) -> ModelSpec:
        """The same as a message says it."""
        choice = spec.WhichOneof("version_choice")
        return cls(
            spec.name,
            version=spec.version.value if choice == "version" else None,
            label=spec.version_label if choice == "version_label" else None,
        )


class ServerCore:
    """Answers requests from the models it holds.

    Messages and codes of errors are those of TensorFlow Serving's `server_core.cc`,
    `get_model_status_impl.cc` and `get_model_metadata_impl.cc`.

    Args:
        models: the models.
        metrics: counts the requests.
        outputs_as_content: pack outputs of Predict as bytes, not as typed values.
        reload: what a request may change of the configuration.
    """

    def __init__(
        self,
        models: Models,
        metrics: Metrics,
        *,
        outputs_as_content: bool = False,
        reload: Reload = Reload.CONFINED,
    ) -> None:
        self._models = models
        self._reload = reload
        self.metrics = metrics
        self._outputs_as_content = outputs_as_content

    def use(self, spec: ModelSpec) -> AbstractContextManager[Servable]:
        """Holds the version that a request means, while it is answered.

        Raises:
            ServingError: there is no such model, version or label.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        version = spec.version
        if spec.label is not None:
            version = self._models.labelled(spec.name, spec.label)
        repository = self._models.get(spec.name)
        if repository is None:
            raise not_found(spec.name, version)
        return repository.use(version)

    @contextlib.contextmanager
    def counted(self, name: str, api: str, entrypoint: str) -> Iterator[None]:
        """Counts a request of a model and, if it is answered, the time it takes."""
        start, status = time.perf_counter(), "INTERNAL"
        try:
            yield
            status = "OK"
        except ServingError as error:
            status = error.code.name
            raise
        finally:
            # Or a client could make up names until the memory is full.
            label = name if self._models.get(name) is not None else NO_MODEL
            self.metrics.requests.add(label, status)
            if status == "OK":
                micros = (time.perf_counter() - start) * 1e6
                self.metrics.request_latency.add(label, api, entrypoint, value=micros)

    def predict(
        self, request: predict_pb2.PredictRequest, caller: Caller
    ) -> predict_pb2.PredictResponse:
        """PredictionService.Predict."""

        def answer(
            servable: Servable, request: predict_pb2.PredictRequest, caller: Caller
        ) -> predict_pb2.PredictResponse:
            as_content = self._outputs_as_content
            return inference.predict(servable, request, caller, as_content=as_content)

        return self._infer("Predict", answer, request, caller)

    def classify(self, request: Any, caller: Caller) -> Any:
        """PredictionService.Classify."""
        return self._infer("Classify", inference.classify, request, caller)

    def regress(self, request: Any, caller: Caller) -> Any:
        """PredictionService.Regress."""
        return self._infer("Regress", inference.regress, request, caller)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, caller: Caller
    ) -> inference_pb2.MultiInferenceResponse:
        """PredictionService.MultiInference, of the model that its first task names."""
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self.use(ModelSpec.of(spec)) as servable:
            response = inference.multi_inference(servable, request, caller)
        kind = request.input.WhichOneof("kind")
        count = len(getattr(request.input, kind).examples) if kind else 0
        self.metrics.example_counts.add(spec.name, value=count)
        self.metrics.examples.add(spec.name, count=count)
        return response

    def _infer(
        self, api: str, answer: Callable[..., Any], request: Any, caller: Caller
    ) -> Any:
        require_spec(request)
        spec = ModelSpec.of(request.model_spec)
        with (
            self.counted(spec.name, api, "GRPC"),
            self.use(spec) as servable,
            self.running(spec.name, api),
        ):
            return answer(servable, request, caller)

    @contextlib.contextmanager
    def running(self, name: str, api: str) -> Iterator[None]:
        """Measures the time in the model, reading and writing of tensors included."""
        start = time.perf_counter()
        yield
        micros = (time.perf_counter() - start) * 1e6
        self.metrics.runtime_latency.add(name, api, "TF1", value=micros)

    def status(self, spec: ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions, or of the one that is named."""
        repository = self._models.get(spec.name)
        statuses = repository.statuses() if repository else []
        if spec.version is not None:
            statuses = [s for s in statuses if s.version == spec.version]
        if not statuses:
            what = "any versions" if spec.version is None else f"version {spec.version}"
            raise ServingError(
                StatusCode.NOT_FOUND, f"Could not find {what} of model {spec.name}"
            )
        return get_model_status_pb2.GetModelStatusResponse(
            model_version_status=[_status_proto(status) for status in statuses]
        )

    def metadata(
        self, spec: ModelSpec
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        with self.use(spec) as servable:
            signatures = get_model_metadata_pb2.SignatureDefMap(
                signature_def=servable.definitions
            )
            version = servable.version
        packed = any_pb2.Any()
        packed.Pack(signatures)
        response = get_model_metadata_pb2.GetModelMetadataResponse(
            metadata={METADATA_FIELD: packed}
        )
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        return response

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, timeout: float | None
    ) -> model_management_pb2.ReloadConfigResponse:
        """Takes another configuration, and waits for its new models to load.

        Raises:
            ServingError: it is refused, or a new model does not become available.
        """
        if self._reload is Reload.OFF:
            raise ServingError(
                StatusCode.PERMISSION_DENIED,
                "HandleReloadConfigRequest is off in this server; --config_reload says "
                "what it may do",
            )
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        before = self.metrics.counts(request.metric_names)
        confined = self._reload is Reload.CONFINED
        self._models.configure(request.config, timeout, confined=confined)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        for name, count in self.metrics.counts(request.metric_names).items():
            response.metric.add(name=name, int64_value_increase=count - before[name])
        return response


def require_spec(request: Any) -> None:
    """Raises `ServingError` for a request that names no model."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _status_proto(status: VersionStatus) -> get_model_status_pb2.ModelVersionStatus:
    proto = get_model_status_pb2.ModelVersionStatus(
        version=status.version, state=status.state.value
    )
    # Set even where it says that all is well, so that REST shows it.
    proto.status.SetInParent()
    if status.error is not None:
        proto.status.error_code = status.error.code.value[0]
        proto.status.error_message = status.error.message
    return proto
