"""What the bodies of requests share: how they are read, and what else they may say.

Of other servers' fields those are taken that change no answer, and those at a value
that changes none.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .errors import not_json, refusal, unknown

# Fields that say nothing of the answer.
_BESIDE = frozenset(
    {"cache_salt", "metadata", "priority", "prompt_cache_key", "request_id"}
    | {"safety_identifier", "service_tier", "store"}
)
# The values at which other fields change nothing, but for null and what is empty.
_NEUTRAL: dict[str, Any] = {
    "detokenize": True,
    "response_format": {"type": "text"},
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "tfs": 1,
    "typical_p": 1,
}


class Body(BaseModel):
    """The body of a request; null stands for a field's default."""

    model_config = ConfigDict(extra="allow", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data


_Body = TypeVar("_Body", bound=BaseModel)


def parse(kind: type[_Body], body: bytes, strict: bool = False) -> _Body:
    """The request in a body of JSON.

    Args:
        kind: of request.
        body: of the request.
        strict: whether a field that is not known is refused whatever its value.

    Raises:
        ApiError: 400, with the first thing that is wrong.
    """
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        raise refusal(error) from None
    except ValueError as error:  # what is nested too deeply, among others
        raise not_json(str(error)) from None
    for name, value in (request.model_extra or {}).items():
        if strict or not _changes_nothing(name, value):
            raise unknown(name)
    return request


def _changes_nothing(name: str, value: Any) -> bool:
    """Whether a field of another server says nothing of the answer."""
    if name in _BESIDE or value == _NEUTRAL.get(name, False):
        return True
    return name not in _NEUTRAL and value in ("", [], {})


def _prompts(value: Any) -> Any:
    values = [value] if isinstance(value, str) or _is_ids(value) else value
    if not isinstance(values, list):
        raise PydanticCustomError("prompt", "Input should be a string or a valid list")
    for one in values:
        if not (isinstance(one, str) or one == [] or _is_ids(one)):
            raise PydanticCustomError(
                "prompt", "A prompt is a string or a list of token ids"
            )
    return values


def _is_ids(value: Any) -> bool:
    """Whether these are token ids, and at least one."""
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(type(one) is int for one in value)


# A text or several, or the ids of one's tokens, or several lists of these.
Prompts = Annotated[list[Any], BeforeValidator(_prompts), Field(min_length=1)]
