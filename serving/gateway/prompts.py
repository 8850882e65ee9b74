"""Prompts as text or as token ids, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..client import ModelInfo
from .errors import ApiError, invalid
from .versions import Version

START = 2
"""The place of `<s>` among a model's special tokens."""


@dataclass(frozen=True)
class Prompt:
    """What is continued.

    Attributes:
        text: as it is given back.
        ids: what the model reads; None where its export takes text alone.
        implies_start: whether the first of them was put before a text.
    """

    text: str
    ids: tuple[int, ...] | None = None
    implies_start: bool = False

    @property
    def size(self) -> int:
        """Its tokens, as far as they are known."""
        return len(self.ids or ()) - self.implies_start


@dataclass(frozen=True)
class Reading:
    """How prompts are read.

    Attributes:
        max_tokens: the most new tokens that are asked for.
        kept: so many tokens are kept, the last ones; -1: as many as fit; None: all.
        adds_start: whether `<s>` stands before a text.
        any_length: whether prompts need not fit, as nothing is written.
    """

    max_tokens: int = 0
    kept: int | None = None
    adds_start: bool = True
    any_length: bool = False


async def read_prompts(
    version: Version, given: Sequence[str | list[int]], reading: Reading
) -> list[Prompt]:
    """Texts and token ids as prompts.

    Args:
        version: of the model that will read them.
        given: texts, or ids.
        reading: how.

    Raises:
        ApiError: 400, as a prompt cannot be read, or is too long.
        ServingError: the model server refuses, or does not answer.
    """
    info = version.info
    if info is None:
        return [_of_older_export(one, reading) for one in given]
    start, name = info.special_ids[START], info.special_tokens[START]
    # As vLLM has it, a text may say its start itself.
    texts = [one.removeprefix(name) for one in given if isinstance(one, str)]
    tokenized = iter(await version.client.tokenize(texts))
    prompts = []
    for one in given:
        if isinstance(one, str):
            ids, says_start = next(tokenized), one.startswith(name)
            starts = says_start or reading.adds_start or not ids
            ids = (start, *ids) if starts else ids
            prompts.append(Prompt(one, ids, starts and not says_start))
        else:
            prompts.append(Prompt("", checked_ids("prompt", one, info) or (start,)))
    room = info.context_length - min(reading.max_tokens, info.max_new_tokens)
    kept = room if reading.kept == -1 else reading.kept
    spelled = []
    for index, (one, prompt) in enumerate(zip(given, prompts, strict=True)):
        ids = prompt.ids or ()
        if kept is not None and len(ids) > kept:
            prompts[index] = Prompt("", ids[-kept:])
        if not isinstance(one, str) or prompts[index] is not prompt:
            spelled.append(index)
        if not reading.any_length and len(prompts[index].ids or ()) > room:
            raise _too_long(len(ids), info.context_length - room, info)
    shown = await version.client.detokenize([prompts[i].ids or () for i in spelled])
    for index, tokens in zip(spelled, shown, strict=True):
        prompts[index] = replace(prompts[index], text=tokens.text)
    return prompts


def _of_older_export(one: str | list[int], reading: Reading) -> Prompt:
    if not isinstance(one, str):
        raise invalid("This model's export takes prompts of text alone", "prompt")
    if reading.kept is not None:
        name = "truncate_prompt_tokens"
        raise invalid(f"'{name}': this model's export does not tell its tokens", name)
    return Prompt(one)


def checked_ids(field: str, ids: Sequence[int], info: ModelInfo) -> tuple[int, ...]:
    """Token ids that a field of a request has.

    Raises:
        ApiError: 400, where the model has no such token.
    """
    if ids and not 0 <= min(ids) <= max(ids) < info.vocabulary_size:
        most = info.vocabulary_size - 1
        raise invalid(f"'{field}': token ids are from 0 to {most}", field)
    return tuple(ids)


def _too_long(read: int, count: int, info: ModelInfo) -> ApiError:
    return ApiError(
        400,
        f"This model's maximum context length is {info.context_length} tokens, however "
        f"you requested {read + count} tokens ({read} in your prompt; {count} for the "
        "completion). Please reduce your prompt, or completion length, or give "
        "'truncate_prompt_tokens'.",
        param="prompt",
        code="context_length_exceeded",
    )
