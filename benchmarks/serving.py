"""The model server's throughput and latency beside calls in the same process.

An exported model answers `serving_default`, directly at several batch sizes, and
through the server, in batches, to clients in another process. What is printed is the
ratio of the medians, which says more than either on a machine that others use too.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

_SECONDS = 5.0
_BATCH_SIZES = (1, 8, 16, 32)
_CLIENTS = (8, 32)
_CONTEXT = 128
_TEXT = "The quick brown fox jumps over the lazy dog. " * 2
_MODEL = "model"
_GOAL_RATIO, _GOAL_MILLISECONDS = 0.85, 3.0
_BATCHING = """
    max_batch_size { value: 32 } batch_timeout_micros { value: 0 }
    num_batch_threads { value: 1 } max_enqueued_batches { value: 100 }
"""

# Asks from as many threads as it is told to, and prints requests a second and the
# median of their seconds.
_CLIENT = """
import statistics, sys, threading, time
from langzoo.serving.client import Client
address, clients, seconds, text = sys.argv[1:]
waits = []
def ask():
    with Client(address) as client:
        client.next_tokens([text])
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            start = time.perf_counter()
            client.next_tokens([text])
            waits.append(time.perf_counter() - start)
threads = [threading.Thread(target=ask) for _ in range(int(clients))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(waits) / float(seconds), statistics.median(waits))
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A Transformer of bytes: its name in the table, its layers and their width."""

    name: str
    layers: int
    width: int


SETTINGS = [Setting("1 M", 4, 144), Setting("9 M", 5, 384)]


def main(rounds: int, only: str) -> None:
    """Measures and prints the table.

    Raises:
        RuntimeError: if a client fails.
    """
    table = Table(title="serving_default, requests a second and milliseconds")
    for column in (
        "parameters",
        "direct, best",
        *(f"{count} clients" for count in _CLIENTS),
        f"ratios (goal {_GOAL_RATIO})",
        "direct, 1",
        "1 client",
        f"over (goal {_GOAL_MILLISECONDS:.0f} ms)",
    ):
        table.add_column(column, justify="right")
    for setting in SETTINGS:
        if only.lower() in setting.name.lower():
            table.add_row(setting.name, *_measure(setting, rounds))
    Console().print(table)


def _measure(setting: Setting, rounds: int) -> list[str]:
    from langzoo.serving.process import running_server

    with tempfile.TemporaryDirectory() as folder:
        base_path = Path(folder) / _MODEL
        _export(setting, base_path / "1")
        parameters = Path(folder) / "batching.config"
        parameters.write_text(_BATCHING)
        flags = (
            "--enable_batching",
            f"--batching_parameters_file={parameters}",
            f"--grpc_max_threads={max(_CLIENTS) + 8}",
        )
        served: dict[int, list[tuple[float, float]]] = {}
        directs: list[dict[int, float]] = []
        for _ in range(rounds):
            directs.append(_direct(base_path / "1"))
            with running_server(str(base_path), flags=flags) as address:
                for clients in (1, *_CLIENTS):
                    served.setdefault(clients, []).append(_ask(address, clients))
    direct = {
        size: statistics.median(rates[size] for rates in directs)
        for size in _BATCH_SIZES
    }
    best = max(direct.values())
    rates = {c: statistics.median(rate for rate, _ in served[c]) for c in _CLIENTS}
    alone = 1000 / direct[1]
    wait = 1000 * statistics.median(wait for _, wait in served[1])
    return [
        f"{best:,.0f}/s",
        *(f"{rate:,.0f}/s" for rate in rates.values()),
        " ".join(f"{rate / best:.2f}" for rate in rates.values()),
        f"{alone:.1f} ms",
        f"{wait:.1f} ms",
        f"{wait - alone:.1f} ms",
    ]


def _export(setting: Setting, path: Path) -> None:
    from langzoo.models.tokenizers import ByteTokenizer
    from langzoo.models.zoo import build_causal_lm
    from langzoo.serving.export import export_causal_lm

    model = build_causal_lm(
        "transformer",
        ByteTokenizer(),
        _CONTEXT,
        num_layers=setting.layers,
        num_heads=8,
        hidden_dim=setting.width,
    )
    path.parent.mkdir()
    export_causal_lm(model, path)


def _direct(path: Path) -> dict[int, float]:
    """Rows a second in this process, by the size of the batch."""
    import numpy as np
    from langzoo.serving.server.servable import load_servable

    servable = load_servable(1, path)
    signature = servable.signature()
    assert signature is not None
    rates = {}
    for size in _BATCH_SIZES:
        inputs = {"text": np.array([_TEXT.encode()] * size, object)}
        signature.run(inputs)
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < _SECONDS:
            signature.run(inputs)
            calls += 1
        rates[size] = calls * size / (time.perf_counter() - start)
    servable.close()
    return rates


def _ask(address: str, clients: int) -> tuple[float, float]:
    """Requests a second, and the median of the seconds that one takes."""
    arguments = [address, str(clients), str(_SECONDS), _TEXT]
    ended = subprocess.run(
        [sys.executable, "-c", _CLIENT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    if ended.returncode:
        raise RuntimeError(f"a client failed: {ended.stderr}")
    rate, wait = map(float, ended.stdout.split())
    return rate, wait
