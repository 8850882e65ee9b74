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


def test_freed_buffers_are_given_back_though_others_lie_between():
    ended = subprocess.run([sys.executable, "-P", "-c", FREED], capture_output=True)
    assert int(ended.stdout) > 55e6
