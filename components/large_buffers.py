"""Memory of large buffers, which goes back to the system as soon as they are freed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

_LARGE = 1 << 18  # bytes
_M_MMAP_THRESHOLD = -3  # of malloc.h
# Where glibc stops raising the threshold of its own accord.
_USUAL = 4 << 20 << (ctypes.sizeof(ctypes.c_long) == 8)


@contextlib.contextmanager
def returned() -> Iterator[None]:
    """For work on long documents.

    Once a large buffer was freed, glibc takes all up to its size from heaps, of which
    each thread has one, and in which what is freed stays in pieces: after many long
    documents they hold some of each. With a threshold set, that does not happen; it is
    for the time of the work alone, as to ask the system costs time.

    Nor does Python look for cycles of what is no longer needed as long as there is much
    that has lasted: what there was before the work, TensorFlow's modules among it, does
    not count while it goes on.
    """
    with _nothing_lasting():
        _call("mallopt", _M_MMAP_THRESHOLD, _LARGE)
        try:
            yield
        finally:
            _call("mallopt", _M_MMAP_THRESHOLD, _USUAL)
            trim()


@contextlib.contextmanager
def _nothing_lasting() -> Iterator[None]:
    if gc.get_freeze_count():  # by who called this
        yield
        return
    gc.collect()
    gc.freeze()
    gc.collect()  # finds that nothing has lasted
    try:
        yield
    finally:
        gc.unfreeze()


def trim() -> None:
    """Gives back what heaps hold of smaller buffers that are freed."""
    gc.collect()
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    # Other systems' libraries have no such function, nor the trouble.
    if function := getattr(ctypes.CDLL(None), name, None):
        function(*arguments)
