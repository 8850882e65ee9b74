"""Completions from the signatures of a model.

`generate` and `beam_search` write them. How likely the tokens of a prompt are is said
by `id_alternatives`, or `token_alternatives` of older exports.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...client import Generation, IdAlternatives, TokenAlternatives
from ...client.async_client import unblocked
from ...export.contract import ALTERNATIVES, GENERATE, MAX_STOPS
from ..errors import invalid
from ..json_text import LongList
from ..metrics import Usage
from ..prompts import Prompt, Reading, read_prompts
from ..transcript import ScoredToken, joined, logprobs_body, offsets_in
from ..versions import ServedModel, Version
from .pieces import STOPPED, Writer, placed_tokens, scored_tokens, text_of
from .schema import PENALTIES, CompletionRequest

_END = "</s>"


@dataclass
class Echo:
    """What is given back of a prompt.

    Attributes:
        text: the prompt; empty where it is not asked for.
        logprobs: of its tokens; None where they are not asked for.
        end: how likely the prompt ends where it does, `</s>`.
    """

    text: str = ""
    logprobs: dict[str, Any] | None = None
    end: ScoredToken | None = None


class Completion:
    """One request for completions, as one version of a model answers it.

    Args:
        version: of the model.
        request: what is asked.
        prompts: those of the request.

    Attributes:
        usage: counts up while the answer comes.
    """

    def __init__(
        self, version: Version, request: CompletionRequest, prompts: Sequence[Prompt]
    ) -> None:
        self.version = version
        self.client = version.client
        self.request = request
        self.prompts = prompts
        self.usage = Usage()
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }

    @classmethod
    async def of(cls, model: ServedModel, request: CompletionRequest) -> Completion:
        """Reads the prompts of a request.

        Raises:
            ApiError: 400, where the version that answers cannot do what is asked.
            ServingError: the model server refuses, or does not answer.
        """
        version = await model.current()
        version.require(GENERATE.name)
        if version.info is None:
            _require_older(request)
        reading = Reading(
            request.max_tokens,
            request.truncate_prompt_tokens,
            request.add_special_tokens,
            any_length=request.echo and request.max_tokens == 0,
        )
        return cls(
            version, request, await read_prompts(version, request.prompt, reading)
        )

    def body(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """An answer, or a part of it, with these choices."""
        return {**self._head, "choices": list(choices)}

    async def answer(self) -> dict[str, Any]:
        """The whole answer.

        Raises:
            ServingError: the model server refuses, or does not answer.
        """
        if self.request.use_beam_search:
            choices = await self._beams()
        else:
            choices = await self._samples()
        return {**self.body(choices), "usage": self.usage.body()}

    def seeds(self) -> list[int]:
        """A seed for each completion of each prompt, in [-2**31, 2**31).

        A prompt is completed alike alone and in a list.
        """
        seeds = []
        for _ in self.prompts:
            given = self.request.seed
            base = random.getrandbits(32) if given is None else given
            seeds += [base + candidate for candidate in range(self.request.best_of)]
        return [(seed + 2**31) % 2**32 - 2**31 for seed in seeds]

    def sampling(self) -> dict[str, Any]:
        """The settings of `generate` that hold for all completions.

        What is off is left out, as models that were exported before it was served do
        not know it.
        """
        request = self.request
        penalties = {name: getattr(request, name) for name in PENALTIES}
        told = self.version.info is not None
        return {
            **({"alternatives": request.logprobs or 0} if told else {}),
            "temperature": request.temperature,
            "top_k": max(0, request.top_k),
            "top_p": request.top_p,
            **{
                name: value
                for name, value in penalties.items()
                if value != GENERATE.settings[name].default
            },
        }

    def asked(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Prompts as the signatures take them."""
        if self.version.info is None:
            return {"prompts": [prompt.text for prompt in prompts]}
        return {
            "prompts": [""] * len(prompts),
            "prompt_ids": [prompt.ids or () for prompt in prompts],
        }

    async def echoes(self) -> list[Echo]:
        """What is given back of each prompt."""
        request = self.request
        if not request.echo:
            return [Echo() for _ in self.prompts]
        if request.logprobs is None:
            return [Echo(prompt.text) for prompt in self.prompts]
        if self.version.info is None:
            return await self._older_echoes()
        tokens, scored = await asyncio.gather(
            self.version.tokens(),
            self.client.id_alternatives(
                [prompt.ids or () for prompt in self.prompts], request.logprobs
            ),
        )
        return [
            await unblocked(
                request.size, _echo, prompt, scores, tokens, request.logprobs
            )
            for prompt, scores in zip(self.prompts, scored, strict=True)
        ]

    async def _older_echoes(self) -> list[Echo]:
        texts, count = [p.text for p in self.prompts], self.request.logprobs or 0
        scored = await self.client.token_alternatives(texts)
        return [
            await unblocked(self.request.size, _older_echo, text, scores, count)
            for text, scores in zip(texts, scored, strict=True)
        ]

    async def _samples(self) -> list[dict[str, Any]]:
        generations, echoes = await asyncio.gather(self._written(), self.echoes())
        return await unblocked(self.request.size, self._choices, generations, echoes)

    def _choices(
        self, generations: Sequence[Generation], echoes: Sequence[Echo]
    ) -> list[dict[str, Any]]:
        request = self.request
        choices: list[dict[str, Any]] = []
        for number, (prompt, echo) in enumerate(zip(self.prompts, echoes, strict=True)):
            first = number * request.best_of
            candidates = generations[first : first + request.best_of]
            self.count(prompt, candidates)
            for generation in _best(candidates, request.n):
                choices.append(self._choice(len(choices), echo, generation))
        return choices

    async def _written(self) -> list[Generation]:
        """All completions of all prompts."""
        request = self.request
        prompts = [p for p in self.prompts for _ in range(request.best_of)]
        if self.version.info is not None and request.max_tokens == 0:
            return [Generation("", 0, "length") for _ in prompts]
        if len(request.stop) <= MAX_STOPS:
            return await self.client.generate(
                **self.asked(prompts),
                max_new_tokens=request.max_tokens,
                seed=self.seeds(),
                stop=request.stop or None,
                **self.sampling(),
            )
        return await asyncio.gather(
            *(
                self.writer(prompt, seed).written()
                for prompt, seed in zip(prompts, self.seeds(), strict=True)
            )
        )

    def writer(self, prompt: Prompt, seed: int) -> Writer:
        """Writes one completion, piece by piece, with any number of stop strings."""
        settings = {**self.sampling(), "seed": seed}
        return Writer(self.version, self.request, prompt, settings)

    def count(self, prompt: Prompt, written: Sequence[Generation]) -> None:
        """Counts a prompt, and what was written after it."""
        read = prompt.size if prompt.ids is not None else written[0].prompt_tokens
        self.usage.prompt_tokens += read or 0
        self.usage.completion_tokens += sum(one.new_tokens for one in written)

    def _choice(self, index: int, echo: Echo, generation: Generation) -> dict[str, Any]:
        logprobs = None
        if self.request.logprobs is not None:
            tokens, offsets = placed_tokens(generation)
            if echo.end and not tokens and self._is_at_end(generation):
                # What was drawn is the end of the text, of which there is nothing to
                # show; lm-evaluation-harness counts on a last token all the same.
                tokens, offsets = [echo.end], [0]
            places = [len(echo.text) + offset for offset in offsets]
            logprobs = self.logprobs(echo, tokens, places)
        text = echo.text + text_of(generation)
        return choice_body(index, text, logprobs, generation.finish_reason)

    def logprobs(
        self, echo: Echo, tokens: Sequence[ScoredToken], offsets: Sequence[int]
    ) -> dict[str, Any]:
        """`logprobs` of what is given back, and of new tokens."""
        new = logprobs_body(tokens, offsets, self.request.logprobs or 0)
        return new if echo.logprobs is None else joined(echo.logprobs, new)

    def _is_at_end(self, generation: Generation) -> bool:
        """Whether the model has ended the text, and not a stop string."""
        return generation.finish_reason == STOPPED and not self.request.stop

    async def _beams(self) -> list[dict[str, Any]]:
        request = self.request
        asked = self.asked(self.prompts)
        found = await self.client.beam_search(
            **asked,
            max_new_tokens=request.max_tokens,
            num_beams=request.best_of,
            length_penalty=request.length_penalty,
            stop=request.stop or None,
        )
        probes: Sequence[Generation] = ()
        if self.version.info is None:
            # Which says how many tokens of the prompts are read.
            probes = await self.client.generate(**asked, max_new_tokens=0)
        choices: list[dict[str, Any]] = []
        for number, (prompt, beams) in enumerate(zip(self.prompts, found, strict=True)):
            self.count(prompt, probes[number : number + 1])
            self.usage.completion_tokens += sum(beam.new_tokens for beam in beams)
            for beam in beams[: request.n]:
                text = (prompt.text if request.echo else "") + beam.text
                choices.append(
                    choice_body(len(choices), text, None, beam.finish_reason)
                )
        return choices


