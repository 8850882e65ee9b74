"""What a client asks a signature and how it reads the answer, over any transport."""

from __future__ import annotations

import array
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, TypeVar, Unpack

import grpc

from .. import protocol
from ..errors import ServingError
from ..export import contract
from ..export.contract import (
    MAX_STOPS,
    AnyBeamSettings,
    AnyGenerateSettings,
    CacheSettings,
    Each,
    FillSettings,
    Text,
)
from ..protocol import DType
from .results import (
    Alternative,
    Beam,
    Classification,
    Embedding,
    Filled,
    Generation,
    IdAlternatives,
    LabelInfo,
    ModelInfo,
    NextTokens,
    PseudoScore,
    Score,
    ShownTokens,
    Signature,
    Tagged,
    TokenAlternatives,
    TokenScores,
)

Result = TypeVar("Result")
Texts = Sequence[Text]
_INT32 = range(-(2**31), 2**31)
# What exports have not always told of a generation.
_GENERATED_TOKENS = (
    "prompt_tokens",
    "token",
    "log_probability",
    "top_token",
    "top_log_probability",
)


class Column(NamedTuple):
    """An input: a value for each row, which may be a list; strings are bytes."""

    dtype: DType
    values: list[Any]


class Answer:
    """The outputs of a signature, each of which must have a value for each row.

    Args:
        outputs: by name, in the transport's own form.
        decode: makes nested lists of an output, with strings as bytes; raises
            ValueError.
        rows: how many rows were asked for.
        target: who answered, for messages.
    """

    def __init__(
        self,
        outputs: Mapping[str, Any],
        decode: Callable[[Any], Any],
        rows: int,
        target: str,
    ) -> None:
        self._outputs = outputs
        self._decode = decode
        self._rows = rows
        self._target = target

    def __contains__(self, name: str) -> bool:
        return name in self._outputs

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """For each row the values of these outputs."""
        return zip(*map(self._column, names), strict=True)

    def named(self) -> Iterator[dict[str, Any]]:
        """For each row the values of all outputs, by name."""
        return (
            dict(zip(self._outputs, row, strict=True))
            for row in self.rows(*self._outputs)
        )

    def _column(self, name: str) -> list[Any]:
        if name not in self._outputs:
            raise self._unfit(f"gives no {name}")
        try:
            values = self._decode(self._outputs[name])
        except ValueError as error:
            raise self._unfit(f"gives {name} in a form not expected: {error}") from None
        if not isinstance(values, list) or len(values) != self._rows:
            raise self._unfit(f"does not give one {name} for each text")
        return values

    def _unfit(self, what: str) -> ServingError:
        return unfit(self._target, what)


def unfit(target: str, what: str) -> ServingError:
    """The error for a model that does not do what is asked of it."""
    return ServingError(
        grpc.StatusCode.FAILED_PRECONDITION, f"the model at {target} {what}"
    )


@dataclass(frozen=True)
class Question(Generic[Result]):
    """What is asked of a signature, one result a row.

    Attributes:
        signature: its name.
        columns: the inputs.
        rows: how many texts they have.
        read: makes results of an answer.
        timeout: seconds for all of it; None is the client's own.
        has_settings: whether inputs may be left out that have a default.
    """

    signature: str
    columns: Mapping[str, Column]
    rows: int
    read: Callable[[Answer], list[Result]]
    timeout: float | None
    has_settings: bool

    def batches(self, size: int) -> list[Question[Result]]:
        """The same in questions of at most `size` rows."""
        return [
            self._slice(start, min(start + size, self.rows))
            for start in range(0, self.rows, size)
        ]

    def _slice(self, start: int, end: int) -> Question[Result]:
        columns = {
            name: Column(dtype, values[start:end])
            for name, (dtype, values) in self.columns.items()
        }
        return replace(self, columns=columns, rows=end - start)

    def completed(
        self, signatures: Mapping[str, Signature], target: str
    ) -> Question[Result]:
        """The same with every default given, in all rows.

        REST applies no defaults, and neither can a server that joins requests: their
        single row does not fit beside several.

        Raises:
            ServingError: there is no such signature (FAILED_PRECONDITION), or it has
                not all of the settings (INVALID_ARGUMENT).
        """
        signature = signatures.get(self.signature)
        if signature is None:
            # Those with underscores are TensorFlow's own.
            known = ", ".join(name for name in signatures if name[0] != "_")
            raise unfit(target, f"has no signature {self.signature}, only {known}")
        if unknown := [name for name in self.columns if name not in signature.inputs]:
            known = ", ".join(name for name in signature.inputs if name != "prompt")
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{self.signature} of the model at {target} has no setting "
                f"{', '.join(unknown)}, only {known}",
            )
        columns = dict(self.columns)
        for name, default in signature.defaults.items():
            dtype = signature.inputs[name].dtype if name in signature.inputs else 0
            if name not in columns and isinstance(dtype, DType) and len(default) == 1:
                columns[name] = Column(dtype, default * self.rows)
        return replace(self, columns=columns)


