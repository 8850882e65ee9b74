"""What a run shows on a terminal."""

from __future__ import annotations

import io
import re

from langzoo.components.progress import show
from langzoo.pipelines.local.console import NodeProgress
from rich.console import Console


def test_a_state_that_is_longer_than_the_terminal_is_wide_is_shown_whole():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=60)
    words = [f"word{number}" for number in range(20)]
    with NodeProgress(console).attached() as progress:
        progress.start("Trainer")
        show(" ".join(words))
        progress.finish(cached=False)
    assert set(re.findall(r"word\d+", output.getvalue())) == set(words)
