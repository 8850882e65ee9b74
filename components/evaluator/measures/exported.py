"""What an exported model is besides its scores: signatures, size, latency, samples."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from ....serving.in_process import ExportedModel

SIGNATURES = (
    *("serving_default", "score", "token_scores", "token_alternatives"),
    *("generate", "beam_search", "evaluate"),
)
_WARM_UP_CALLS, _CALLS = 5, 50
_PROMPT_WORDS = 6


def missing_signatures(path: str) -> list[str]:
    """Those of `SIGNATURES` that a SavedModel lacks; all where there is none."""
    file = os.path.join(path, "saved_model.pb")
    if not tf.io.gfile.exists(file):
        return list(SIGNATURES)
    with tf.io.gfile.GFile(file, "rb") as stream:
        (graph,) = SavedModel.FromString(stream.read()).meta_graphs
    return [name for name in SIGNATURES if name not in graph.signature_def]


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
