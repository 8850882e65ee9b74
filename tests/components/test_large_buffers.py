"""What large buffers took goes back to the system."""

import subprocess
import sys

# In a process that has nothing else to take the buffers from.
FREED = """
import re
from pathlib import Path
from langzoo.components import large_buffers

def resident():
    (line,) = re.findall(r"VmRSS:(.*) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024

with large_buffers.returned():
    b"x" * (8 << 20)  # after which glibc of its own accord keeps what is smaller
    buffers = [(b"x" * (3 << 20), b"y" * 5000) for _ in range(20)]
    kept = [small for _, small in buffers]
    before = resident()
    del buffers
    print(before - resident())
"""


GARBAGE = """
import collections
import gc
import weakref
from langzoo.components import large_buffers

class Node:
    def __init__(self):
        self.itself = self

lasting = [[] for _ in range(400_000)]
gc.collect()
there, recent = weakref.WeakSet(), collections.deque(maxlen=60)
with large_buffers.returned():
    for _ in range(1000):
        recent.append(Node())
        there.add(recent[-1])
        [[] for _ in range(1000)]
    print(len(there), gc.get_freeze_count() > 0)
print(gc.get_freeze_count())
"""


def run(script):
    command = [sys.executable, "-P", "-c", script]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_cycles_are_found_however_much_has_lasted():
    left, is_frozen, after = run(GARBAGE).split()
    assert int(left) < 500
    assert (is_frozen, after) == ("True", "0")


def test_freed_buffers_are_given_back_though_others_lie_between():
    assert int(run(FREED)) > 55e6
