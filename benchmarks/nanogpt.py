"""nanoGPT's setting for a CPU in PyTorch: 4 layers, 4 heads, width 128, 2000 steps."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

_CONTEXT = 64
_STEPS, _BATCH = 2000, 12


def measure(folder: Path, seed: int) -> dict[str, Any]:
    """Trains on the bytes of `train.txt`; the value is the loss on `eval.txt`."""
    import numpy as np
    import torch
    from torch.nn import functional

    from . import torch_models

    parts = [(folder / name).read_bytes() for name in ("train.txt", "eval.txt")]
    characters = sorted(set(b"".join(parts)))
    train_ids, eval_ids = (
        torch.from_numpy(np.searchsorted(characters, np.frombuffer(part, np.uint8)))
        for part in parts
    )
    torch.manual_seed(1337 + seed)
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
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        starts = torch.randint(len(train_ids) - _CONTEXT, (_BATCH, 1))
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
        "tokens": _STEPS * _BATCH * _CONTEXT,
        "seconds": seconds,
        "value": float(np.average(losses, weights=sizes)),
    }


def _rate(step: int) -> float:
    """Linear warm-up to 1e-3, cosine decay to 1e-4."""
    if step < 100:
        return 1e-3 * (step + 1) / 101
    part = (step - 100) / (_STEPS - 100)
    return 1e-4 + 0.9e-3 * (1 + math.cos(math.pi * part)) / 2
