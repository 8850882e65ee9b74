"""What a command takes: time, processor and memory.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

_SAMPLE_SECONDS = 0.2
_KILOBYTE = 1024


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a command has taken, with all processes that it started.

    Attributes:
        wall_seconds: From its start to its end.
        cpu_seconds: Of all cores, of the processes that it has waited for.
        peak_memory_bytes: Resident at most; where there were several processes, of all
            at one time.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __add__(self, other: Resources) -> Resources:
        """Those of two commands, one after the other."""
        return Resources(
            self.wall_seconds + other.wall_seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


def run_measured(command: Sequence[str], **options: Any) -> tuple[int, Resources]:
    """Runs a command.

    Args:
        command: The command.
        **options: As `subprocess.Popen` takes them.

    Returns:
        Its exit status, and what it took.
    """
    started = time.monotonic()
    process = subprocess.Popen(command, **options)
    peak = 0
    try:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, _memory(process.pid))
            time.sleep(_SAMPLE_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    _, status, usage = ended
    # Who has waited for it is not the object, which is to know.
    process.returncode = os.waitstatus_to_exitcode(status)
    took = Resources(
        wall_seconds=time.monotonic() - started,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        # Not usage.ru_maxrss, which is no less than this process's own was.
        peak_memory_bytes=peak,
    )
    return process.returncode, took


def _memory(pid: int) -> int:
    """Bytes: a process's peak until now, or what it and those that it started hold.

    Files that several have in memory, such as libraries, are counted once. (The
    kernel's proportional share, PSS, would leave a part of them to other programs.)
    """
    try:
        process = psutil.Process(pid)
        held = [one.memory_info() for one in process.children(recursive=True)]
        held.append(process.memory_info())
        own = sum(one.rss - one.shared for one in held)
        return max(_peak_of(pid), own + max(one.shared for one in held))
    except (OSError, psutil.Error):  # One has just ended: the next sample is as good.
        return 0


def _peak_of(pid: int) -> int:
    """Bytes that a process had resident at most; 0 where it has ended."""
    status = Path("/proc", str(pid), "status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * _KILOBYTE if found else 0
