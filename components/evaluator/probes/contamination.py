"""How much of the evaluation stands in the training data, exactly or nearly.

It is of the data alone, so that a rule of the gate can bound it. An ingestion has
measured it, by what its cleaning takes for near duplicates; of other documents these
are what cleaning has by default: of their runs of five words 80 % are common.

References:
    - Lee et al. 2022, "Deduplicating training data makes language models better".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from ...text_example_gen.records import Contamination
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


def probe(
    train_texts: Iterable[str],
    eval_texts: Iterable[str],
    known: Contamination | None = None,
) -> Probed:
    """Looks for the evaluation's texts in those of training.

    Args:
        train_texts: What a model was trained on.
        eval_texts: What it is evaluated on.
        known: What an ingestion has found, which spares the search.

    Returns:
        The metrics of `NAMES`, NaN where there is no text in either.
    """
    found = known or _searched(train_texts, eval_texts)
    if found is None:
        return Probed(dict.fromkeys(NAMES, math.nan), {})
    metrics = {
        "contamination": found.near / found.documents,
        "contamination_exact": found.exact / found.documents,
    }
    return Probed(metrics, {"contamination": found.model_dump()})


def _searched(
    train_texts: Iterable[str], eval_texts: Iterable[str]
) -> Contamination | None:
    from ...documents import batched
    from ...text_example_gen.contamination import Wanted, contamination, sample
    from ...text_example_gen.near_duplicates import MinHash

    texts = sample(eval_texts)
    wanted = Wanted(texts, MinHash())
    batches = iter(batched(train_texts))
    first = next(batches, None)
    if first is None or not texts:
        return None
    found = map(wanted.find_all, itertools.chain([first], batches))
    return contamination(itertools.chain.from_iterable(found), len(texts))
