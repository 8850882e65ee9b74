"""What large buffers took goes back to the system."""

import re
from pathlib import Path

from langzoo.components import large_buffers


def resident():
    """Bytes of this process."""
    (line,) = re.findall(r"VmRSS:(.*) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


def test_freed_buffers_are_given_back_though_others_lie_between():
    def freed():
        """How much less memory there is, of 60 MB that are freed."""
        b"x" * (8 << 20)  # after which glibc of its own accord keeps what is smaller
        buffers = [(b"x" * (3 << 20), b"y" * 5000) for _ in range(20)]
        kept = [small for _, small in buffers]
        before = resident()
        del buffers
        return before - resident(), kept

    with large_buffers.returned():
        given_back, _ = freed()
    assert given_back > 55e6
