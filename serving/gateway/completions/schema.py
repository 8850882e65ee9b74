"""What a request for completions may say.

The fields and their ranges are those of
https://platform.openai.com/docs/api-reference/completions/create; the last ones are not
OpenAI's and have the names that vLLM gives them. Defaults are the signatures' own,
which are OpenAI's and vLLM's.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ...export.contract import (
    ALTERNATIVES,
    BEAM_SEARCH,
    GENERATE,
    MAX_BEAMS,
    MAX_STOPS,
)
from ..errors import ApiError, invalid

PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")

_INT32_MAX = 2**31 - 1
_DEFAULTS = {
    name: setting.default
    for signature in (GENERATE, BEAM_SEARCH)
    for name, setting in signature.settings.items()
}


def _prompts(value: Any) -> Any:
    values = [value] if isinstance(value, str) else value
    if isinstance(values, list) and any(isinstance(v, int | list) for v in values):
        raise PydanticCustomError(
            "prompt", "Prompts of token ids are not supported: send text"
        )
    return values


def _stops(value: Any) -> Any:
    values = [value] if isinstance(value, str) else value
    # An empty string occurs everywhere; it stands for none.
    return [v for v in values if v != ""] if isinstance(values, list) else values


_Real = Annotated[float, Field(allow_inf_nan=False)]


class StreamOptions(BaseModel):
    """How a stream is sent.

    Attributes:
        include_usage: end the stream with the usage of the whole.
        include_obfuscation: accepted; nothing is obfuscated here.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class CompletionRequest(BaseModel):
    """The body of `POST /v1/completions`; null stands for a field's default.

    Attributes:
        model: one of those that `GET /v1/models` lists.
        prompt: a text or several.
        max_tokens: the most new tokens; the export's own cap holds as well.
        n: completions for each prompt.
        best_of: completions to draw for each prompt, of which the `n` with the highest
            log-probability a token are answered. With beam search, how many beams.
        stream: send the text as it comes.
        logprobs: so many likeliest tokens at each place, besides the token itself.
        echo: give back the prompt before the completion.
        stop: up to four strings before which the text ends.
        seed: the same seed gives the same text; completion i has the seed plus i.
        user: accepted and not looked at.
        top_k: draw from the k likeliest; 0 or -1 for all.
        repetition_penalty: of tokens in prompt and text; 1 turns it off.
        use_beam_search: search for the likeliest text, with `best_of` (or `n`) beams.
        length_penalty: by whose power of the length a beam's score is divided.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    prompt: Annotated[
        list[str], BeforeValidator(_prompts), Field(min_length=1, strict=True)
    ] = [""]
    max_tokens: int = Field(16, ge=0, le=_INT32_MAX)
    temperature: _Real = Field(_DEFAULTS["temperature"], ge=0, le=2)
    top_p: _Real = Field(_DEFAULTS["top_p"], ge=0, le=1)
    n: int = Field(1, ge=1)
    best_of: int = Field(0, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=ALTERNATIVES)
    echo: bool = False
    stop: Annotated[
        list[str], BeforeValidator(_stops), Field(max_length=MAX_STOPS)
    ] = []
    presence_penalty: _Real = Field(_DEFAULTS["presence_penalty"], ge=-2, le=2)
    frequency_penalty: _Real = Field(_DEFAULTS["frequency_penalty"], ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    suffix: str = ""
    logit_bias: dict[str, float] = {}
    user: str = ""

    top_k: int = Field(_DEFAULTS["top_k"], ge=-1, le=_INT32_MAX)
    repetition_penalty: _Real = Field(_DEFAULTS["repetition_penalty"], gt=0)
    use_beam_search: bool = False
    length_penalty: _Real = _DEFAULTS["length_penalty"]

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data

    def model_post_init(self, context: Any) -> None:
        """Fills in what depends on another field."""
        self.best_of = self.best_of or self.n


def parse(body: bytes) -> CompletionRequest:
    """The request in a body of JSON.

    Raises:
        ApiError: 400, with the first thing that is wrong.
    """
    try:
        request = CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None
    except ValueError as error:  # what is nested too deeply, among others
        raise _not_json(str(error)) from None
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
    if request.stream and request.best_of > request.n:
        raise invalid("What is best of several cannot be streamed", "best_of")
    if not request.use_beam_search:
        return
    if request.best_of > MAX_BEAMS:
        raise invalid(f"Beam search has at most {MAX_BEAMS} beams", "best_of")
    if request.stream:
        raise invalid("Beam search cannot be streamed", "stream")
    if request.logprobs is not None:
        raise invalid("Beam search gives no log-probabilities of tokens", "logprobs")
    for name in PENALTIES:
        if getattr(request, name) != _DEFAULTS[name]:
            raise invalid(f"'{name}' cannot be used with beam search", name)


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False)[0]
    kind, path = first["type"], [str(part) for part in first["loc"]]
    if kind in ("json_invalid", "model_type", "model_attributes_type"):
        return _not_json(first["msg"])
    name = ".".join(path)
    if kind == "extra_forbidden":
        return invalid(f"Unrecognized request argument supplied: {name}", name)
    if kind == "missing":
        return invalid(f"You must provide a {name} parameter", name)
    return invalid(f"'{name}': {first['msg']}", path[0] if path else None)


def _not_json(why: str) -> ApiError:
    return invalid(f"The body of the request is not a JSON object: {why}")
