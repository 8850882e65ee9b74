"""What signatures should give, computed without a graph, a cache or a batch."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def paragraphs() -> list[str]:
    """A thousand short paragraphs of Python's documentation."""
    texts = (text for _, text in sorted(pydoc_data.topics.topics.items()))
    found = (part.strip() for text in texts for part in text.split("\n\n"))
    short = dict.fromkeys(part for part in found if 20 < len(part) < 150)
    return list(short)[:1000]


@pytest.fixture(scope="session")
def evaluation_by_numpy(paragraphs: list[str]) -> Callable[..., dict[str, Any]]:
    """What `evaluate` should give for the paragraphs, from logits and NumPy alone."""

    def by_numpy(
        logits_of: Callable[[dict[str, Any]], Any],
        tokenizer: Any,
        context: int,
        stride: int,
    ) -> dict[str, Any]:
        documents = [
            [int(tokenizer.start_token_id), *ids.numpy(), int(tokenizer.end_token_id)]
            for ids in tokenizer.tokenize(tf.constant(paragraphs))
        ]
        windows = [
            (row, start, document[start : start + context + 1])
            for row, document in enumerate(documents)
            for start in range(0, len(document), stride)
            if not start or start - stride + context < len(document) - 1
        ]
        sums: dict[str, Any] = {
            "nll": np.zeros(len(documents)),
            "tokens": np.array([len(document) - 1 for document in documents]),
            "bytes": np.array([len(text.encode()) for text in paragraphs]),
            "words": np.array([len(text.split()) for text in paragraphs]),
            "characters": np.array([len(text) for text in paragraphs]),
            "unknown_tokens": np.array(
                [d[1:-1].count(int(tokenizer.unk_token_id)) for d in documents]
            ),
            "correct_at_1": np.zeros(len(documents)),
            "correct_at_5": np.zeros(len(documents)),
            "calibration": np.zeros((len(documents), 15, 3)),
        }
        for at in range(0, len(windows), 256):
            part = windows[at : at + 256]
            ids = np.full((len(part), context), int(tokenizer.pad_token_id), np.int32)
            mask = np.zeros(ids.shape, bool)
            for index, (_, _, window) in enumerate(part):
                ids[index, : len(window) - 1] = window[:-1]
                mask[index, : len(window) - 1] = True
            logits = np.asarray(
                logits_of({"token_ids": ids, "padding_mask": mask}), np.float64
            )
            for (row, start, window), scores in zip(part, logits, strict=True):
                new = context - stride if start else 0
                _add(sums, row, scores[new : len(window) - 1], window[1 + new :])
        return sums

    return by_numpy


def _add(sums: dict[str, Any], row: int, logits: Any, targets: list[int]) -> None:
    top = logits.max(axis=-1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    target = np.take_along_axis(logits, np.array(targets)[:, None], axis=-1)
    is_before = np.arange(logits.shape[-1]) < np.array(targets)[:, None]
    ranks = ((logits > target) | (is_before & (logits == target))).sum(axis=-1)
    sums["nll"][row] -= logs[np.arange(len(targets)), targets].sum()
    sums["correct_at_1"][row] += (ranks < 1).sum()
    sums["correct_at_5"][row] += (ranks < 5).sum()
    confidence = np.exp(logs.max(axis=-1))
    bins = np.minimum((confidence * 15).astype(int), 14)
    told = np.stack([np.ones_like(confidence), confidence, ranks < 1], axis=1)
    np.add.at(sums["calibration"][row], bins, told)


def reference_beams(
    log_probabilities: Callable[[list[int]], np.ndarray],
    surface: list[bytes],
    end_id: int,
    *,
    limit: int,
    num_beams: int,
    length_penalty: float,
    stops: list[bytes],
) -> list[tuple[float, float, bytes, int, str]]:
    """Beam search written out: no cache, no batch, no graph.

    Args:
        log_probabilities: of the next token, after new tokens; -inf where it may not be
            proposed.
        surface: bytes of each token.
        end_id: of `</s>`.
        limit: the most new tokens.
        num_beams: how many are kept.
        length_penalty: exponent of the length.
        stops: stop strings.

    Returns:
        Sum of log-probabilities, score, bytes, new tokens and reason, best first.
    """

    def score(beam: Any) -> float:
        return beam[0] / max(len(beam[1]), 1) ** length_penalty

    beams: list[tuple[float, list[int], str]] = [(0.0, [], "")]
    for _ in range(limit):
        grown = []
        for total, tokens, reason in beams:
            if reason:
                grown.append((total, tokens, reason))
                continue
            logs = log_probabilities(tokens)
            for token in np.flatnonzero(np.isfinite(logs)):
                new = [*tokens, int(token)]
                ends = token == end_id or reference_cut(new, surface, stops) is not None
                grown.append((total + logs[token], new, "stop" if ends else ""))
        beams = sorted(grown, key=score, reverse=True)[:num_beams]
    found = []
    for beam in beams:
        total, tokens, reason = beam
        text, count = reference_written(tokens, surface, end_id, stops)
        found.append((total, score(beam), text, count, reason or "length"))
    return found


def reference_cut(
    tokens: list[int], surface: list[bytes], stops: list[bytes]
) -> int | None:
    """Where a text ends by the first stop string in it that is complete."""
    text = b"".join(surface[token] for token in tokens)
    for end in range(1, len(text) + 1):
        here = [len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if here:
            return end - max(here)
    return None


def reference_written(
    tokens: list[int], surface: list[bytes], end_id: int, stops: list[bytes]
) -> tuple[bytes, int]:
    """The text of new tokens as it is served, and how many it has a part of."""
    tokens = tokens[:-1] if tokens[-1:] == [end_id] else tokens
    text = b"".join(surface[token] for token in tokens)
    cut = reference_cut(tokens, surface, stops)
    if cut is not None:
        starts = np.cumsum([0, *(len(surface[token]) for token in tokens)])[:-1]
        text, tokens = text[:cut], tokens[: int(np.sum(starts < cut))]
    # Decoded as TensorFlow does: Python groups invalid bytes in another way.
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8").numpy(), len(tokens)


@pytest.fixture(name="reference_beams", scope="session")
def reference_beams_fixture() -> Any:
    """`reference_beams`, for tests, which cannot import this module."""
    return reference_beams


@pytest.fixture(name="reference_written", scope="session")
def reference_written_fixture() -> Any:
    """`reference_written`, for tests, which cannot import this module."""
    return reference_written
