"""What is learned of a mixture when its members have learned: their weights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...models.families import family_of_model
from ...models.tasks.windows import CHUNK_LOGIT_BYTES
from ..progress import show
from .records import Member, Sample, TrainingResult
from .rows.holding_out import HELD_OUT
from .rows.windows import TokenWindows, read_documents
from .settings import TrainerSettings

# As many tokens teach the weights all that they can learn.
_TOKENS = 200_000
_ROWS = 64


def mix(
    model: Any,
    train: Callable[[int, Any], TrainingResult],
    packed: str,
    settings: TrainerSettings,
) -> TrainingResult:
    """Trains the members of a mixture, learns their weights; then what counts has all.

    Args:
        model: The mixture, changed in place.
        train: Lets a member learn from what is not held out, given its number and its
            model.
        packed: Folder with the streams of both splits, and what `hold_out` made of one.
        settings: `steps=0` leaves the weights as initialized.
    """
    parts, rows = model.parts, _rows_of(model)
    results = [train(number, part) for number, part in enumerate(parts)]
    train_path = os.path.join(packed, "train")
    whole, held_out, evaluated = (
        TokenWindows(os.path.join(packed, name), model.context_length)
        for name in ("train", HELD_OUT, "eval")
    )
    started = time.monotonic()
    if settings.steps:
        show("learning the weights of the mixture")
        most = -(-_TOKENS // (rows * model.context_length))
        model.fit_weights(held_out.evaluation_batches(rows, most))
        for part in parts:
            if not family_of_model(part).learns_by_gradient:
                part.fit(read_documents(train_path))
    seconds = time.monotonic() - started
    figures = model.figures(evaluated.evaluation_batches(rows))
    members = [
        Member(
            family=family_of_model(part).name,
            parameters=int(part.count_params()),
            seconds=result.seconds,
            eval_loss=loss,
            weight=weight,
        )
        for part, result, loss, weight in zip(
            parts, results, figures.losses, figures.weights, strict=True
        )
    ]
    return TrainingResult(
        parameters=int(model.count_params()),
        steps=sum(result.steps for result in results),
        resumed_at=sum(result.resumed_at for result in results),
        train_tokens=whole.num_tokens,
        tokens_seen=sum(result.tokens_seen for result in results),
        seconds=seconds + sum(result.seconds for result in results),
        eval_loss=figures.loss,
        members=members,
        **_courses(results),
    )


def _rows_of(model: Any) -> int:
    """Rows of a batch of which all log-probabilities have room."""
    backbone = model.backbone
    row = 4 * model.context_length * backbone.vocabulary_size * len(backbone.members)
    return int(np.clip(CHUNK_LOGIT_BYTES // row, 1, _ROWS))


def _courses(results: Sequence[TrainingResult]) -> dict[str, Any]:
    """The members' curves and texts, the steps of each after those before it."""
    courses: dict[str, list[Any]] = {"history": [], "evaluations": [], "samples": []}
    before = 0
    for result in results:
        for name in ("history", "evaluations"):
            rows = getattr(result, name)
            courses[name] += [{**row, "step": row["step"] + before} for row in rows]
        for sample in result.samples:
            step = sample.step + before
            courses["samples"].append(
                Sample(step=step, time=sample.time, text=sample.text)
            )
        before += result.steps
    return courses
