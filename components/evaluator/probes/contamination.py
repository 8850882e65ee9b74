"""How much of the evaluation stands in the training data, exactly or nearly.

It is of the data alone, so that a rule of the gate can bound it. Near duplicates are
those of cleaning with its defaults: of their runs of five words 80 % are common.

References:
    - Lee et al. 2022, "Deduplicating training data makes language models better".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from .probed import Probed, by_name, lower_is_better

_SOURCE = "Lee et al. 2022, 'Deduplicating training data makes language models better'"

NAMES = by_name(
    lower_is_better(
        "contamination",
        "contamination",
        "share of documents",
        "share of the evaluation's documents (a sample of 4 MB at most) of which the "
        "training split has an equal or near duplicate.",
        _SOURCE,
    ),
    lower_is_better(
        "contamination_exact",
        "exact contamination",
        "share of documents",
        "share of the evaluation's documents (likewise) that the training split has.",
        _SOURCE,
    ),
)


def probe(train_texts: Iterable[str], eval_texts: Iterable[str]) -> Probed:
    """Looks for the evaluation's texts in those of training, one after the other.

    Args:
        train_texts: What a model was trained on.
        eval_texts: What it is evaluated on.

    Returns:
        The metrics of `NAMES`, NaN where there is no text in either.
    """
    from ...text_example_gen.contamination import Wanted, contamination, sample
    from ...text_example_gen.near_duplicates import MinHash

    texts = sample(eval_texts)
    wanted = Wanted(texts, MinHash())
    train = iter(train_texts)
    first = next(train, None)
    if first is None or not texts:
        return Probed(dict.fromkeys(NAMES, math.nan), {})
    found = contamination(
        (
            pair
            for text in itertools.chain([first], train)
            for pair in wanted.find(text)
        ),
        len(texts),
    )
    metrics = {
        "contamination": found.near / found.documents,
        "contamination_exact": found.exact / found.documents,
    }
    return Probed(metrics, {"contamination": found.model_dump()})
