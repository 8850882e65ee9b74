"""What a client's methods give back: plain values, without a trace of the transport."""

from __future__ import annotations

import array
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..protocol import DType, State


@dataclass(frozen=True)
class NextTokens:
    """The likeliest next tokens after a text, the likeliest first."""

    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Classification:
    """The labels of a text, the likeliest first.

    Attributes:
        labels: every label that there is.
        probabilities: of each: of one among all or, where a text may have several
            labels, of each by itself.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Tagged:
    """The words of a text, each with its likeliest tag, and how likely that is."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text.

    Attributes:
        nll: negative log-likelihood in nats, the end of the text included.
        tokens: how many tokens were predicted, the end of the text included.
        bytes: length of the text in UTF-8.
        words: pieces of the text between white space.
        spelling_nll: nats to spell what the model's vocabulary lacks, beyond the token
            `<unk>` that `nll` counts; 0 for a text without unknown pieces.
    """

    nll: float
    tokens: int
    bytes: int
    words: int
    spelling_nll: float = 0.0

    @property
    def bits(self) -> float:
        """(nll + spelling_nll) / ln 2: the length of a code of the text."""
        return (self.nll + self.spelling_nll) / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nll / tokens); comparable between models with the same tokenizer."""
        return _exp(self.nll, self.tokens)

    @property
    def word_perplexity(self) -> float:
        """exp((nll + spelling_nll) / words); NaN for a text without words."""
        return _exp(self.nll + self.spelling_nll, self.words)

    @property
    def bits_per_byte(self) -> float:
        """bits / bytes; NaN for an empty text."""
        return self.bits / self.bytes if self.bytes else math.nan


@dataclass(frozen=True)
class PseudoScore(Score):
    """How well the tokens of a text fit each other.

    `nll` is of each token where it alone is hidden, without the end of the text: no
    code of the text has that length, so `bits` say nothing, and `perplexity` is a
    pseudo-perplexity.
    """


@dataclass(frozen=True)
class TokenScores:
    """The tokens of a text, each with its log-probability in nats."""

    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Alternative:
    """A token that could stand in a place, with its log-probability in nats."""

    token: str
    log_probability: float


@dataclass(frozen=True)
class TokenAlternatives(TokenScores):
    """The tokens of a text, and for each what is likeliest in its place."""

    alternatives: tuple[tuple[Alternative, ...], ...]


@dataclass(frozen=True)
class Filled:
    """The likeliest pieces for the gaps of a text.

    Attributes:
        mask: what the model takes for a gap.
        alternatives: for each mask of the text, the likeliest first.
    """

    mask: str
    alternatives: tuple[tuple[Alternative, ...], ...]


@dataclass(frozen=True)
class IdAlternatives:
    """How likely the tokens of a sequence are but its first, and its end.

    Attributes:
        log_probabilities: of each, in nats.
        count: how many likely tokens are told in the place of each.
        top_ids: these, place after place, as there may be many.
        top_log_probabilities: of each of these, in nats.
    """

    log_probabilities: array.array[float]
    count: int
    top_ids: array.array[int]
    top_log_probabilities: array.array[float]

    def top(self, place: int) -> list[tuple[int, float]]:
        """The likeliest tokens in a place, with their log-probabilities."""
        there = slice(place * self.count, (place + 1) * self.count)
        tops = self.top_ids[there], self.top_log_probabilities[there]
        return list(zip(*tops, strict=True))


@dataclass(frozen=True)
class ShownTokens:
    """The text of tokens, with the names of special ones, and each as it is shown."""

    text: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Embedding:
    """A text as a vector.

    Attributes:
        vector: its numbers.
        tokens: how many tokens were read.
    """

    vector: list[float]
    tokens: int


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt, or to a source.

    A model exported before these were served leaves `prompt_tokens`, `tokens`,
    `log_probabilities` and `alternatives` None.

    Attributes:
        text: the continuation, without the prompt; with what was forced to begin it.
        new_tokens: how many tokens were generated.
        finish_reason: why it stopped, in the model's word.
        prompt_tokens: how many tokens of the prompt were read.
        tokens: the new ones, as text.
        log_probabilities: of each new token, in nats.
        alternatives: the likeliest tokens in the place of each new one, likeliest
            first.
        text_bytes: what `text` shows, exactly: to go on from it, send the bytes of
            prompt and continuation, as a character may not be complete yet.
        token_ids: of each new token; None of a model that does not tell them.
        unread_tokens: of a source, how many were cut off as it is too long; None of a
            model that reads none.
    """

    text: str
    new_tokens: int
    finish_reason: str
    prompt_tokens: int | None = None
    tokens: tuple[str, ...] | None = None
    log_probabilities: tuple[float, ...] | None = None
    alternatives: tuple[tuple[Alternative, ...], ...] | None = None
    text_bytes: bytes = field(default=b"", repr=False, compare=False)
    token_ids: tuple[int, ...] | None = None
    unread_tokens: int | None = None


@dataclass(frozen=True)
class Beam:
    """One of the likeliest continuations that beam search found.

    Attributes:
        text: the continuation, without the prompt.
        log_probability: of all its tokens, in nats.
        score: `log_probability` over length**length_penalty, which ranks the beams.
        new_tokens: how many tokens it has.
        finish_reason: why it stopped, in the model's word.
    """

    text: str
    log_probability: float
    score: float
    new_tokens: int
    finish_reason: str


@dataclass(frozen=True)
class ModelInfo:
    """What a model takes.

    Attributes:
        context_length: tokens that it can see, `<s>` among them.
        max_new_tokens: the most tokens that a request is given.
        vocabulary_size: ids are below it.
        special_ids: of the tokens for padding, unknown, start and end.
        special_tokens: their names, as `tokenizer.json` has them.
        source_context_length: tokens of a source that it can see; None of a model that
            reads none.
    """

    context_length: int
    max_new_tokens: int
    vocabulary_size: int
    special_ids: tuple[int, ...]
    special_tokens: tuple[str, ...]
    source_context_length: int | None = None


@dataclass(frozen=True)
class LabelInfo:
    """What a classifier takes and says.

    Attributes:
        context_length: tokens that it reads of a text.
        vocabulary_size: ids are below it.
        labels: every label that there is.
        multi_label: whether a text may have several, or none.
    """

    context_length: int
    vocabulary_size: int
    labels: tuple[str, ...]
    multi_label: bool


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version; `error` says what went wrong, if anything did."""

    version: int
    state: State
    error: str | None


@dataclass(frozen=True)
class TensorSpec:
    """Dtype and shape of an input or output; None in a shape is any size.

    A `dtype` is an integer where it is none of those that language models use; a
    `shape` is None where even the rank is open.
    """

    dtype: DType | int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a signature by name.

    `defaults` are the values of inputs that a gRPC request may leave out, as nested
    lists; strings are bytes.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metadata:
    """Which version answers, and its signatures by name."""

    name: str
    version: int
    signatures: Mapping[str, Signature]


def _exp(nll: float, count: int) -> float:
    if not count:
        return math.nan
    try:
        return math.exp(nll / count)
    except OverflowError:
        return math.inf
