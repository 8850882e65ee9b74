"""What a command is told to have taken."""

from __future__ import annotations

import sys
import time

import pytest
from langzoo.pipelines.kubeflow.resources import Resources, run_measured

# A process that holds 64 MB and computes for half a second, beside one that it starts.
MEGABYTES = 64
BUSY = f"""
import subprocess, sys, time
held = bytearray(b"x") * {MEGABYTES * 2**20}
other = sys.argv[1:] and subprocess.Popen([sys.executable, "-c", sys.argv[1]])
while time.process_time() < 0.5:
    pass
time.sleep(1.5)
if other:
    other.wait()
sys.exit(3)
"""


def test_processor_and_memory_of_a_command_are_told():
    status, alone = run_measured([sys.executable, "-c", BUSY])
    assert status == 3
    assert 0.5 <= alone.cpu_seconds < 1.5
    assert alone.wall_seconds >= 2
    assert MEGABYTES <= alone.peak_memory_bytes / 2**20 < 2 * MEGABYTES


def test_processes_that_it_starts_count_as_well():
    status, both = run_measured([sys.executable, "-c", BUSY, BUSY])
    assert status == 3
    assert both.cpu_seconds >= 1
    assert both.peak_memory_bytes / 2**20 >= 2 * MEGABYTES


def test_one_that_a_signal_ends_has_its_negative_number():
    status, _ = run_measured(["sh", "-c", "kill -9 $$"])
    assert status == -9


def test_attempts_add_up_but_not_their_memory():
    assert Resources(1, 2, 30) + Resources(10, 20, 3) == Resources(11, 22, 30)


def test_an_interrupt_ends_the_command(monkeypatch, tmp_path):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    late = tmp_path / "late"
    with pytest.raises(KeyboardInterrupt):
        run_measured(["sh", "-c", f"sleep 1; touch {late}"])
    monkeypatch.undo()
    time.sleep(1.2)
    assert not late.exists()
