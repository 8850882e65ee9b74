"""Completions from the signatures of a model.

`generate` and `beam_search` write them, and `token_alternatives` says how likely the
tokens of a prompt are.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...client import Alternative, AsyncClient, Generation
from ...export.contract import GENERATE
from ..metrics import Usage
from ..transcript import ScoredToken, Transcript, logprobs_body, offsets_in
from .schema import PENALTIES, CompletionRequest

STOPPED = "stop"


@dataclass
class Echo:
    """What is given back of a prompt.

    Attributes:
        text: the prompt; empty where it is not asked for.
        tokens: of the prompt; empty where log-probabilities are not asked for.
        offsets: the character at which each begins.
        end: how likely the prompt ends where it does, `</s>`.
    """

    text: str = ""
    tokens: list[ScoredToken] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    end: ScoredToken | None = None


class Completion:
    """One request for completions, as it is answered.

    Args:
        client: of the model.
        request: what is asked.

    Attributes:
        usage: counts up while the answer comes.
    """

    def __init__(self, client: AsyncClient, request: CompletionRequest) -> None:
        self.client = client
        self.request = request
        self.usage = Usage()
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }

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
        for _ in self.request.prompt:
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
        return {
            "temperature": request.temperature,
            "top_k": max(0, request.top_k),
            "top_p": request.top_p,
            **{
                name: value
                for name, value in penalties.items()
                if value != GENERATE.settings[name].default
            },
        }

    async def echoes(self) -> list[Echo]:
        """What is given back of each prompt."""
        request = self.request
        if not request.echo:
            return [Echo() for _ in request.prompt]
        if request.logprobs is None:
            return [Echo(prompt) for prompt in request.prompt]
        echoes = []
        scored = await self.client.token_alternatives(request.prompt)
        for prompt, scores in zip(request.prompt, scored, strict=True):
            *tokens, end = scored_tokens(
                scores.tokens, scores.log_probabilities, scores.alternatives
            )
            echoes.append(Echo(prompt, tokens, offsets_in(prompt, tokens), end))
        return echoes

    async def _samples(self) -> list[dict[str, Any]]:
        request = self.request
        generations, echoes = await asyncio.gather(
            self.client.generate(
                [p for p in request.prompt for _ in range(request.best_of)],
                max_new_tokens=request.max_tokens,
                seed=self.seeds(),
                stop=request.stop or None,
                **self.sampling(),
            ),
            self.echoes(),
        )
        choices: list[dict[str, Any]] = []
        for number, echo in enumerate(echoes):
            first = number * request.best_of
            candidates = generations[first : first + request.best_of]
            self.usage.prompt_tokens += candidates[0].prompt_tokens or 0
            self.usage.completion_tokens += sum(c.new_tokens for c in candidates)
            for generation in _best(candidates, request.n):
                choices.append(self._choice(len(choices), echo, generation))
        return choices

    def _choice(self, index: int, echo: Echo, generation: Generation) -> dict[str, Any]:
        logprobs = None
        if self.request.logprobs is not None:
            tokens, offsets = placed_tokens(generation)
            if echo.end and not tokens and self._is_at_end(generation):
                # What was drawn is the end of the text, of which there is nothing to
                # show; lm-evaluation-harness counts on a last token all the same.
                tokens, offsets = [echo.end], [0]
            logprobs = logprobs_body(
                [*echo.tokens, *tokens],
                [*echo.offsets, *(len(echo.text) + offset for offset in offsets)],
                self.request.logprobs,
            )
        text = echo.text + text_of(generation)
        return choice_body(index, text, logprobs, generation.finish_reason)

    def _is_at_end(self, generation: Generation) -> bool:
        """Whether the model has ended the text, and not a stop string."""
        return generation.finish_reason == STOPPED and not self.request.stop

    async def _beams(self) -> list[dict[str, Any]]:
        request = self.request
        found, probes = await asyncio.gather(
            self.client.beam_search(
                request.prompt,
                max_new_tokens=request.max_tokens,
                num_beams=request.best_of,
                length_penalty=request.length_penalty,
                stop=request.stop or None,
            ),
            # Which says how many tokens of the prompts are read.
            self.client.generate(request.prompt, max_new_tokens=0),
        )
        choices: list[dict[str, Any]] = []
        for prompt, beams, probe in zip(request.prompt, found, probes, strict=True):
            self.usage.prompt_tokens += probe.prompt_tokens or 0
            self.usage.completion_tokens += sum(beam.new_tokens for beam in beams)
            for beam in beams[: request.n]:
                text = (prompt if request.echo else "") + beam.text
                choices.append(
                    choice_body(len(choices), text, None, beam.finish_reason)
                )
        return choices


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


def text_of(generation: Generation) -> str:
    """The new text; bytes that are no character become U+FFFD."""
    return generation.text_bytes.decode("utf-8", "replace")


def tokens_of(generation: Generation) -> list[ScoredToken]:
    """The new tokens; none of a model that was exported before they were served."""
    return scored_tokens(
        generation.tokens or (),
        generation.log_probabilities or (),
        generation.alternatives or (),
    )


def placed_tokens(generation: Generation) -> tuple[list[ScoredToken], list[int]]:
    """The new tokens, and the character of the new text at which each begins."""
    transcript = Transcript()
    transcript.add(tokens_of(generation))
    transcript.end()
    _, tokens, offsets = transcript.take()
    return tokens, offsets


def scored_tokens(
    tokens: Sequence[str],
    log_probabilities: Sequence[float],
    alternatives: Sequence[Sequence[Alternative]],
) -> list[ScoredToken]:
    """Tokens as the client gives them."""
    return [
        ScoredToken(
            token,
            log_probability,
            tuple((other.token, other.log_probability) for other in others),
        )
        for token, log_probability, others in zip(
            tokens, log_probabilities, alternatives, strict=True
        )
    ]


def _best(candidates: Sequence[Generation], count: int) -> Sequence[Generation]:
    """Those with the highest log-probability a token, in that order."""
    if count == len(candidates):
        return candidates

    def mean(generation: Generation) -> float:
        scores = generation.log_probabilities or ()
        return sum(scores) / max(1, len(scores))

    return sorted(candidates, key=mean, reverse=True)[:count]
