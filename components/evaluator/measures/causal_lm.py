"""The metrics of causal language models, as functions of the corpus sums.

Each stands in one place: its function is the definition, whose docstring begins with
what is told of it and names its source; `METRICS` adds unit and direction.
"""

from __future__ import annotations

import math

import numpy as np

from ....models.tasks import CAUSAL_LM
from .metric import calibration_error, of_function, ratio
from .sums import CorpusSums


def perplexity(sums: CorpusSums) -> np.ndarray:
    """exp(nll / tokens): the inverse geometric mean probability of a token.

    Unit: none. An unknown piece is a token like any other, so it is comparable only
    between models with the same tokenizer. Source: Jelinek et al. 1977, "Perplexity, a
    measure of the difficulty of speech recognition tasks".
    """
    return exp(ratio(sums["nll"], sums["tokens"]))


def word_perplexity(sums: CorpusSums) -> np.ndarray:
    """exp((nll + spelling_nll) / words), words of the original text, at white space.

    Unit: none. Unknown pieces are spelled, so it is comparable between tokenizers on
    the same text. Source: Mielke 2016, "Language diversity in ACL 2004-2016" and Mielke
    et al. 2019, "What kind of language is hard to language-model?".
    """
    return exp(ratio(_code_length(sums), sums["words"]))


def bits_per_byte(sums: CorpusSums) -> np.ndarray:
    """(nll + spelling_nll) / (bytes * ln 2): bits to encode a byte of the text.

    Unit: bits. Comparable between any two models on the same text, as unknown pieces
    are spelled; the gate compares by it. Source: Gao et al. 2020, "The Pile", section
    3.1; Mielke et al. 2021, "Between words and characters" (unknown pieces).
    """
    return ratio(_code_length(sums), sums["bytes"] * math.log(2))


def bits_per_character(sums: CorpusSums) -> np.ndarray:
    """(nll + spelling_nll) / (characters * ln 2): bits to encode a Unicode code point.

    Unit: bits. Comparable as bits per byte are, and the usual unit of character models.
    Source: Graves 2013, "Generating sequences with recurrent neural networks", 3.1.
    """
    return ratio(_code_length(sums), sums["characters"] * math.log(2))


def token_accuracy(sums: CorpusSums) -> np.ndarray:
    """Share of the tokens that were the likeliest to the model, `</s>` included.

    Unit: share from 0 to 1. Comparable only between models with the same tokenizer.
    Source: Merity et al. 2018, "An analysis of neural language modeling at multiple
    scales", section 5.3.
    """
    return ratio(sums["correct_at_1"], sums["tokens"])


def token_accuracy_at_5(sums: CorpusSums) -> np.ndarray:
    """Share of the tokens that were among the five likeliest, `</s>` included.

    Unit: share from 0 to 1. Comparable only between models with the same tokenizer.
    Source: Russakovsky et al. 2015, "ImageNet large scale visual recognition
    challenge", section 4.1 (accuracy at five).
    """
    return ratio(sums["correct_at_5"], sums["tokens"])


def expected_calibration_error(sums: CorpusSums) -> np.ndarray:
    """Mean distance of the likeliest token's probability to how often it was right.

    Unit: share from 0 to 1. The mean over 15 bins of that probability, equally wide,
    weighed by their tokens; 0 is a model that knows how sure it may be. Source: Guo et
    al. 2017, "On calibration of modern neural networks", equation 3.
    """
    return calibration_error(sums)


def out_of_vocabulary_rate(sums: CorpusSums) -> np.ndarray:
    """Share of the text's tokens that are `<unk>`, `</s>` left out.

    Unit: share from 0 to 1. It speaks of the tokenizer, and says how much of a text a
    perplexity leaves open. Source: Jurafsky and Martin 2009, "Speech and language
    processing", section 4.3.2.
    """
    return ratio(sums["unknown_tokens"], sums["tokens"] - sums["documents"])


def _code_length(sums: CorpusSums) -> np.ndarray:
    """Nats of a code of the whole text."""
    return sums["nll"] + sums["spelling_nll"]


def exp(values: np.ndarray) -> np.ndarray:
    """Infinity where it is too large."""
    with np.errstate(over="ignore"):
        return np.exp(values)


METRICS = (
    of_function(bits_per_byte, CAUSAL_LM.unit, CAUSAL_LM.direction),
    of_function(bits_per_character, "bits", "lower"),
    of_function(perplexity, "", "lower"),
    of_function(word_perplexity, "", "lower"),
    of_function(token_accuracy, "share", "higher"),
    of_function(token_accuracy_at_5, "share", "higher"),
    of_function(expected_calibration_error, "share", "lower"),
    of_function(out_of_vocabulary_rate, "share", "lower"),
)
