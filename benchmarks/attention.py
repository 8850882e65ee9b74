"""Attention in blocks beside all scores at once: a training step, and its memory.

For a Transformer of 4 x 128 on bytes, a row a batch, at several lengths. *memory* is
the most that the process had, TensorFlow itself included.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
from typing import Any

from .apart import measure_apart, run_for
from .tables import show, table_of

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
_SIDES = ("at once", "in blocks")
_UNITS = ("ms", "memory, GB")
_SECONDS = 4.0


def main(rounds: int, only: str) -> None:
    """Measures and prints the table."""
    heads = ("positions", *(f"{side}, {unit}" for side in _SIDES for unit in _UNITS))
    table = table_of("training, Transformer 4 x 128, one row of bytes", *heads)
    for length in LENGTHS:
        if only not in str(length):
            continue
        figures = []
        for side in _SIDES:
            runs = [measure_apart(__name__, length, side) for _ in range(rounds)]
            figures += [
                f"{1000 * statistics.median(run['step'] for run in runs):.0f}",
                f"{statistics.median(run['memory'] for run in runs):.2f}",
            ]
        table.add_row(f"{length:,}", *figures)
    show(table)


def measure(length: int, side: str) -> dict[str, float]:
    """Returns the seconds of a step and the gigabytes that it took."""
    import langzoo  # noqa: F401  (sets the environment, so it comes first)
    import numpy as np
    import tensorflow as tf
    from langzoo.components.trainer.networks import compile_network, network_of
    from langzoo.components.trainer.settings import TrainerSettings
    from langzoo.models import ByteTokenizer, build_causal_lm
    from langzoo.models.families.transformer import attention

    attention.WHOLE = 0 if side == "in blocks" else length
    settings = TrainerSettings(steps=9, batch_size=1).of_family("transformer")
    network: Any = network_of(
        build_causal_lm("transformer", ByteTokenizer(), length), settings
    )
    compile_network(network, settings, settings.steps)
    ids = np.random.default_rng(0).integers(4, 260, (1, length + 1)).astype("int32")
    inputs = {"token_ids": ids[:, :-1], "padding_mask": np.ones((1, length), bool)}
    batch = inputs, ids[:, 1:], np.ones((1, length), "float32")
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    network.make_train_function()
    network.train_function(batches)  # It compiles.
    seconds = run_for(lambda: float(network.train_function(batches)["loss"]), _SECONDS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"step": statistics.median(seconds), "memory": peak / 2**20}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
