"""The model server's throughput and latency beside calls in the same process.

An exported model answers `serving_default`, directly at several batch sizes, and
through the server, in batches, to clients in another process. What is printed is the
ratio of the medians, which says more than either on a machine that others use too.

Many clients in Python compute about as much as the server of a small model, and on the
same cores. So they are joined, where it is installed, by `h2load` (of Debian's package
nghttp2-client), a load generator in C that sends the same request.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .tables import show, table_of

_SECONDS = 5.0
_BATCH_SIZES = (1, 8, 16, 32)
_CLIENTS = (8, 32)
_CONTEXT = 128
_TEXT = "The quick brown fox jumps over the lazy dog. " * 2
_MODEL = "model"
_GOAL_RATIO, _GOAL_MILLISECONDS = 0.85, 3.0
# A batch for each core, which computes it alone.
_BATCHING = f"""
    max_batch_size {{ value: 32 }}
    max_enqueued_batches {{ value: 100 }}
    batch_timeout_micros {{ value: 0 }}
    num_batch_threads {{ value: {os.cpu_count()} }}
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


# From a server's address and a number of clients to requests a second.
_Load = Callable[[str, int], float]


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
    loads: dict[str, _Load] = {"Python": lambda *args: _ask(*args)[0]}
    if shutil.which("h2load"):
        loads["h2load"] = _load
    table = table_of(
        "serving_default, requests a second and milliseconds",
        "parameters",
        "direct, best",
        *(f"{count} of {name}" for name in loads for count in _CLIENTS),
        f"ratios (goal {_GOAL_RATIO})",
        "direct, 1",
        "1 client",
        f"over (goal {_GOAL_MILLISECONDS:.0f} ms)",
    )
    for setting in SETTINGS:
        if only.lower() in setting.name.lower():
            table.add_row(setting.name, *_measure(setting, rounds, loads))
    show(table)


def _measure(setting: Setting, rounds: int, loads: dict[str, _Load]) -> list[str]:
    from langzoo.serving.server.process import running_server

    with tempfile.TemporaryDirectory() as folder:
        base_path = Path(folder) / _MODEL
        _export(setting, base_path / "1")
        parameters = Path(folder) / "batching.config"
        parameters.write_text(_BATCHING)
        flags = (
            "--enable_batching",
            "--tensorflow_intra_op_parallelism=1",
            f"--batching_parameters_file={parameters}",
            f"--grpc_max_threads={max(_CLIENTS) + 8}",
        )
        alone: list[float] = []
        served: dict[tuple[str, int], list[float]] = {}
        directs: list[dict[int, float]] = []
        for _ in range(rounds):
            directs.append(_direct(base_path / "1"))
            # For many clients a core computes a batch; one alone has all cores.
            with running_server(str(base_path)) as address:
                alone.append(_ask(address, 1)[1])
            with running_server(str(base_path), flags=flags) as address:
                for name, load in loads.items():
                    for clients in _CLIENTS:
                        rate = load(address, clients)
                        served.setdefault((name, clients), []).append(rate)
    direct = {
        size: statistics.median(rates[size] for rates in directs)
        for size in _BATCH_SIZES
    }
    best = max(direct.values())
    rates = [statistics.median(measured) for measured in served.values()]
    call = 1000 / direct[1]
    wait = 1000 * statistics.median(alone)
    return [
        f"{best:,.0f}/s",
        *(f"{rate:,.0f}/s" for rate in rates),
        " ".join(f"{rate / best:.2f}" for rate in rates),
        f"{call:.1f} ms",
        f"{wait:.1f} ms",
        f"{wait - call:.1f} ms",
    ]


def _export(setting: Setting, path: Path) -> None:
    from langzoo.models.tokenizers.byte import ByteTokenizer
    from langzoo.models.zoo import build_causal_lm
    from langzoo.serving.export.saved_model import export_causal_lm

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


def _load(address: str, clients: int) -> float:
    """Requests a second that h2load gets answered.

    Raises:
        RuntimeError: if one fails.
    """
    import grpc
    from langzoo.serving.client import Client, channel, questions

    call = channel.predict(Client(address), questions.next_tokens([_TEXT]))
    message = call.request.SerializeToString()
    with grpc.insecure_channel(address) as connection:
        answer = connection.unary_unary(call.path)(message)
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(message).to_bytes(4, "big") + message)
        body.flush()
        ended = subprocess.run(
            [
                "h2load",
                f"--clients={clients}",
                f"--duration={_SECONDS:.0f}",
                "--warm-up-time=1",
                "-Hcontent-type: application/grpc",
                "-Hte: trailers",
                f"--data={body.name}",
                f"http://{address}{call.path}",
            ],
            capture_output=True,
            text=True,
        )
    rate = re.search(r", ([\d.]+) req/s", ended.stdout)
    succeeded = re.search(r"(\d+) succeeded", ended.stdout)
    data = re.search(r"\((\d+)\) data", ended.stdout)
    # To HTTP, a refusal is a success as well, but shorter than an answer.
    if not (rate and succeeded and data) or (
        int(data[1]) < int(succeeded[1]) * len(answer)
    ):
        raise RuntimeError(f"h2load failed: {ended.stdout} {ended.stderr}")
    return float(rate[1])


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
