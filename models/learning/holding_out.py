"""Text that is not learned from, so that something can be learned on it."""

from __future__ import annotations

import numpy as np

from ..backbone import require


def held_out(number: int, share: float) -> np.ndarray:
    """Which of some documents, or pieces, are held out: evenly, and one at least.

    Args:
        number: int. How many there are.
        share: float. Of them, about.

    Returns:
        bool `(number,)`.

    Raises:
        ValueError: if there are fewer than two.
    """
    require(number > 1, "There must be two documents at least.", documents=number)
    marks = np.floor(np.arange(number + 1) * max(share, 1 / number) + 0.5)
    return np.diff(marks) > 0