def serving_default(
    texts: Texts, *, timeout: float | None = None
) -> Question[dict[str, Any]]:
    """What a model of any task says of each text by default: its outputs, by name."""
    return _question(contract.NEXT, texts, lambda answer: [*answer.named()], timeout)


def next_tokens(texts: Texts, *, timeout: float | None = None) -> Question[NextTokens]:
    """The likeliest next tokens after each text."""

    def read(answer: Answer) -> list[NextTokens]:
        return [
            NextTokens(tuple(map(_shown, tokens)), tuple(probabilities))
            for tokens, probabilities in answer.rows("token", "probability")
        ]

    return _question(contract.NEXT, texts, read, timeout)


def classify(texts: Texts, *, timeout: float | None = None) -> Question[Classification]:
    """The labels of each text, the likeliest first."""

    def read(answer: Answer) -> list[Classification]:
        return [
            Classification(tuple(map(_shown, labels)), tuple(probabilities))
            for labels, probabilities in answer.rows(*contract.LABELS.outputs)
        ]

    return _question(contract.LABELS, texts, read, timeout)


def score_labels(
    texts: Texts,
    labels: Each[Text | Sequence[Text]],
    *,
    timeout: float | None = None,
) -> Question[float]:
    """The log-probability in nats of a label of each text; -inf: there is no such.

    A label is one for all texts, or a list with one for each; where a text may have
    several, one for each is a list of them, of which exactly these are meant.

    Raises:
        ValueError: there are not as many labels as texts.
    """
    is_one = isinstance(labels, Text)
    given = [
        _utf8(label) if isinstance(label, Text) else b"\n".join(map(_utf8, label))
        for label in _each("labels", labels, len(texts), is_one)
    ]
    return _score_of(contract.SCORE_LABEL, texts, given, timeout)


def tag(
    texts: Sequence[Text | Sequence[Text]], *, timeout: float | None = None
) -> Question[Tagged]:
    """The tag of each word of each text, which may also be a list of words.

    Raises:
        ValueError: a word has white space in it, or nothing.
    """

    def read(answer: Answer) -> list[Tagged]:
        return [
            Tagged(_tokens(words, n), _tokens(tags, n), tuple(probabilities[:n]))
            for words, tags, probabilities, n in answer.rows(*contract.TAGS.outputs)
        ]

    return _question(contract.TAGS, _texts("texts", texts), read, timeout)


def score_tags(
    texts: Sequence[Text | Sequence[Text]],
    tags: Sequence[Text | Sequence[Text]],
    *,
    timeout: float | None = None,
) -> Question[float]:
    """The log-probability in nats of tags of the words of each text, one for each word.

    It is -inf where there is no such tag, or not one for each word.

    Raises:
        ValueError: as of `tag`, or there are not as many lists of tags as texts.
    """
    given = _each("tags", _texts("tags", tags), len(texts), is_one=False)
    return _score_of(contract.SCORE_TAGS, _texts("texts", texts), given, timeout)


def _score_of(
    signature: contract.Signature,
    texts: Texts,
    given: Sequence[Text],
    timeout: float | None,
) -> Question[float]:
    """What a signature `score` says of texts and what is given beside them."""

    def read(answer: Answer) -> list[float]:
        return [value for (value,) in answer.rows("log_probability")]

    return _of_pairs(signature, texts, given, read, timeout)


