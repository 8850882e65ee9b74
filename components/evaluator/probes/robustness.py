"""How much worse a model predicts a text when its characters change, but not its words.

Bytes change with the text: an upper-case "ß" is two letters, a typing error one byte
more or less. So there are two denominators, and both are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..measures.metric import Metric
from .perturbations import PERTURBATIONS, perturbed
from .probed import Probed, by_name, lower_is_better
from .settings import ProbeSettings

if TYPE_CHECKING:
    from ....serving.in_process import ExportedModel

_SOURCE = (
    "Belinkov and Bisk 2018, 'Synthetic and natural noise both break neural machine "
    "translation'; Pruthi et al. 2019, 'Combating adversarial misspellings'; bits per "
    "byte: Gao et al. 2020, 'The Pile', section 3.1"
)


def _metrics(name: str, what: str) -> tuple[Metric, ...]:
    bits = "sum of (nll + spelling_nll) / ln 2 of the perturbed texts"
    return (
        lower_is_better(
            f"{name}_bits_per_byte",
            f"bits per byte, {name}",
            "bits per byte of the perturbed text",
            f"{bits} / their bytes in UTF-8. Perturbation: {what}.",
            _SOURCE,
        ),
        lower_is_better(
            f"{name}_bits_per_original_byte",
            f"bits per original byte, {name}",
            "bits per byte of the original text",
            f"{bits} / bytes in UTF-8 of the texts before. Perturbation: {what}.",
            _SOURCE,
        ),
        lower_is_better(
            f"{name}_ratio",
            f"bits per byte, {name} to clean",
            "1",
            f"{name}_bits_per_byte / bits per byte of the same texts as they are; 1 "
            "where the model does not mind.",
            _SOURCE,
        ),
    )


NAMES = by_name(
    *(metric for name, what in PERTURBATIONS.items() for metric in _metrics(name, what))
)


def probe(
    model: ExportedModel, texts: Iterable[str], settings: ProbeSettings
) -> Probed:
    """Scores a sample of texts as they are and perturbed.

    Args:
        model: The exported model.
        texts: Documents, of which some are taken, and of these the beginning.
        settings: How many, how much of them, and the rates.

    Returns:
        The metrics of `NAMES`, NaN without documents; as details, bits and bytes.
    """
    clean, changed = perturbed(texts, settings)
    bits, original_bytes = _sums(model, clean)
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {
        "documents": len(clean),
        "clean": {"bits": bits, "bytes": original_bytes},
    }
    for name, others in changed.items():
        perturbed_bits, perturbed_bytes = _sums(model, others)
        per_byte = _ratio(perturbed_bits, perturbed_bytes)
        metrics[f"{name}_bits_per_byte"] = per_byte
        metrics[f"{name}_bits_per_original_byte"] = _ratio(
            perturbed_bits, original_bytes
        )
        metrics[f"{name}_ratio"] = _ratio(per_byte, _ratio(bits, original_bytes))
        details[name] = {
            "bits": perturbed_bits,
            "bytes": perturbed_bytes,
            "example": others[0][:200] if others else "",
        }
    return Probed(metrics, {"robustness": details})


def _sums(model: ExportedModel, texts: list[str]) -> tuple[float, int]:
    scores = model.score(texts)
    return math.fsum(score.bits for score in scores), sum(s.bytes for s in scores)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
