"""Bounds that the command line, the options and both interfaces keep."""

from __future__ import annotations

QUEUE_SIZE = 512
"""Requests that may wait for a thread, unless it is said."""
LARGEST_REQUEST = 100 << 20
"""Bytes of a request, unless it is said: as TensorFlow Serving bounds what it
decompresses."""
LARGEST_REQUESTS = 4
"""All requests that are worked on or wait are not more than so many of the largest."""