def _of_pairs(
    signature: contract.Signature,
    texts: Texts,
    others: Texts,
    read: Callable[[Answer], list[Result]],
    timeout: float | None,
) -> Question[Result]:
    """What a signature says of texts and what is given beside each."""
    [text, other] = signature.required
    question = _question(signature, texts, read, timeout, required=text)
    given = _each(f"{other}s", _no_text(others), len(texts), is_one=False)
    columns = {**question.columns, other: Column(DType.STRING, [*map(_utf8, given)])}
    return replace(question, columns=columns)


def _texts(name: str, texts: Sequence[Text | Sequence[Text]]) -> list[Text]:
    """Texts, of which some may be lists of words."""
    if isinstance(texts, Text):
        raise TypeError(f"{name}: give a list of texts, not a single one")
    joined: list[Text] = []
    for text in texts:
        if not isinstance(text, Text):
            words = [_utf8(word) for word in text]
            for word in words:
                if len(word.split()) != 1 or word.strip() != word:
                    raise ValueError(
                        f"{name}: a word has something in it, and no white space. "
                        f"Received: {_shown(word)!r}"
                    )
            text = b" ".join(words)
        joined.append(text)
    return joined


def score(
    texts: Texts, targets: Texts | None = None, *, timeout: float | None = None
) -> Question[Score]:
    """How well the model predicts each text; a `PseudoScore` of a masked one.

    Of a model that reads a source the texts are sources, and the scores those of the
    `targets`, one for each.

    Raises:
        ValueError: there are not as many targets as texts.
    """
    first, *others = [field.name for field in fields(Score)]

    def read(answer: Answer) -> list[Score]:
        if f"pseudo_{first}" in answer:
            rows = answer.rows(f"pseudo_{first}", *others)
            return [PseudoScore(*row) for row in rows]
        return [Score(*row) for row in answer.rows(first, *others)]

    if targets is not None:
        return _of_pairs(contract.SCORE_TARGET, texts, targets, read, timeout)
    return _question(contract.SCORE, texts, read, timeout)


def fill_mask(
    texts: Texts,
    *,
    timeout: float | None = None,
    **settings: Unpack[FillSettings],
) -> Question[Filled]:
    """The likeliest pieces for each mask of each text; see `FillSettings`.

    Raises:
        TypeError, ValueError: a setting is not as it should be.
    """

    def read(answer: Answer) -> list[Filled]:
        return [
            Filled(_shown(mask), _alternatives(tokens, log_probabilities, masks))
            for masks, mask, tokens, log_probabilities in answer.rows(
                *contract.FILL_MASK.outputs
            )
        ]

    return _question(contract.FILL_MASK, texts, read, timeout, settings)


def token_scores(
    texts: Texts, targets: Texts | None = None, *, timeout: float | None = None
) -> Question[TokenScores]:
    """How well the model predicts each token of each text, or target; see `score`.

    Raises:
        ValueError: there are not as many targets as texts.
    """
    if targets is not None:
        pairs = (contract.TARGET_TOKEN_SCORES, texts, targets)
        return _of_pairs(*pairs, _read_token_scores, timeout)
    return _question(contract.TOKEN_SCORES, texts, _read_token_scores, timeout)


def cache_scores(
    texts: Texts,
    *,
    timeout: float | None = None,
    **settings: Unpack[CacheSettings],
) -> Question[TokenScores]:
    """The same of the model with a cache over the text so far; see `CacheSettings`.

    Raises:
        TypeError, ValueError: a setting is not as it should be.
    """
    return _question(
        contract.CACHE_SCORES, texts, _read_token_scores, timeout, settings
    )


def token_alternatives(
    texts: Texts, *, timeout: float | None = None
) -> Question[TokenAlternatives]:
    """The same, and for each token what is likeliest in its place."""

    def read(answer: Answer) -> list[TokenAlternatives]:
        return [
            TokenAlternatives(
                _tokens(tokens, length),
                tuple(log_probabilities[:length]),
                _alternatives(top_tokens, top_log_probabilities, length),
            )
            for (
                tokens,
                log_probabilities,
                length,
                top_tokens,
                top_log_probabilities,
            ) in answer.rows(*contract.TOKEN_ALTERNATIVES.outputs)
        ]

    return _question(contract.TOKEN_ALTERNATIVES, texts, read, timeout)


