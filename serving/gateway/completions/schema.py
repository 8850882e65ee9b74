"""What a request for completions may say.

The fields and their ranges are those of
https://platform.openai.com/docs/api-reference/completions/create; the last ones are not
OpenAI's and have the names that vLLM gives them. Defaults are the signatures' own,
which are OpenAI's and vLLM's.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...export.contract import (
    BEAM_SEARCH,
    GENERATE,
    MAX_ALTERNATIVES,
    MAX_BEAMS,
    MAX_STOPS,
)
from .. import fields
from ..errors import invalid
from ..fields import Body, Prompts

PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")

_INT32_MAX = 2**31 - 1
_DEFAULTS = {
    name: setting.default
    for signature in (GENERATE, BEAM_SEARCH)
    for name, setting in signature.settings.items()
}


def _stops(value: Any) -> Any:
    values = [value] if isinstance(value, str) else value
    # An empty string occurs everywhere; it stands for none.
    return [v for v in values if v != ""] if isinstance(values, list) else values


# Of a token's name and log-probability.
_SCORE_BYTES = 25
_Real = Annotated[float, Field(allow_inf_nan=False)]


class StreamOptions(BaseModel):
    """How a stream is sent.

    Attributes:
        include_usage: end the stream with the usage of the whole.
        include_obfuscation: accepted; nothing is obfuscated here.
        continuous_usage_stats: send the usage so far with each part.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False


class CompletionRequest(Body):
    """The body of `POST /v1/completions`.

    Attributes:
        model: one of those that `GET /v1/models` lists.
        prompt: a text or several, or the ids of its tokens, or several lists of these.
            Before a text stands `<s>`, and before ids only what they say.
        max_tokens: the most new tokens; the export's own cap holds as well.
        n: completions for each prompt.
        best_of: completions to draw for each prompt, of which the `n` with the highest
            log-probability a token are answered. With beam search, how many beams.
        stream: send the text as it comes.
        logprobs: so many likeliest tokens at each place, besides the token itself.
        echo: give back the prompt before the completion.
        stop: strings before which the text ends.
        seed: the same seed gives the same text; completion i has the seed plus i.
        user: accepted and not looked at.
        top_k: draw from the k likeliest; 0 or -1 for all.
        repetition_penalty: of tokens in prompt and text; 1 turns it off.
        use_beam_search: search for the likeliest text, with `best_of` (or `n`) beams.
        length_penalty: by whose power of the length a beam's score is divided.
        truncate_prompt_tokens: so many of a prompt's last tokens are read; -1: as many
            as the context has room for.
        add_special_tokens: whether `<s>` stands before a text.
    """

    model: str
    prompt: Prompts = Field([""])
    max_tokens: int = Field(16, ge=0, le=_INT32_MAX)
    temperature: _Real = Field(_DEFAULTS["temperature"], ge=0, le=2)
    top_p: _Real = Field(_DEFAULTS["top_p"], ge=0, le=1)
    n: int = Field(1, ge=1)
    best_of: int = Field(0, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_ALTERNATIVES)
    echo: bool = False
    stop: Annotated[list[str], BeforeValidator(_stops)] = Field([])
    presence_penalty: _Real = Field(_DEFAULTS["presence_penalty"], ge=-2, le=2)
    frequency_penalty: _Real = Field(_DEFAULTS["frequency_penalty"], ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    suffix: str = ""
    logit_bias: dict[str, float] = Field({})
    user: str = ""

    top_k: int = Field(_DEFAULTS["top_k"], ge=-1, le=_INT32_MAX)
    repetition_penalty: _Real = Field(_DEFAULTS["repetition_penalty"], gt=0)
    use_beam_search: bool = False
    length_penalty: _Real = _DEFAULTS["length_penalty"]
    truncate_prompt_tokens: int | None = Field(None, ge=-1, le=_INT32_MAX)
    add_special_tokens: bool = True

    def model_post_init(self, context: Any) -> None:
        """Fills in what depends on another field."""
        self.best_of = self.best_of or self.n

    @property
    def count(self) -> int:
        """How many completions are written."""
        return len(self.prompt) * self.best_of

    @property
    def size(self) -> int:
        """About how many bytes its answer has at most."""
        tokens = self.n * sum(map(len, self.prompt)) + self.count * self.max_tokens
        scores = 0 if self.logprobs is None else 1 + self.logprobs
        return tokens * (1 + scores * _SCORE_BYTES)


def completion_request(body: bytes, strict: bool = False) -> CompletionRequest:
    """The request in a body of JSON; see `fields.parse`."""
    request = fields.parse(CompletionRequest, body, strict)
    _check_together(request)
    return request


def _check_together(request: CompletionRequest) -> None:
    """Refuses what each field allows and all of them do not."""
    if request.suffix:
        raise invalid("'suffix': this model writes on, it cannot fill in", "suffix")
    if request.logit_bias:
        raise invalid("'logit_bias' is not supported: it names token ids", "logit_bias")
    if request.best_of < request.n:
        raise invalid("'best_of' must be at least 'n'", "best_of")
    if request.stream_options is not None and not request.stream:
        raise invalid("'stream_options' is for 'stream' only", "stream_options")
    if request.truncate_prompt_tokens == 0:
        name = "truncate_prompt_tokens"
        raise invalid(f"'{name}' must be -1 or at least 1", name)
    if request.stream and request.best_of > request.n:
        raise invalid("What is best of several cannot be streamed", "best_of")
    if not request.use_beam_search:
        return
    if request.best_of > MAX_BEAMS:
        raise invalid(f"Beam search has at most {MAX_BEAMS} beams", "best_of")
    if request.stream:
        raise invalid("Beam search cannot be streamed", "stream")
    if len(request.stop) > MAX_STOPS:
        raise invalid(f"Beam search has at most {MAX_STOPS} stop strings", "stop")
    if request.logprobs is not None:
        raise invalid("Beam search gives no log-probabilities of tokens", "logprobs")
    for name in PENALTIES:
        if getattr(request, name) != _DEFAULTS[name]:
            raise invalid(f"'{name}' cannot be used with beam search", name)
