"""Where the containers of a compiled pipeline run: a section of the configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from ...models.settings import Section, redacted

# Names of variables whose values nobody else should see, but for files that hold them.
_SECRET = re.compile(
    r"(?!.*_(FILE|PATH|DIR)$).*"
    r"(SECRET|PASSW|PASSPHRASE|(?<!APPLICATION_)CREDENTIAL|TOKEN(_|$)|"
    r"(^|_)PASS(_|$)|(^|_|API|ACCESS|PRIVATE)(?<!KMS_)KEY(_|$))",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether a variable's or an option's name says that its value is a secret."""
    return _SECRET.match(name) is not None


def _no_secrets(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if is_secret(name) or redacted(value) != value:
            raise ValueError(
                f"kubeflow: environment.{name} looks like a secret, which everybody "
                "could read in the compiled file: name one of the cluster's in secrets"
            )
    return environment


class TolerationSettings(Section):
    """A taint of nodes that a container may run on, as Kubernetes has it."""

    key: Annotated[str, Field(min_length=1)]
    """The taint's key."""
    operator: Literal["Equal", "Exists"] = "Exists"
    """Whether its value must be `value`, or may be any."""
    value: str = ""
    """What the taint's value is, with `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which of the key's taints; without, all."""


class ContainerSettings(Section):
    """Where a component runs on Kubeflow, and with what. What is not given here is as
    in `kubeflow`, and without that as the cluster has it."""

    image: Annotated[str, Field(min_length=1)] | None = None
    """An image with langzoo in it: see the Dockerfile."""
    cpu: Annotated[float, Field(gt=0)] | None = None
    """Cores at most."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Gigabytes of memory at most; what needs more is killed."""
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    """Resource of the cluster, such as `nvidia.com/gpu` or `google.com/tpu`."""
    accelerator_count: Annotated[int, Field(ge=1)] = 1
    """How many of it."""
    environment: Annotated[
        dict[str, str], Field(exclude=True), pydantic.AfterValidator(_no_secrets)
    ] = {}
    """Variables, on top of those of `kubeflow`. The compiled file shows them, so none
    may be a secret; the record of a run leaves them out."""
    secrets: dict[str, dict[str, str]] = {}
    """By name of a Secret of the cluster, the variables that its keys become, such as
    `{s3: {AWS_SECRET_ACCESS_KEY: secret-key}}`; on top of those of `kubeflow`."""
    retries: Annotated[int, Field(ge=0)] | None = None
    """How often a container that failed is started again; a training goes on from its
    last checkpoint then."""
    cache: bool | None = None
    """Whether an earlier result stands where inputs and parameters are the same; by
    default not, and the Evaluator's never. New files behind the same path are not seen
    then."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes that the container may run on."""
    tolerations: list[TolerationSettings] = []
    """Taints of nodes that it may run on all the same."""


class KubeflowSettings(ContainerSettings):
    """How the compiled pipeline runs: for all components, and for some of them.

    A Trainer on a GPU is `trainer: {accelerator: nvidia.com/gpu, image: ...}`.
    """

    volumes: dict[str, str] = {}
    """By name of a claim (PersistentVolumeClaim), the absolute path where all
    containers find it, such as `{models: /models}` for a push folder in it."""
    pipeline_root: (
        Annotated[str, Field(pattern=r"^(gs|s3|minio)://[^/=]+(/[^/=]+)*$")] | None
    ) = None
    """What Kubeflow takes for the place of artifacts, such as the store that it brings
    along, `minio://mlpipeline/v2/artifacts`. They lie in `root`, which is then a folder
    on a volume. Without it they lie where `root`, an address itself, says."""
    text_example_gen: ContainerSettings = ContainerSettings()
    statistics_gen: ContainerSettings = ContainerSettings()
    schema_gen: ContainerSettings = ContainerSettings()
    example_validator: ContainerSettings = ContainerSettings()
    tokenizer_trainer: ContainerSettings = ContainerSettings()
    transform: ContainerSettings = ContainerSettings()
    tuner: ContainerSettings = ContainerSettings()
    trainer: ContainerSettings = ContainerSettings()
    ngram_trainer: ContainerSettings = ContainerSettings()
    evaluator: ContainerSettings = ContainerSettings()
    serving_validator: ContainerSettings = ContainerSettings()
    pusher: ContainerSettings = ContainerSettings()

    def of(self, component: str) -> ContainerSettings:
        """What holds for a component.

        Args:
            component: Its name, such as `TextExampleGen`.
        """
        key = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", component).lower()
        own: ContainerSettings = getattr(self, key)
        inherited: dict[str, Any] = {
            name: getattr(self, name)
            for name in ContainerSettings.model_fields
            if name not in own.model_fields_set
        }
        if "accelerator" in own.model_fields_set:
            inherited.pop("accelerator_count", None)
        changes: dict[str, Any] = {
            "environment": {**self.environment, **own.environment},
            "secrets": {
                secret: {**self.secrets.get(secret, {}), **own.secrets.get(secret, {})}
                for secret in {**self.secrets, **own.secrets}
            },
        }
        if component == "Evaluator":
            # Which model was blessed last is not among its parameters.
            changes |= {"cache": False}
        return own.model_copy(update={**inherited, **changes})

    @pydantic.model_validator(mode="after")
    def _paths_are_absolute(self) -> KubeflowSettings:
        for claim, path in self.volumes.items():
            if not path.startswith("/"):
                raise ValueError(
                    f"kubeflow.volumes.{claim} {path!r} must be an absolute path"
                )
        return self