def id_alternatives(
    token_ids: Sequence[Sequence[int]],
    alternatives: Each[int] | None = None,
    *,
    timeout: float | None = None,
) -> Question[IdAlternatives]:
    """The same of tokens as they are: of all but the first, and of `</s>`.

    Raises:
        ValueError: an id is below 0.
    """

    def read(answer: Answer) -> list[IdAlternatives]:
        return [
            IdAlternatives(
                _array("f", log_probabilities[:length]),
                len(top_ids) // len(log_probabilities),
                _array("i", top_ids),
                _array("f", top_log_probabilities),
            )
            for (
                log_probabilities,
                top_ids,
                top_log_probabilities,
                length,
            ) in answer.rows(*contract.ID_ALTERNATIVES.outputs)
        ]

    given = {"alternatives": alternatives}
    texts = _decimal(token_ids)
    return _question(contract.ID_ALTERNATIVES, texts, read, timeout, given)


def tokenize(
    texts: Texts, *, timeout: float | None = None
) -> Question[tuple[int, ...]]:
    """The token ids of each text, without `<s>` and `</s>`."""

    def read(answer: Answer) -> list[tuple[int, ...]]:
        rows = answer.rows("token_id", "length")
        return [tuple(ids[:length]) for ids, length in rows]

    return _question(contract.TOKENIZE, texts, read, timeout)


def detokenize(
    token_ids: Sequence[Sequence[int]], *, timeout: float | None = None
) -> Question[ShownTokens]:
    """The text of token ids, and each token as it is shown.

    Raises:
        ValueError: an id is below 0.
    """

    def read(answer: Answer) -> list[ShownTokens]:
        return [
            ShownTokens(_shown(text), _tokens(tokens, length))
            for text, tokens, length in answer.rows(*contract.DETOKENIZE.outputs)
        ]

    return _question(contract.DETOKENIZE, _decimal(token_ids), read, timeout)


def embed(
    texts: Texts,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    timeout: float | None = None,
) -> Question[Embedding]:
    """A vector for each text, or for token ids in its place, where there are any.

    Raises:
        ValueError: an id is below 0, or there are not as many lists of them as texts.
    """

    def read(answer: Answer) -> list[Embedding]:
        rows = answer.rows(*contract.EMBED.outputs)
        return [Embedding([*vector], tokens) for vector, tokens in rows]

    given = {"token_ids": token_ids}
    return _question(contract.EMBED, texts, read, timeout, given)


def model_info(
    texts: Texts = ("",), *, timeout: float | None = None
) -> Question[ModelInfo]:
    """What the model takes, the same for any text."""

    def read(answer: Answer) -> list[ModelInfo]:
        found = [
            ModelInfo(context, most, size, tuple(ids), tuple(map(_shown, tokens)))
            for context, most, size, ids, tokens in answer.rows(
                *contract.MODEL_INFO.outputs
            )
        ]
        more = "source_context_length"
        if more not in answer:
            return found
        return [
            replace(info, source_context_length=length)
            for info, (length,) in zip(found, answer.rows(more), strict=True)
        ]

    return _question(contract.MODEL_INFO, texts, read, timeout)


def label_info(
    texts: Texts = ("",), *, timeout: float | None = None
) -> Question[LabelInfo]:
    """What a classifier takes and says, the same for any text."""

    def read(answer: Answer) -> list[LabelInfo]:
        return [
            LabelInfo(context, size, tuple(map(_shown, labels)), bool(several))
            for context, size, labels, several in answer.rows(
                *contract.LABEL_INFO.outputs
            )
        ]

    return _question(contract.LABEL_INFO, texts, read, timeout)


