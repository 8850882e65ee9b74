"""A sample of documents that is the same in whatever order they come."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable

from ...limits import LONGEST


def sample(
    texts: Iterable[str],
    count: int,
    seed: int,
    is_usable: Callable[[str], object] = lambda text: True,
) -> list[str]:
    """Those of the usable texts with the smallest hashes: each set is equally likely.

    Workers give the documents of a split in any order. Equal texts count once.

    Args:
        texts: The texts, which are read once, and of which `count` are kept, or their
            beginnings of `LONGEST` characters.
        count: How many are wanted; if there are fewer, all are taken.
        seed: Another one gives another sample.
        is_usable: Says which texts count; it is asked of few, so it may take its time.
    """

    def digest(text: str) -> bytes:
        return hashlib.sha256(f"{seed} {text}".encode()).digest()

    kept: dict[bytes, str] = {}
    heap: list[int] = []  # the negative of each hash kept, the largest hash first
    for whole in texts:
        text = whole[:LONGEST]
        key = digest(text)
        number = -int.from_bytes(key)
        if key in kept or (len(heap) == count and number < heap[0]):
            continue
        if not is_usable(text):
            continue
        kept[key] = text
        if len(heap) < count:
            heapq.heappush(heap, number)
        else:
            last = -heapq.heapreplace(heap, number)
            del kept[last.to_bytes(32)]
    return [kept[key] for key in sorted(kept)]
