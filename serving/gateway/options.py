"""What may be said to a gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GatewayOptions:
    """Who may ask the gateway, and how much.

    Attributes:
        api_keys: one of these must come with each request; none are needed if empty.
        cors_origins: pages of these origins may ask; `*` stands for all.
        max_completions: of one request: its prompts, times the candidates for each.
        max_body_bytes: of one request.
        max_running: completions worked on at a time; more are refused with 429.
        body_timeout: seconds for the body of a request to arrive.
        strict: whether unknown fields of a request are refused whatever they say.
    """

    api_keys: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    max_completions: int = 64
    max_body_bytes: int = 1 << 21
    max_running: int = 256
    body_timeout: float = 30.0
    strict: bool = False
