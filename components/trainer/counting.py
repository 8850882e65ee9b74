"""The training of a model that only counts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from .evaluation import evaluate
from .networks import compile_network, plain_network
from .records import TrainingResult
from .rows.windows import TokenStream
from .settings import TrainerSettings


def count(
    model: Any,
    documents: Iterable[np.ndarray],
    train_windows: TokenStream,
    eval_windows: TokenStream,
    settings: TrainerSettings,
) -> TrainingResult:
    """Lets a model count, such as an n-gram model: no steps, and nothing to resume.

    Args:
        model: The model, filled in place.
        documents: Token ids of each document, int64 `[num_tokens]`, without start and
            end tokens.
        train_windows: The same documents, for the figures of the result.
        eval_windows: Windows for the loss in the result.
        settings: `steps=0` leaves the model as initialized; the rest is for gradients.
            Packing, too: documents are counted whole, each by itself.
    """
    started = time.monotonic()
    if settings.steps:
        labels = train_windows.labels
        model.fit(documents, *([] if labels is None else [labels]))
    seconds = time.monotonic() - started
    network = plain_network(model)
    compile_network(
        network, settings.model_copy(update={"jit_compile": False}), settings.steps
    )
    return TrainingResult(
        parameters=int(model.count_params()),
        steps=0,
        train_tokens=train_windows.num_tokens,
        tokens_seen=train_windows.num_tokens if settings.steps else 0,
        seconds=seconds,
        eval_loss=evaluate(
            network, eval_windows.evaluation_batches(settings.batch_size)
        ),
    )
