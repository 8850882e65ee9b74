"""The convolutional families: gated CNN and temporal convolutional network.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import Field

from ...learning.recipe import Recipe
from ..family import Counts, Family, NetworkSettings, Preset, ResidualSettings


class GatedConvSettings(ResidualSettings):
    """A gated convolutional network."""

    num_layers: Annotated[int, Field(ge=1)] = 6
    """Blocks."""
    hidden_dim: Annotated[int, Field(ge=1)] = 128
    """Width of the residual stream."""
    kernel_size: Annotated[int, Field(ge=2)] = 4
    """Positions that a convolution sees, so that the network sees
    `num_layers * (kernel_size - 1) + 1`."""
    bottleneck_dim: Annotated[int, Field(ge=1)] | None = None
    """Width of the convolutions, between two of kernel size 1 that come from and go to
    `hidden_dim`. Without, there are no bottlenecks."""

    def counts(self, vocabulary_size: int) -> Counts:
        width = self.bottleneck_dim
        if width is None:
            products = self.kernel_size * self.hidden_dim * self.hidden_dim
            outputs = self.hidden_dim
        else:
            products = width * (2 * self.hidden_dim + self.kernel_size * width)
            outputs = 2 * width + self.hidden_dim
        return Counts(
            # Twice, for values and gates.
            products=self.num_layers * 2 * products + vocabulary_size * self.hidden_dim,
            others=self.num_layers * (2 * outputs + self.hidden_dim)
            + self.hidden_dim
            + self.ngram_weights(self.hidden_dim)
            + self.scale_weights(self.num_layers),
        )


class TCNSettings(NetworkSettings):
    """A temporal convolutional network."""

    num_layers: Annotated[int, Field(ge=1)] = 4
    """Blocks, of dilations 1, 2, 4, ..."""
    hidden_dim: Annotated[int, Field(ge=1)] = 128
    """Width of the embeddings and of the last block."""
    filters: Annotated[int, Field(ge=1)] | None = None
    """Width of all blocks but the last, where it is not `hidden_dim`."""
    kernel_size: Annotated[int, Field(ge=2)] = 3
    """Positions that a convolution sees, so that the network sees
    `1 + 2 * (kernel_size - 1) * (2**num_layers - 1)`."""

    def resolved(self) -> TCNSettings:
        return self.model_copy(update={"filters": self.filters or self.hidden_dim})

    @property
    def widths(self) -> list[int]:
        """Channels that each block gives."""
        filters = self.filters or self.hidden_dim
        return [filters] * (self.num_layers - 1) + [self.hidden_dim]

    def counts(self, vocabulary_size: int) -> Counts:
        inputs = self.hidden_dim
        products, others = vocabulary_size * inputs, inputs + self.ngram_weights(inputs)
        for outputs in self.widths:
            products += self.kernel_size * (inputs + outputs) * outputs
            others += 4 * outputs  # gain and bias of two convolutions
            if inputs != outputs:
                products += inputs * outputs
                others += outputs
            inputs = outputs
        return Counts(products, others)


def _space(num_layers: list[int], kernel_size: list[int]) -> dict[str, Any]:
    """What a search tries: these sizes, and what goes for both families."""
    return {
        "trainer.learning_rate": {"min": 0.001, "max": 0.015, "sampling": "log"},
        "model.num_layers": num_layers,
        "model.kernel_size": kernel_size,
        "model.hidden_dim": [128, 192],
        "model.dropout": {"min": 0.0, "max": 0.2, "step": 0.1},
    }


_gated_conv = functools.partial(Preset.of, GatedConvSettings, "gated_conv")
_tcn = functools.partial(Preset.of, TCNSettings, "tcn")

GATED_CONV = Family(
    name="gated_conv",
    settings=GatedConvSettings,
    backbone="langzoo.models.families.convolutional.backbone:GatedConvBackbone",
    recipe=Recipe(learning_rate=4e-3),
    presets={
        "gated_conv_tiny": _gated_conv(),
        "gated_conv_small": _gated_conv(256, 8192, num_layers=8, hidden_dim=384),
        "gated_conv_base": _gated_conv(
            *(512, 32_000, "Dauphin et al., 2017, GCNN-8"),
            num_layers=8,
            hidden_dim=900,
            kernel_size=4,
        ),
    },
    search_space=_space([4, 6, 8], [3, 4, 5]),
    keeps_documents_apart=True,
)
TCN = Family(
    name="tcn",
    settings=TCNSettings,
    backbone="langzoo.models.families.convolutional.backbone:TCNBackbone",
    recipe=Recipe(learning_rate=4e-3),
    presets={
        "tcn_tiny": _tcn(),
        "tcn_small": _tcn(256, 8192, num_layers=6, hidden_dim=384, kernel_size=3),
        "tcn_base": _tcn(
            *(80, 10_000, "Bai et al., 2018, Penn Treebank"),
            num_layers=4,
            hidden_dim=600,
            kernel_size=3,
        ),
    },
    search_space=_space([3, 4, 5], [2, 3, 5]),
    keeps_documents_apart=True,
)