def generate(
    prompts: Texts,
    max_new_tokens: Each[int] | None = None,
    *,
    timeout: float | None = None,
    **settings: Unpack[AnyGenerateSettings],
) -> Question[Generation]:
    """Continues each prompt, or writes to each source; see `AnyGenerateSettings`.

    Raises:
        TypeError, ValueError: a setting is not as it should be.
    """
    given = {"max_new_tokens": max_new_tokens, **settings}
    return _question(contract.GENERATE, prompts, _read_generations, timeout, given)


def beam_search(
    prompts: Texts,
    max_new_tokens: Each[int] | None = None,
    *,
    timeout: float | None = None,
    **settings: Unpack[AnyBeamSettings],
) -> Question[tuple[Beam, ...]]:
    """The likeliest of what `generate` writes, best first; see `AnyBeamSettings`.

    Raises:
        TypeError, ValueError: a setting is not as it should be.
    """
    names = ("text", "log_probability", "score", "new_tokens", "finish_reason")

    def read(answer: Answer) -> list[tuple[Beam, ...]]:
        return [
            tuple(
                Beam(_shown(text), log_probability, score, new_tokens, _shown(reason))
                for text, log_probability, score, new_tokens, reason in zip(
                    *row, strict=True
                )
                if score != -math.inf
            )
            for row in answer.rows(*names)
        ]

    given = {"max_new_tokens": max_new_tokens, **settings}
    return _question(contract.BEAM_SEARCH, prompts, read, timeout, given)


def _question(
    signature: contract.Signature,
    texts: Texts,
    read: Callable[[Answer], list[Result]],
    timeout: float | None,
    settings: Mapping[str, Any] | None = None,
    required: str | None = None,
) -> Question[Result]:
    texts = _no_text(texts)
    inputs = contract.inputs_of(signature.name)
    if unknown := [name for name in settings or () if name not in inputs]:
        known = ", ".join(name for name, tensor in inputs.items() if tensor.setting)
        raise TypeError(
            f"{signature.name} takes {known}. Received: {', '.join(unknown)}"
        )
    [name] = [required] if required else signature.required
    columns = {name: Column(DType.STRING, [_utf8(text) for text in texts])}
    for name, value in (settings or {}).items():
        if value is not None:
            dtype = DType[inputs[name].dtype.upper()]
            columns[name] = Column(dtype, _setting(name, dtype, value, len(texts)))
    return Question(
        signature.name, columns, len(texts), read, timeout, bool(signature.settings)
    )


def _no_text(texts: Texts) -> Texts:
    """Texts, and not a single one.

    Raises:
        TypeError: it is one.
    """
    if isinstance(texts, Text):
        raise TypeError("give a list of texts, not a single one")
    return texts


def _read_token_scores(answer: Answer) -> list[TokenScores]:
    return [
        TokenScores(_tokens(tokens, length), tuple(log_probabilities[:length]))
        for tokens, log_probabilities, length in answer.rows(
            *contract.TOKEN_SCORES.outputs
        )
    ]


def _read_generations(answer: Answer) -> list[Generation]:
    generations = [
        Generation(_shown(text), new_tokens, _shown(reason), text_bytes=text)
        for text, new_tokens, reason in answer.rows(
            "text", "new_tokens", "finish_reason"
        )
    ]
    if "token_id" in answer:
        generations = [
            replace(generation, token_ids=tuple(ids[: generation.new_tokens]))
            for generation, (ids,) in zip(
                generations, answer.rows("token_id"), strict=True
            )
        ]
    if "unread_tokens" in answer:
        generations = [
            replace(generation, unread_tokens=unread)
            for generation, (unread,) in zip(
                generations, answer.rows("unread_tokens"), strict=True
            )
        ]
    if not all(name in answer for name in _GENERATED_TOKENS):
        return generations
    return [
        replace(
            generation,
            prompt_tokens=prompt_tokens,
            tokens=_tokens(tokens, generation.new_tokens),
            log_probabilities=tuple(log_probabilities[: generation.new_tokens]),
            alternatives=_alternatives(
                top_tokens, top_log_probabilities, generation.new_tokens
            ),
        )
        for generation, (
            prompt_tokens,
            tokens,
            log_probabilities,
            top_tokens,
            top_log_probabilities,
        ) in zip(generations, answer.rows(*_GENERATED_TOKENS), strict=True)
    ]


