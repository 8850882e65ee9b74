"""What the server does with a request, whichever protocol brought it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from google.protobuf import any_pb2
from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from ..errors import ServingError
from .repository import ModelRepository, VersionStatus, not_found
from .servable import Servable

METADATA_FIELD = "signature_def"


@dataclass(frozen=True)
class ModelSpec:
    """The model that a request names: the newest version unless it says otherwise."""

    name: str
    version: int | None = None
    label: str | None = None


class ServerCore:
    """Answers requests from the models it holds.

    Messages and codes of errors are those of TensorFlow Serving's `server_core.cc`,
    `get_model_status_impl.cc` and `get_model_metadata_impl.cc`.

    Args:
        repositories: the models by name.
    """

    def __init__(self, repositories: Mapping[str, ModelRepository]) -> None:
        self._repositories = repositories

    def use(self, spec: ModelSpec) -> AbstractContextManager[Servable]:
        """Holds the version that a request means, while it is answered.

        Raises:
            ServingError: there is no such model, version or label.
        """
        if not spec.name:
            raise _invalid("ModelSpec has no name specified.")
        if spec.label is not None:
            raise _invalid(f"Unrecognized servable version label: {spec.label}")
        repository = self._repositories.get(spec.name)
        if repository is None:
            raise not_found(spec.name, spec.version)
        return repository.use(spec.version)

    def status(self, spec: ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions, or of the one that is named."""
        repository = self._repositories.get(spec.name)
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


def _invalid(message: str) -> ServingError:
    return ServingError(StatusCode.INVALID_ARGUMENT, message)