def _require_older(request: CompletionRequest) -> None:
    """Refuses what exports that do not tell what they take cannot do."""
    if (request.logprobs or 0) > ALTERNATIVES:
        raise invalid(
            f"'logprobs': this model's export tells {ALTERNATIVES} at most", "logprobs"
        )
    if len(request.stop) > MAX_STOPS:
        raise invalid(
            f"'stop': this model's export takes {MAX_STOPS} strings at most", "stop"
        )


def _older_echo(text: str, scores: TokenAlternatives, count: int) -> Echo:
    *tokens, end = scored_tokens(
        scores.tokens, scores.log_probabilities, scores.alternatives
    )
    tokens[:1] = [ScoredToken(one.text, None, None) for one in tokens[:1]]
    logprobs = logprobs_body(tokens, offsets_in(text, tokens), count)
    return Echo(text, logprobs, end)


def _echo(
    prompt: Prompt, scores: IdAlternatives, names: Sequence[str], count: int
) -> Echo:
    """What is given back of a prompt, given each id's name."""
    ids = prompt.ids or ()
    first = int(prompt.implies_start)
    # That of a token in the scores, which say nothing of the first.
    places = range(first - 1, len(ids) - 1)

    def scored(place: int, name: str, alternatives: int = count) -> ScoredToken:
        if place < first:
            return ScoredToken(name, None, None)
        top = scores.top(place) if alternatives else ()
        shown = [(names[index], score) for index, score in top]
        return ScoredToken(name, scores.log_probabilities[place], shown)

    def body(there: range, alternatives: int) -> dict[str, Any]:
        tokens = (scored(at, names[ids[at + 1]], alternatives) for at in there)
        return logprobs_body(tokens, (), alternatives)

    def tops(start: int, end: int) -> list[Any]:
        found: list[Any] = body(places[start:end], count)["top_logprobs"]
        return found

    named = (ScoredToken(names[index], None) for index in ids[first:])
    logprobs = {
        **body(places, 0),
        "top_logprobs": LongList(len(places), tops) if count else None,
        "text_offset": offsets_in(prompt.text, named),
    }
    return Echo(prompt.text, logprobs, scored(len(ids) - 1, _END))


def choice_body(
    index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None
) -> dict[str, Any]:
    """One of `choices`."""
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }


def _best(candidates: Sequence[Generation], count: int) -> Sequence[Generation]:
    """Those with the highest log-probability a token, in that order."""
    if count == len(candidates):
        return candidates

    def mean(generation: Generation) -> float:
        scores = generation.log_probabilities or ()
        return sum(scores) / max(1, len(scores))

    return sorted(candidates, key=mean, reverse=True)[:count]
