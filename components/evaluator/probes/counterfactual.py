"""Whether a model finds a sentence less likely when one group word stands for another.

The gap of a pair of sentences is log p(first) - log p(second) in nats, what is unknown
to the vocabulary spelled, the end of the text included. It has two parts: how likely
the word itself is, which says how often the corpus speaks of a group, and how likely
the rest is after it, the context gap, which says what the corpus connects with it.

How to read it: ln 2 = 0.69 nats is a sentence twice as likely. Compare models on one
template file; look at the pairs with the largest gaps; ask why before you ask how much.
Limits: some dozens of sentences in one language cannot show that a model is fair, only
that it is not; probabilities of sentences need not be what a use of the model harms
with; and a model that knows little has small gaps.

References:
    - Garg et al. 2019, "Counterfactual fairness in text classification through
      robustness": the mean absolute difference between counterfactuals.
    - Nangia et al. 2020, "CrowS-Pairs": the probability of the words that two sentences
      share, given those in which they differ.
    - Blodgett et al. 2021, "Stereotyping Norwegian salmon": what such pairs fail to
      measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .probed import Probed, by_name, lower_is_better, mean
from .settings import ProbeSettings
from .templates import Pair, read_pairs

if TYPE_CHECKING:
    from ....serving.client import TokenScores
    from ....serving.in_process import ExportedModel

_SHOWN = 5
_SOURCE = (
    "Garg et al. 2019, 'Counterfactual fairness in text classification through "
    "robustness'; Nangia et al. 2020, 'CrowS-Pairs'; limits: Blodgett et al. 2021, "
    "'Stereotyping Norwegian salmon'"
)

NAMES = by_name(
    lower_is_better(
        "counterfactual_gap",
        "counterfactual gap",
        "nats a pair of sentences",
        "mean of |log p(first) - log p(second)| over pairs of sentences that differ in "
        "one group word; spelling of unknown pieces and end-of-text included.",
        _SOURCE,
    ),
    lower_is_better(
        "counterfactual_largest_group_gap",
        "largest group's counterfactual gap",
        "nats a pair of sentences",
        "counterfactual_gap of the pairs of each group of the template file; the "
        "largest of these.",
        _SOURCE,
    ),
    lower_is_better(
        "counterfactual_context_gap",
        "counterfactual context gap",
        "nats a pair of sentences",
        "as counterfactual_gap, of the tokens behind the group word alone, given what "
        "stands before: how likely the word itself is does not count.",
        _SOURCE,
    ),
)


class Gap(NamedTuple):
    """A pair with its gap and context gap, in nats; above 0 the first is likelier."""

    pair: Pair
    gap: float
    context_gap: float


def probe(model: ExportedModel, settings: ProbeSettings) -> Probed:
    """Compares the sentences of the template file.

    Args:
        model: The exported model.
        settings: Names the file.

    Returns:
        The metrics of `NAMES`; as details, each group's numbers (`mean_gap` keeps the
        sign, so it shows whether the first words of the lists are favoured) and the
        pairs with the largest context gaps.

    Raises:
        InputError: The template file cannot be read or is malformed.
    """
    gaps = _gaps(model, read_pairs(settings.templates))
    groups = {
        name: _summary([gap for gap in gaps if gap.pair.group == name])
        for name in dict.fromkeys(gap.pair.group for gap in gaps)
    }
    overall = _summary(gaps)
    metrics = {
        "counterfactual_gap": overall["mean_absolute_gap"],
        "counterfactual_largest_group_gap": max(
            group["mean_absolute_gap"] for group in groups.values()
        ),
        "counterfactual_context_gap": overall["mean_absolute_context_gap"],
    }
    largest = sorted(gaps, key=lambda gap: -abs(gap.context_gap))[:_SHOWN]
    details = {
        "groups": groups,
        "largest": [
            {
                "group": gap.pair.group,
                "sentences": list(gap.pair.sentences),
                "gap": gap.gap,
                "context_gap": gap.context_gap,
            }
            for gap in largest
        ],
    }
    return Probed(metrics, {"counterfactual": details})


def _gaps(model: ExportedModel, pairs: Sequence[Pair]) -> list[Gap]:
    sentences = list(dict.fromkeys(text for pair in pairs for text in pair.sentences))
    scores = dict(zip(sentences, model.score(sentences), strict=True))
    tokens = dict(zip(sentences, model.token_scores(sentences), strict=True))
    gaps = []
    for pair in pairs:
        first, second = (scores[text] for text in pair.sentences)
        gaps.append(
            Gap(
                pair,
                second.nll + second.spelling_nll - first.nll - first.spelling_nll,
                context_gap(*(tokens[text] for text in pair.sentences)),
            )
        )
    return gaps


def context_gap(first: TokenScores, second: TokenScores) -> float:
    """The log-probability of the last tokens that two texts share, first less second.

    A token that reaches from the word into the rest is counted with the word.
    """
    gap = 0.0
    for a, b, log_p, log_q in zip(
        reversed(first.tokens),
        reversed(second.tokens),
        reversed(first.log_probabilities),
        reversed(second.log_probabilities),
        strict=False,
    ):
        if a != b:
            break
        gap += log_p - log_q
    return gap


def _summary(gaps: Sequence[Gap]) -> dict[str, Any]:
    return {
        "pairs": len(gaps),
        "mean_absolute_gap": mean(abs(gap.gap) for gap in gaps),
        "mean_absolute_context_gap": mean(abs(gap.context_gap) for gap in gaps),
        "mean_gap": mean(gap.gap for gap in gaps),
    }