def _tokens(tokens: list[bytes], length: int) -> tuple[str, ...]:
    return tuple(map(_shown, tokens[:length]))


def _alternatives(
    tokens: list[list[bytes]], log_probabilities: list[list[float]], length: int
) -> tuple[tuple[Alternative, ...], ...]:
    """Of the first `length` places; a small vocabulary leaves some of -inf."""
    return tuple(
        tuple(
            Alternative(_shown(token), log_probability)
            for token, log_probability in zip(*place, strict=True)
            if log_probability != -math.inf
        )
        for place in zip(tokens[:length], log_probabilities[:length], strict=True)
    )


def _setting(name: str, dtype: DType, value: Any, rows: int) -> list[Any]:
    """A value for each row."""
    # Of a NumPy array or number.
    value = value.tolist() if hasattr(value, "tolist") else value
    if name in ("prompt_ids", "token_ids"):
        return _each(name, _decimal(value), rows, is_one=False)
    if name == "stop":
        return [_stop(row) for row in _each(name, value, rows, _is_one_stop(value))]
    is_one = isinstance(value, Text) or not isinstance(value, Sequence)
    values = _each(name, value, rows, is_one)
    if dtype is DType.STRING:
        return [_utf8(value) for value in values]
    return [_number(name, dtype, value) for value in values]


def _decimal(rows: Sequence[Sequence[int]]) -> list[bytes]:
    """Ids as a signature takes them."""
    if any(row and min(row) < 0 for row in rows):
        raise ValueError("ids of tokens are from 0")
    # Not all at once, as nothing else would run meanwhile, in another thread or not.
    return [
        b" ".join(" ".join(map(str, part)).encode() for part in protocol.slices(row))
        for row in rows
    ]


def _array(code: str, values: Sequence[Any]) -> array.array:
    return values if isinstance(values, array.array) else array.array(code, values)


def _each(name: str, value: Any, rows: int, is_one: bool) -> list[Any]:
    values = [value] * rows if is_one else list(value)
    if len(values) != rows:
        raise ValueError(
            f"{name}: {len(values)} values given for {rows} prompts; give one, or one "
            "for each"
        )
    return values


def _number(name: str, dtype: DType, value: Any) -> int | float:
    whole = dtype is DType.INT32
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind):
        wanted = "a whole number" if whole else "a number"
        raise TypeError(
            f"{name} must be {wanted}, or one for each prompt. Received: {value!r}"
        )
    if whole and value not in _INT32:
        raise ValueError(
            f"{name} must be from {_INT32[0]} to {_INT32[-1]}. Received: {value}"
        )
    return value  # type: ignore[return-value]


def _is_one_stop(value: Any) -> bool:
    """Whether these are the strings of all prompts, and not lists for each."""
    if not isinstance(value, Sequence):
        raise _no_stop(value)
    return isinstance(value, Text) or all(isinstance(part, Text) for part in value)


def _stop(value: Text | Sequence[Text]) -> list[bytes]:
    """Four strings, as the signature has it, of which "" is none."""
    if not isinstance(value, Sequence):
        raise _no_stop(value)
    stops = [value] if isinstance(value, Text) else list(value)
    if not all(isinstance(stop, Text) for stop in stops):
        raise _no_stop(value)
    if len(stops) > MAX_STOPS:
        raise ValueError(
            f"stop takes up to {MAX_STOPS} strings a prompt. Received: {len(stops)}"
        )
    return [_utf8(stop) for stop in stops] + [b""] * (MAX_STOPS - len(stops))


def _no_stop(value: Any) -> TypeError:
    return TypeError(
        f"stop must be a string or up to {MAX_STOPS}, for all prompts or a list for "
        f"each. Received: {value!r}"
    )


def _utf8(text: Text) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TypeError(f"a text must be a string or bytes. Received: {text!r}")
    return text.encode("utf-8", "surrogateescape")


def _shown(data: bytes) -> str:
    """A token may be a piece of a character: what is no UTF-8 is shown as such."""
    return data.decode("utf-8", "backslashreplace")
