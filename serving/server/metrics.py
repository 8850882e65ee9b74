"""The server's metrics, under TensorFlow Serving's names."""

from __future__ import annotations

from collections.abc import Iterable

from ..metrics import Counter, Distribution


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        prefix = "/tensorflow/serving"
        self.requests = Counter(f"{prefix}/request_count", ["model_name", "status"])
        self.request_latency = Distribution(
            f"{prefix}/request_latency", ["model_name", "API", "entrypoint"]
        )
        self.runtime_latency = Distribution(
            f"{prefix}/runtime_latency", ["model_name", "API", "runtime"]
        )
        self.example_counts = Distribution(
            f"{prefix}/request_example_counts", ["model"], scale=1, growth=2, count=15
        )
        self.examples = Counter(f"{prefix}/request_example_count_total", ["model"])
        self.warmup_latency = Distribution(
            f"{prefix}/model_warmup_latency", ["model_path", "status"]
        )
        self.warmup_records = Counter(
            f"{prefix}/model_warmup_records_read", ["model_path", "status"]
        )
        self.queuing_latency = Distribution(
            f"{prefix}/batching_session/queuing_latency",
            ["thread_pool_name"],
            scale=100,
            growth=1.2,
            count=52,
        )
        self.batch_runs = Counter(f"{prefix}/batching_session/wrapped_run_count")
        self.load_attempts = Counter(
            "/tensorflow/cc/saved_model/load_attempt_count", ["model_path", "status"]
        )
        self.load_latency = Counter(
            "/tensorflow/cc/saved_model/load_latency", ["model_path"]
        )

    def counts(self, names: Iterable[str]) -> dict[str, int]:
        """The value of each counter that is named, 0 for what is none."""
        counters = {m.name: m for m in vars(self).values() if isinstance(m, Counter)}
        return {
            name: counters[name].value() if name in counters else 0 for name in names
        }

    def page(self) -> str:
        """All of it as the text that Prometheus reads."""
        metrics = sorted(vars(self).values(), key=lambda metric: metric.name)
        return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"
