"""The metrics of models that write to a source, as functions of the corpus sums.

They are of the targets, each given its source, and otherwise those of a language model:
see `causal_lm`. What is measured of the texts that such a model writes, says `written`.
"""

from __future__ import annotations

import numpy as np

from ....models.tasks import SEQ_TO_SEQ_LM
from . import causal_lm
from .metric import calibration_error, of_function, ratio
from .sums import CorpusSums


def target_bits_per_byte(sums: CorpusSums) -> np.ndarray:
    """(nll + spelling_nll) / (bytes * ln 2) of targets: bits to encode a byte of them.

    Unit: bits. Given the source, which the code need not have. Comparable between any
    two models on the same pairs, as unknown pieces are spelled; the gate compares by
    it. Source: Gao et al. 2020, "The Pile", section 3.1; Mielke et al. 2021, "Between
    words and characters" (unknown pieces).
    """
    return causal_lm.bits_per_byte(sums)


def target_perplexity(sums: CorpusSums) -> np.ndarray:
    """exp(nll / tokens): the inverse geometric mean probability of a target's token.

    Unit: none. An unknown piece is a token like any other, so it is comparable only
    between models with the same tokenizer of targets. Source: Jelinek et al. 1977,
    "Perplexity, a measure of the difficulty of speech recognition tasks".
    """
    return causal_lm.perplexity(sums)


def target_token_accuracy(sums: CorpusSums) -> np.ndarray:
    """Share of the targets' tokens that were the likeliest, `</s>` included.

    Unit: share from 0 to 1. Each given those before it in the target. Comparable only
    between models with the same tokenizer of targets. Source: Merity et al. 2018, "An
    analysis of neural language modeling at multiple scales", section 5.3.
    """
    return causal_lm.token_accuracy(sums)


def target_calibration_error(sums: CorpusSums) -> np.ndarray:
    """Mean distance of the likeliest token's probability to how often it was right.

    Unit: share from 0 to 1. Of the targets' tokens, as `expected_calibration_error`.
    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3;
    Kumar and Sarawagi 2019, "Calibration of encoder decoder models for neural machine
    translation".
    """
    return calibration_error(sums)


def cut_source_rate(sums: CorpusSums) -> np.ndarray:
    """Share of the sources that are longer than the model sees.

    Unit: share from 0 to 1. What is behind is not read, and counts for nothing in what
    is written to it. Source: See et al. 2017, "Get to the point: summarization with
    pointer-generator networks", section 5 (truncated articles).
    """
    return ratio(sums["cut_sources"], sums["documents"])


METRICS = (
    of_function(target_bits_per_byte, SEQ_TO_SEQ_LM.unit, SEQ_TO_SEQ_LM.direction),
    of_function(target_perplexity, "", "lower"),
    of_function(target_token_accuracy, "share", "higher"),
    of_function(target_calibration_error, "share", "lower"),
    of_function(cut_source_rate, "share", "lower"),
)
"""What is measured of a model that writes to a source."""
