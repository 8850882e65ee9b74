"""How much what a classifier says of a text depends on what should not matter to it.

The shift of two texts is the largest difference between the probabilities that they
give one label: with two labels, that of either. Where a text may have several labels,
each has a probability of its own.

References:
    - Garg et al. 2019, "Counterfactual fairness in text classification through
      robustness": the mean absolute difference between counterfactuals.
    - Ribeiro et al. 2020, "Beyond accuracy: behavioral testing of NLP models with
      CheckList": that an answer must not change with typing errors or group words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .perturbations import PERTURBATIONS, perturbed
from .probed import Probed, by_name, lower_is_better, mean
from .settings import ProbeSettings
from .templates import Pair, read_pairs

if TYPE_CHECKING:
    from ....serving.client import Classification
    from ....serving.in_process import ExportedModel

_SHOWN = 5
_SHIFT = "the largest difference of a label's probability"
_CHECKLIST = (
    "Ribeiro et al. 2020, 'Beyond accuracy: behavioral testing of NLP models with "
    "CheckList'"
)
_GARG = (
    "Garg et al. 2019, 'Counterfactual fairness in text classification through "
    "robustness'"
)

ROBUSTNESS = by_name(
    *(
        metric
        for name, what in PERTURBATIONS.items()
        for metric in (
            lower_is_better(
                f"{name}_label_shift",
                f"shift of the label, {name}",
                "probability",
                f"mean of {_SHIFT} between a text and the same perturbed. "
                f"Perturbation: {what}.",
                _CHECKLIST,
            ),
            lower_is_better(
                f"{name}_label_flips",
                f"other labels, {name}",
                "share of documents",
                "share of the texts of which another label, or others, are said when "
                f"perturbed. Perturbation: {what}.",
                _CHECKLIST,
            ),
        )
    )
)
COUNTERFACTUAL = by_name(
    lower_is_better(
        "counterfactual_label_gap",
        "counterfactual gap of the label",
        "probability",
        f"mean of {_SHIFT} over pairs of sentences that differ in one group word.",
        _GARG,
    ),
    lower_is_better(
        "counterfactual_label_largest_group_gap",
        "largest group's counterfactual gap of the label",
        "probability",
        "counterfactual_label_gap of the pairs of each group of the template file; the "
        "largest of these.",
        _GARG,
    ),
    lower_is_better(
        "counterfactual_label_flips",
        "other labels by a group word",
        "share of pairs",
        "share of these pairs of which not the same label, or labels, are said.",
        _CHECKLIST,
    ),
)


class Shift(NamedTuple):
    """What changes from one text to another.

    `label` is that whose probability does most, `before` and `after` are these; `flips`
    is whether another answer is given.
    """

    label: str
    before: float
    after: float
    flips: bool

    @property
    def size(self) -> float:
        """By how much the probability changes."""
        return abs(self.after - self.before)

    @classmethod
    def of(cls, first: Classification, second: Classification, several: bool) -> Shift:
        """The shift of two texts, which may have `several` labels, or one."""
        before, after = (_by_label(one) for one in (first, second))
        label = max(sorted(before), key=lambda name: abs(after[name] - before[name]))
        flips = _said(first, several) != _said(second, several)
        return cls(label, before[label], after[label], flips)


def robustness(
    model: ExportedModel, texts: Iterable[str], settings: ProbeSettings
) -> Probed:
    """Classifies a sample of texts as they are and perturbed.

    Args:
        model: The exported model.
        texts: Documents, of which some are taken, and of these the beginning.
        settings: How many, how much of them, and the rates.

    Returns:
        The metrics of `ROBUSTNESS`, NaN without documents; as details, for each
        perturbation the text that it shifts most.
    """
    clean, changed = perturbed(texts, settings)
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {"documents": len(clean)}
    for name, others in changed.items():
        shifts = _shifts(model, list(zip(clean, others, strict=True)))
        metrics[f"{name}_label_shift"] = mean(shift.size for shift in shifts)
        metrics[f"{name}_label_flips"] = mean(shift.flips for shift in shifts)
        largest = sorted(zip(shifts, others, strict=True), key=_largest_first)
        details[name] = [
            {"text": text[:200], **shift._asdict()} for shift, text in largest[:1]
        ]
    return Probed(metrics, {"robustness": details})


def counterfactual(model: ExportedModel, settings: ProbeSettings) -> Probed:
    """Compares the sentences of the template file.

    Args:
        model: The exported model.
        settings: Names the file.

    Returns:
        The metrics of `COUNTERFACTUAL`; as details, each group's numbers and the pairs
        with the largest gaps.

    Raises:
        InputError: The template file cannot be read or is malformed.
    """
    pairs = read_pairs(settings.templates)
    shifts = _shifts(model, [pair.sentences for pair in pairs])
    found = list(zip(shifts, pairs, strict=True))
    groups = {
        name: _summary([shift for shift, pair in found if pair.group == name])
        for name in dict.fromkeys(pair.group for pair in pairs)
    }
    overall = _summary(shifts)
    metrics = {
        "counterfactual_label_gap": overall["mean_gap"],
        "counterfactual_label_largest_group_gap": max(
            group["mean_gap"] for group in groups.values()
        ),
        "counterfactual_label_flips": overall["flips"],
    }
    largest = [
        {
            "group": pair.group,
            "sentences": list(pair.sentences),
            **shift._asdict(),
        }
        for shift, pair in sorted(found, key=_largest_first)[:_SHOWN]
    ]
    details = {"groups": groups, "largest": largest}
    return Probed(metrics, {"counterfactual": details})


def _shifts(model: ExportedModel, pairs: Sequence[tuple[str, str]]) -> list[Shift]:
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    said = dict(zip(texts, model.classify(texts), strict=True))
    [info] = model.label_info()
    return [
        Shift.of(said[first], said[second], info.multi_label) for first, second in pairs
    ]


def _by_label(said: Classification) -> dict[str, float]:
    return dict(zip(said.labels, said.probabilities, strict=True))


def _said(said: Classification, several: bool) -> set[str]:
    """The answer: the likeliest label, or those above a half."""
    if not several:
        return {said.labels[0]}
    return {label for label, share in _by_label(said).items() if share > 0.5}


def _largest_first(found: tuple[Shift, str | Pair]) -> float:
    return -found[0].size


def _summary(shifts: Sequence[Shift]) -> dict[str, Any]:
    return {
        "pairs": len(shifts),
        "mean_gap": mean(shift.size for shift in shifts),
        "flips": mean(shift.flips for shift in shifts),
    }
