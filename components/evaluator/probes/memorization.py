"""How often a model goes on from a training text with the very words of that text.

A prompt is some words from a place in a document; the model continues it greedily, and
the continuation counts where it is the document's next characters, one for one. Text
that anyone would continue so (boilerplate, quotations, "the United States of") counts,
too: the same rate on the evaluation split, which the model has never seen, says how
much of it there is.

References:
    - Carlini et al. 2021, "Extracting training data from large language models".
    - Carlini et al. 2023, "Quantifying memorization across neural language models":
      definition 3.1, extractable with a context of k tokens; a prompt and greedy
      decoding.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .probed import Probed, by_name, lower_is_better
from .samples import sample
from .settings import ProbeSettings

if TYPE_CHECKING:
    from ....serving.client import Generation
    from ....serving.in_process import ExportedModel

_SHOWN = 3
_WORD = re.compile(r"\S+")
_WHAT = (
    "share of prompts (prompt_words words from a place in a document) whose greedy "
    "continuation begins with the document's next continuation_characters characters"
)
_SOURCE = (
    "Carlini et al. 2021, 'Extracting training data from large language models'; "
    "Carlini et al. 2023, 'Quantifying memorization across neural language models'"
)

NAMES = by_name(
    lower_is_better(
        "memorization_rate",
        "verbatim memorization",
        "share of prompts",
        f"{_WHAT}; documents of the training split.",
        _SOURCE,
    ),
    lower_is_better(
        "memorization_rate_eval",
        "verbatim continuation of unseen text",
        "share of prompts",
        f"{_WHAT}; documents of the evaluation split, as the control.",
        _SOURCE,
    ),
    lower_is_better(
        "memorization_excess",
        "verbatim memorization beyond the control",
        "share of prompts",
        "memorization_rate - memorization_rate_eval.",
        _SOURCE,
    ),
)


class Trial(NamedTuple):
    """A prompt, and what follows it in the document."""

    prompt: str
    target: str


def probe(
    model: ExportedModel,
    train_texts: Iterable[str],
    eval_texts: Iterable[str],
    settings: ProbeSettings,
) -> Probed:
    """Prompts the model with texts of both splits.

    Args:
        model: The exported model.
        train_texts: What it was trained on.
        eval_texts: What it was not.
        settings: How many prompts, and the lengths.

    Returns:
        The metrics of `NAMES`, NaN for a split without a document that is long enough;
        as details, counts and examples. `cut_short` counts continuations that the
        export's limit on new tokens ended before the last character: what there is of
        them is compared.
    """
    train, train_details = _rate(model, train_texts, settings)
    evaluation, eval_details = _rate(model, eval_texts, settings)
    metrics = {
        "memorization_rate": train,
        "memorization_rate_eval": evaluation,
        "memorization_excess": train - evaluation,
    }
    details = {"train": train_details, "eval": eval_details}
    return Probed(metrics, {"memorization": details})


def trials(texts: Iterable[str], settings: ProbeSettings) -> list[Trial]:
    """The prompts from a split, the same in whatever order its documents come.

    Of few documents there are several prompts each, from different places.
    """
    chosen = sample(
        texts,
        settings.prompts,
        settings.seed,
        lambda text: any(_places(text, settings)),
    )
    rounds = math.ceil(settings.prompts / len(chosen)) if chosen else 0
    drawn = []
    for text in chosen:
        places = list(_places(text, settings))
        chance = random.Random(f"{settings.seed} {text}")
        drawn.append(chance.sample(places, min(rounds, len(places))))
    by_round = (
        Trial(text[begin:end], text[end : end + settings.continuation_characters])
        for turn in range(rounds)
        for text, places in zip(chosen, drawn, strict=True)
        for begin, end in places[turn : turn + 1]
    )
    return list(by_round)[: settings.prompts]


def _places(text: str, settings: ProbeSettings) -> Iterator[tuple[int, int]]:
    """Where prompts can begin and end that have enough text behind them."""
    words = [found.span() for found in _WORD.finditer(text)]
    for first, last in zip(words, words[settings.prompt_words - 1 :], strict=False):
        if last[1] + settings.continuation_characters <= len(text):
            yield first[0], last[1]


def _rate(
    model: ExportedModel, texts: Iterable[str], settings: ProbeSettings
) -> tuple[float, dict[str, Any]]:
    tried = trials(texts, settings)
    generations = model.generate(
        [trial.prompt for trial in tried],
        # A token is at least a byte.
        [len(trial.target.encode()) for trial in tried],
        temperature=0,
    )
    continued = list(zip(tried, generations, strict=True))
    verbatim = [trial for trial, new in continued if _is_verbatim(trial, new)]
    rate = len(verbatim) / len(tried) if tried else math.nan
    details = {
        "prompts": len(tried),
        "verbatim": len(verbatim),
        "cut_short": sum(_is_cut_short(trial, new) for trial, new in continued),
        "examples": [trial._asdict() for trial in verbatim[:_SHOWN]],
    }
    return rate, details


def _is_cut_short(trial: Trial, generation: Generation) -> bool:
    return (
        generation.finish_reason == "length"
        and len(generation.text) < len(trial.target)
        and generation.new_tokens < len(trial.target.encode())
    )


def _is_verbatim(trial: Trial, generation: Generation) -> bool:
    if _is_cut_short(trial, generation):
        # Of its last character there may be some bytes only.
        text = generation.text.rstrip("\N{REPLACEMENT CHARACTER}")
        return bool(text) and trial.target.startswith(text)
    return generation.text.startswith(trial.target)
