"""Measuring in a process of its own, and the median of repeated calls."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measure_apart(module: str, *arguments: object) -> Any:
    """Runs a module as a program; returns the JSON of its last line.

    Raises:
        RuntimeError: with the end of what it said, if it fails.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stderr[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def run_for(call: Callable[[], object], total: float) -> list[float]:
    """Calls again and again for some seconds; returns how long each call took."""
    seconds: list[float] = []
    end = time.perf_counter() + total
    while time.perf_counter() < end or len(seconds) < 3:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def peak_megabytes() -> float:
    """The most that this process has had resident, or one that it has started."""
    # Linux counts kibibytes. What it counts of a process itself in `getrusage` begins
    # with its parent's.
    status = Path("/proc/self/status").read_text()
    (own,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(int(own), started) * 1024 / 1e6
