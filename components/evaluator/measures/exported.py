"""What an exported model is besides its scores: signatures, size, latency, samples."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

import tensorflow as tf

from ....serving.export import contract
from ....serving.export.checks import graphs_of
from ....serving.in_process import ExportedModel

_WARM_UP_CALLS, _CALLS = 5, 50
_PROMPT_WORDS = 6


def missing_signatures(path: str) -> list[str]:
    """The signatures of its task that a SavedModel lacks; all where there is none."""
    names = [signature.name for signature in contract.SIGNATURES["causal_lm"]]
    if not tf.io.gfile.exists(os.path.join(path, contract.SAVED_MODEL_FILE)):
        return names
    (graph,) = graphs_of(path)
    return [name for name in names if name not in graph.signature_def]


def size_mb(path: str) -> float:
    """Size of a folder's files, in millions of bytes."""
    sizes = (
        tf.io.gfile.stat(os.path.join(folder, name)).length
        for folder, _, names in tf.io.gfile.walk(path)
        for name in names
    )
    return sum(sizes) / 1e6


def latency_ms(model: ExportedModel, texts: Sequence[str]) -> float:
    """Median time to say the next tokens after one text, in milliseconds.

    Args:
        model: The model.
        texts: What it is asked, one after the other.
    """
    times = []
    for call in range(_WARM_UP_CALLS + _CALLS):
        started = time.perf_counter()
        model.next_tokens([texts[call % len(texts)]])
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[_WARM_UP_CALLS:])


def samples(model: ExportedModel, texts: Sequence[str]) -> list[dict[str, str]]:
    """What the model writes after the first words of texts, as `prompt` and `text`."""
    prompts = [" ".join(text.split()[:_PROMPT_WORDS]) for text in texts]
    return [
        {"prompt": prompt, "text": written.text}
        for prompt, written in zip(prompts, model.generate(prompts), strict=True)
    ]
