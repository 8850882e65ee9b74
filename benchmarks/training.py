"""Training speed: the zoo beside PyTorch, same sizes, batch and optimizer.

Each side runs in a process of its own, in turn, several times; what is printed is the
ratio of the medians, which says more than either on a machine that others use too.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

from .apart import measure_apart, run_for
from .tables import show, table_of

_WARM_UP_SECONDS = 3.0
_MEASURED_SECONDS = 8.0
_GPT2 = {
    "positions": "learned",
    "normalization": "layer_norm",
    "activation": "gelu",
    "use_bias": False,
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One pair of models.

    Attributes:
        name: Shown in the table.
        family: Of the zoo.
        hyperparameters: Of the zoo's model.
        torch: Class in `torch_models` and its arguments after the vocabulary.
        vocabulary: Number of token ids.
        context: Tokens a row.
        batch: Rows a step.
        goal: Tokens a second, as a multiple of PyTorch's.
    """

    name: str
    family: str
    hyperparameters: dict[str, Any]
    torch: tuple[str, dict[str, Any]]
    vocabulary: int
    context: int
    batch: int
    goal: float


def _gpt(name: str, layers: int, heads: int, width: int, context: int, batch: int):  # type: ignore[no-untyped-def]
    sizes = {"num_layers": layers, "num_heads": heads, "hidden_dim": width}
    torch = {"context": context, "layers": layers, "heads": heads, "width": width}
    return Setting(
        name,
        "transformer",
        {**_GPT2, **sizes, "intermediate_dim": 4 * width},
        ("Gpt", torch),
        vocabulary=65,
        context=context,
        batch=batch,
        goal=1.1,
    )


def _recurrent(cell: str, width: int, vocabulary: int, context: int, batch: int):  # type: ignore[no-untyped-def]
    return Setting(
        f"{cell.upper()} 2 x {width}",
        cell,
        {"num_layers": 2, "hidden_dim": width},
        ("Recurrent", {"cell": cell, "layers": 2, "width": width}),
        vocabulary=vocabulary,
        context=context,
        batch=batch,
        goal=1.0,
    )


SETTINGS = [
    _gpt("GPT 4 x 128 (nanoGPT's for a CPU)", 4, 4, 128, context=64, batch=12),
    _gpt("GPT 6 x 384", 6, 6, 384, context=256, batch=16),
    Setting(
        "gated CNN 6 x 128",
        "gated_conv",
        {"num_layers": 6, "hidden_dim": 128, "kernel_size": 4},
        ("GatedConv", {"layers": 6, "width": 128, "kernel": 4}),
        vocabulary=65,
        context=64,
        batch=12,
        goal=1.6,
    ),
    _recurrent("lstm", 256, vocabulary=65, context=64, batch=12),
    _recurrent("gru", 256, vocabulary=65, context=64, batch=12),
    _recurrent("lstm", 650, vocabulary=10_000, context=35, batch=20),
    _recurrent("gru", 650, vocabulary=10_000, context=35, batch=20),
]

SIDES = ("torch", "zoo", "zoo + XLA")


def main(rounds: int, only: str) -> None:
    """Measures and prints the table."""
    heads = ("model", *SIDES, "best / torch", "goal")
    table = table_of("training, tokens a second", *heads, left="model")
    for index, setting in enumerate(SETTINGS):
        if only.lower() not in setting.name.lower():
            continue
        speeds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                speeds[side].append(measure_apart(__name__, index, side))
        medians = {side: statistics.median(values) for side, values in speeds.items()}
        best = max(medians["zoo"], medians["zoo + XLA"])
        table.add_row(
            setting.name,
            *(f"{medians[side]:,.0f}" for side in SIDES),
            f"{best / medians['torch']:.2f}",
            f"{setting.goal:.1f}",
        )
    show(table)


def measure(setting: Setting, side: str) -> float:
    """Returns tokens a second of one side, from the median step."""
    if side == "torch":
        step = _torch_step(setting)
    else:
        step = _zoo_step(setting, jit_compile=side == "zoo + XLA")
    run_for(step, _WARM_UP_SECONDS)
    seconds = run_for(step, _MEASURED_SECONDS)
    return setting.batch * setting.context / statistics.median(seconds)


def _torch_step(setting: Setting) -> Callable[[], None]:
    import torch
    from torch.nn import functional

    from . import torch_models

    torch.manual_seed(0)
    kind, arguments = setting.torch
    model = getattr(torch_models, kind)(vocabulary=setting.vocabulary, **arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    shape = (setting.batch, setting.context + 1)
    ids = torch.randint(0, setting.vocabulary, shape)

    def step() -> None:
        logits = model(ids[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _zoo_step(setting: Setting, jit_compile: bool) -> Callable[[], None]:
    import keras
    import numpy as np
    import tensorflow as tf
    from langzoo.models import CausalLM, zoo

    keras.utils.set_random_seed(0)
    backbone = zoo.FAMILIES[setting.family](
        vocabulary_size=setting.vocabulary,
        max_sequence_length=setting.context,
        **setting.hyperparameters,
    )
    model = CausalLM(backbone=backbone)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.1, global_clipnorm=1.0),
        weighted_metrics=[],
        jit_compile=jit_compile,
    )
    shape = (setting.batch, setting.context + 1)
    ids = np.random.randint(0, setting.vocabulary, shape).astype("int32")
    inputs = {"token_ids": ids[:, :-1], "padding_mask": np.ones_like(ids[:, 1:], bool)}
    batch = (inputs, ids[:, 1:])
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.make_train_function()

    def step() -> None:
        logs = model.train_function(batches)
        tf.nest.map_structure(lambda value: value.numpy(), logs)

    return step


if __name__ == "__main__":
    print(json.dumps(measure(SETTINGS[int(sys.argv[1])], sys.argv[2])))
