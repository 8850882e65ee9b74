"""Types that TFX lacks."""

from __future__ import annotations

from typing import Any, TypeAlias

from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

Artifacts: TypeAlias = dict[str, list[Artifact]]
"""What an executor is given, or gives, by the names of the component's interface."""
Properties: TypeAlias = dict[str, Any]
"""Parameters of a component, by name."""


class Tokenizer(Artifact):
    """A tokenizer, stored as a KerasHub preset in the artifact's folder.

    Kubeflow wants type names of the form `namespace.Name`, and TFX imports the class by
    that name there: `langzoo` finds it.
    """

    TYPE_NAME = "langzoo.Tokenizer"


def channels(
    kind: type[Artifact], *names: str, optional: bool = False
) -> dict[str, ChannelParameter]:
    """Inputs or outputs of one type in a component's interface."""
    return {name: ChannelParameter(type=kind, optional=optional) for name in names}


def parameters(
    kind: type, *names: str, optional: bool = False
) -> dict[str, ExecutionParameter]:
    """Parameters of one type in a component's interface."""
    return {name: ExecutionParameter(type=kind, optional=optional) for name in names}
