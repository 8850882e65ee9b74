"""The metrics of models that adapt to each document while they score it.

They are those of the log-likelihood, by the name of how a model adapts: `cache_...` and
`dynamic_...`. Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ....models.tasks.adaptation.settings import AdaptSettings
from . import causal_lm
from .metric import Metric
from .sums import ADAPTED, CorpusSums

_HOW = {
    "cache": "mixed with a cache over the document so far (gate.adapt.cache)",
    "dynamic": "with a gradient step on each segment of the document once it is scored "
    "(gate.adapt.dynamic)",
}
_SOURCES = {
    "cache": 'Grave et al. 2017, "Improving neural language models with a continuous '
    'cache"',
    "dynamic": 'Krause et al. 2018, "Dynamic evaluation of neural sequence models"',
}
_OF_THE_LIKELIHOOD = (
    *("bits_per_byte", "bits_per_character", "perplexity", "word_perplexity"),
)


@dataclasses.dataclass(frozen=True)
class _Instead(CorpusSums):
    """Sums whose `nll` is another column of them."""

    nll: str

    def __getitem__(self, name: str) -> np.ndarray:
        return super().__getitem__(self.nll if name == "nll" else name)


def _adapted(metric: Metric, how: str) -> Metric:
    def compute(sums: CorpusSums) -> np.ndarray:
        return metric.values(_Instead(sums.blocks, nll=ADAPTED[how]))

    return dataclasses.replace(
        metric,
        name=f"{how}_{metric.name}",
        definition=f"{metric.name} of the model {_HOW[how]}.",
        source=_SOURCES[how],
        compute=compute,
    )


METRICS: dict[str, tuple[Metric, ...]] = {
    how: tuple(
        _adapted(metric, how)
        for metric in causal_lm.METRICS
        if metric.name in _OF_THE_LIKELIHOOD
    )
    for how in AdaptSettings.model_fields
}
"""By how a model adapts, a field of `AdaptSettings`."""
