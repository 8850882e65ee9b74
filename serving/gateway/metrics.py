"""What the gateway counts."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

from ..metrics import Counter, Distribution


@dataclass
class Usage:
    """How many tokens a request has read and written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def body(self) -> dict[str, int]:
        """`usage` of an answer."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class GatewayMetrics:
    """What the gateway counts, as Prometheus reads it."""

    def __init__(self) -> None:
        prefix = "langzoo_gateway"
        self.requests = Counter(f"{prefix}_requests_total", ["model", "status"])
        self.prompt_tokens = Counter(f"{prefix}_prompt_tokens_total", ["model"])
        self.completion_tokens = Counter(f"{prefix}_completion_tokens_total", ["model"])
        seconds = functools.partial(
            Distribution, labels=["model"], scale=0.001, growth=2, count=18
        )
        self.seconds = seconds(f"{prefix}_request_seconds")
        self.first_seconds = seconds(f"{prefix}_time_to_first_token_seconds")

    def page(self) -> str:
        """All of it as the text that Prometheus reads."""
        return "\n".join(line for m in vars(self).values() for line in m.lines()) + "\n"


class Record:
    """What is counted of one request.

    Args:
        metrics: where it is counted.

    Attributes:
        model: whom it asks; empty before that is known to exist.
    """

    def __init__(self, metrics: GatewayMetrics) -> None:
        self.model = ""
        self._metrics = metrics
        self._start = time.monotonic()

    def first_token(self) -> None:
        """The first part of a stream is there."""
        seconds = time.monotonic() - self._start
        self._metrics.first_seconds.add(self.model, value=seconds)

    def done(self, status: int, usage: Usage | None = None) -> None:
        """The request is answered."""
        metrics, usage = self._metrics, usage or Usage()
        metrics.requests.add(self.model, str(status))
        metrics.prompt_tokens.add(self.model, count=usage.prompt_tokens)
        metrics.completion_tokens.add(self.model, count=usage.completion_tokens)
        metrics.seconds.add(self.model, value=time.monotonic() - self._start)
