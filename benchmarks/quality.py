"""Quality at equal cost: every family's default recipe beside nanoGPT's for a CPU.

All learn from the first 90 % of a text, byte by byte, and see as many tokens as
nanoGPT does; what is printed is the loss on all windows of the rest. With the text of
tinyshakespeare a byte is a character and the split is the customary one.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from langzoo.models.families import RECIPES
from rich.console import Console
from rich.table import Table

from .apart import measure_apart

NANOGPT = "nanoGPT's (PyTorch)"
FAMILIES = tuple(RECIPES)
NGRAMS = {"ngram, order 5": 5, "ngram, order 8": 8}
MIXTURES: dict[str, list[dict[str, Any]]] = {
    "gated CNN + n-gram": [{"family": "gated_conv"}, {"family": "ngram", "order": 8}],
    "gated CNN + LSTM + n-gram": [
        {"family": "gated_conv"},
        {"family": "lstm"},
        {"family": "ngram", "order": 8},
    ],
}
GOALS = dict.fromkeys(FAMILIES, 1.85) | dict.fromkeys(MIXTURES, 1.4697)
BEST = 1.65
TEXT = "tinyshakespeare.txt of char-rnn"

_CONTEXT = 64
_TRAIN_SHARE = 0.9
_NANOGPT_STEPS, _NANOGPT_BATCH = 2000, 12
_TOKENS = _NANOGPT_STEPS * _NANOGPT_BATCH * _CONTEXT


def main(text: Path, only: str) -> None:
    """Trains all, one after the other, and prints the table."""
    table = Table(title=f"{text.name}: loss on {_CONTEXT} characters of context")
    table.add_column("model")
    for column in ("parameters", "tokens", "seconds", "nats a character", "goal"):
        table.add_column(column, justify="right")
    losses = {}
    for side in (NANOGPT, *FAMILIES, *NGRAMS, *MIXTURES):
        if only not in side:
            continue
        result = measure_apart(__name__, side, text)
        losses[side] = result["loss"]
        goal = GOALS.get(side)
        table.add_row(
            side,
            f"{result['parameters']:,}",
            f"{result['tokens']:,}",
            f"{result['seconds']:.0f}",
            f"{result['loss']:.3f}",
            "" if goal is None else f"{goal}",
        )
    best = min(losses, key=losses.__getitem__)
    table.caption = f"best: {best}; goal of the best: {BEST}"
    Console().print(table)


def measure(side: str, text: bytes) -> dict[str, Any]:
    """Trains one side; returns its parameters, tokens, seconds and loss."""
    end = int(_TRAIN_SHARE * len(text))
    parts = (text[:end], text[end:])
    if side == NANOGPT:
        return _nanogpt(*parts)
    return _zoo(side, *parts)


def _zoo(side: str, *parts: bytes) -> dict[str, Any]:
    """The pipeline's own training, with nothing set but the number of steps."""
    import keras
    import numpy as np
    from langzoo.components.trainer.mixing import mix
    from langzoo.components.trainer.rows.holding_out import LEARNED, hold_out
    from langzoo.components.trainer.rows.windows import TokenWindows
    from langzoo.components.trainer.settings import TrainerSettings
    from langzoo.models import ByteTokenizer, build_causal_lm

    tokenizer = ByteTokenizer()
    family, hyperparameters = side, {}
    if side in NGRAMS:
        family, hyperparameters = "ngram", {"order": NGRAMS[side]}
    if side in MIXTURES:
        family, hyperparameters = "mixture", {"members": MIXTURES[side]}
    steps = _TOKENS // (TrainerSettings().batch_size * _CONTEXT)
    settings = TrainerSettings(steps=steps)
    keras.utils.set_random_seed(settings.seed)
    model = build_causal_lm(family, tokenizer, _CONTEXT, **hyperparameters)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in zip(("train", "eval"), parts, strict=True):
            TokenWindows.write(
                f"{folder}/{name}",
                [np.array(tokenizer(part))],
                vocabulary_size=tokenizer.vocabulary_size(),
                start_id=tokenizer.start_token_id,
                end_id=tokenizer.end_token_id,
                pad_id=tokenizer.pad_token_id,
            )
        if side in MIXTURES:
            hold_out(f"{folder}/train", model.backbone.held_out, _CONTEXT)
            result = mix(
                model,
                lambda number, part: _learned(part, folder, LEARNED, settings),
                folder,
                settings,
            )
        else:
            result = _learned(model, folder, "train", settings)
    return {
        "parameters": result.parameters,
        "tokens": result.tokens_seen,
        "seconds": result.seconds,
        "loss": result.eval_loss,
    }


def _learned(model: Any, folder: str, stream: str, settings: Any) -> Any:
    """What comes of letting a model learn from a stream in a folder."""
    import keras
    from langzoo.components.trainer import training
    from langzoo.components.trainer.counting import count
    from langzoo.components.trainer.rows.windows import TokenWindows, read_documents
    from langzoo.models.families import family_of_model

    path = f"{folder}/{stream}"
    windows = [TokenWindows(one, _CONTEXT) for one in (path, f"{folder}/eval")]
    family = family_of_model(model)
    settings = settings.of_family(family.name)
    if not family.learns_by_gradient:
        return count(model, read_documents(path), *windows, settings)
    network = keras.Model(model.input, model.output)
    checkpoints = f"{folder}/{family.name}"
    return training.train(network, *windows, settings, checkpoints)


def _nanogpt(*parts: bytes) -> dict[str, Any]:
    """nanoGPT's setting for a CPU: 4 layers, 4 heads, width 128, 2000 steps."""
    import numpy as np
    import torch
    from torch.nn import functional

    from . import torch_models

    characters = sorted(set(b"".join(parts)))
    train_ids, eval_ids = (
        torch.from_numpy(np.searchsorted(characters, np.frombuffer(part, np.uint8)))
        for part in parts
    )
    torch.manual_seed(1337)
    model = torch_models.Gpt(len(characters), _CONTEXT, layers=4, heads=4, width=128)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        logits = model(rows[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())

    started = time.perf_counter()
    places = torch.arange(_CONTEXT + 1)
    for step in range(_NANOGPT_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _nanogpt_rate(step)
        starts = torch.randint(len(train_ids) - _CONTEXT, (_NANOGPT_BATCH, 1))
        optimizer.zero_grad(set_to_none=True)
        loss_of(train_ids[starts + places]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - started
    starts = torch.arange(0, len(eval_ids) - _CONTEXT, _CONTEXT)[:, None]
    with torch.no_grad():
        losses = [loss_of(eval_ids[part + places]) for part in starts.split(64)]
    sizes = [len(part) for part in starts.split(64)]
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens": _TOKENS,
        "seconds": seconds,
        "loss": float(np.average(losses, weights=sizes)),
    }


def _nanogpt_rate(step: int) -> float:
    """Linear warm-up to 1e-3, cosine decay to 1e-4."""
    if step < 100:
        return 1e-3 * (step + 1) / 101
    part = (step - 100) / (_NANOGPT_STEPS - 100)
    return 1e-4 + 0.9e-3 * (1 + math.cos(math.pi * part)) / 2


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]).read_bytes())))
