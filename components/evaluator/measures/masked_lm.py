"""The metrics of masked language models, as functions of the corpus sums.

Of a document the export hides 15 % of the tokens, at places that a hash of its text
decides: `nll` and `tokens` are of these. So no metric depends on chance, or on what
training has hidden.
"""

from __future__ import annotations

import numpy as np

from ....models.tasks import MASKED_LM
from .causal_lm import (
    exp,
    expected_calibration_error,
    token_accuracy,
    token_accuracy_at_5,
)
from .metric import of_function, ratio
from .sums import CorpusSums


def nats_per_masked_token(sums: CorpusSums) -> np.ndarray:
    """nll / tokens: nats of a token that is hidden, given those that are not.

    Unit: nats. Comparable only between models with the same tokenizer, which then have
    to say the same tokens; the gate compares by it. Source: Devlin et al. 2018, "BERT:
    Pre-training of deep bidirectional Transformers", section 3.1.
    """
    return ratio(sums["nll"], sums["tokens"])


def masked_perplexity(sums: CorpusSums) -> np.ndarray:
    """exp(nll / tokens): the inverse geometric mean probability of a hidden token.

    Unit: none. Comparable as nats per masked token are, and no perplexity of the text.
    Source: Liu et al. 2019, "RoBERTa: a robustly optimized BERT pretraining approach",
    table 3.
    """
    return exp(nats_per_masked_token(sums))


def masked_accuracy(sums: CorpusSums) -> np.ndarray:
    """Share of the hidden tokens that were the likeliest to the model.

    Unit: share from 0 to 1. Comparable as nats per masked token are. Source: Devlin et
    al. 2018, "BERT: Pre-training of deep bidirectional Transformers", table 6.
    """
    return token_accuracy(sums)


def masked_accuracy_at_5(sums: CorpusSums) -> np.ndarray:
    """Share of the hidden tokens that were among the five likeliest.

    Unit: share from 0 to 1. Comparable as nats per masked token are. Source: Petroni et
    al. 2019, "Language models as knowledge bases?", section 4.4 (precision at k).
    """
    return token_accuracy_at_5(sums)


METRICS = (
    of_function(nats_per_masked_token, MASKED_LM.unit, MASKED_LM.direction),
    of_function(masked_perplexity, "", "lower"),
    of_function(masked_accuracy, "share", "higher"),
    of_function(masked_accuracy_at_5, "share", "higher"),
    of_function(expected_calibration_error, "share", "lower"),
)
