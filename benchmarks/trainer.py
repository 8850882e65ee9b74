"""What Trainer adds to its training steps, how busy they keep the machine, and exports.

For each family at its default size:

- *input*: a step on real batches beside one on the same batch again and again, in turn;
- *around*: time between the steps of a whole training, which `fit`, callbacks, progress
  and checkpoints take, as a share of steps of 50 ms;
- *used*: floating-point operations of a step (three times those of the forward pass) a
  second, beside the *peak*, those of a product of large matrices;
- *export*: the time to write the SavedModel.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from langzoo.models.families import RECIPES, family_of
from langzoo.models.tasks import CAUSAL_LM

from .apart import measure_apart, run_for
from .tables import show, table_of

FAMILIES = tuple(name for name in RECIPES if family_of(name).can(CAUSAL_LM))
_CONTEXT = 128
_BATCH = 8
_VOCABULARY = 4096
_TOKENS = 500_000
_BLOCK = 5  # steps on one side, then on the other
_STEPS = 400
_MATRIX = 2048
_SECONDS = 6.0
# What is asked for.
_INPUT_GOAL, _AROUND_GOAL, _EXPORT_GOAL = 0.03, 0.05, 10.0
_STEP_SECONDS = 0.05


def main(rounds: int, only: str) -> None:
    """Measures and prints the table."""
    table = table_of(
        f"training, context {_CONTEXT}, batch {_BATCH}, {_VOCABULARY} tokens; "
        f"goals: input < {_INPUT_GOAL:.0%}, around < {_AROUND_GOAL:.0%} of 50 ms, "
        f"export < {_EXPORT_GOAL:.0f} s",
        "family",
        "ms",
        "input",
        "around",
        "GFLOP/s",
        "peak",
        "used",
        "export, s",
        left="family",
    )
    for family in FAMILIES:
        if only.lower() not in family:
            continue
        runs = [measure_apart(__name__, family) for _ in range(rounds)]
        median = {
            name: statistics.median(run[name] for run in runs) for name in runs[0]
        }
        speed = median["flops"] / median["step"]
        table.add_row(
            family,
            f"{1000 * median['step']:.1f}",
            f"{median['input']:+.1%}",
            f"{median['around'] / _STEP_SECONDS:.1%}",
            f"{speed / 1e9:.0f}",
            f"{median['peak'] / 1e9:.0f}",
            f"{speed / median['peak']:.0%}",
            f"{median['export']:.1f}",
        )
    show(table)


def measure(family: str) -> dict[str, float]:
    """Returns the figures of a family, in seconds and operations a second."""
    import keras
    import numpy as np
    from langzoo.components.trainer.networks import network_of
    from langzoo.components.trainer.rows.windows import TokenWindows
    from langzoo.components.trainer.settings import TrainerSettings
    from langzoo.models import zoo
    from langzoo.models.families import family_of
    from langzoo.serving.export import saved_model

    keras.utils.set_random_seed(0)
    tokenizer = _tokenizer()
    vocabulary = tokenizer.vocabulary_size()
    model = zoo.build_causal_lm(family, tokenizer, _CONTEXT)
    settings = TrainerSettings(steps=_STEPS, batch_size=_BATCH).of_family(family)
    network = network_of(model, settings)
    size = family_of(family).settings_of(context_length=_CONTEXT).size(vocabulary)
    assert size is not None
    figures = {"flops": 3.0 * size.flops_per_token * _BATCH * _CONTEXT, "peak": _peak()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stream")
        TokenWindows.write(
            path,
            [np.random.default_rng(0).integers(4, vocabulary, _TOKENS)],
            vocabulary_size=vocabulary,
            start_id=tokenizer.start_token_id,
            end_id=tokenizer.end_token_id,
            pad_id=tokenizer.pad_token_id,
            unk_id=tokenizer.unk_token_id,
        )
        windows = TokenWindows(path, _CONTEXT)
        figures["around"] = _around(network, windows, settings, folder)
        figures |= _input(network, windows)
        started = time.perf_counter()
        saved_model.export_causal_lm(model, f"{folder}/export")
        figures["export"] = time.perf_counter() - started
    return figures


def _tokenizer() -> Any:
    import pydoc_data.topics

    from langzoo.models.tokenizers.sentence_piece import train_sentencepiece

    texts = list(pydoc_data.topics.topics.values())
    return train_sentencepiece(
        texts, vocabulary_size=_VOCABULARY, model_type="bpe", seed=0
    )


def _peak() -> float:
    """Operations a second of a product of large matrices, at best."""
    import tensorflow as tf

    matrix = tf.random.normal((_MATRIX, _MATRIX))
    product = tf.function(lambda: tf.linalg.matmul(matrix, matrix))
    run_for(lambda: product().numpy(), 1.0)
    return 2 * _MATRIX**3 / min(run_for(lambda: product().numpy(), 3.0))


def _around(network: Any, windows: Any, settings: Any, folder: str) -> float:
    """Seconds a step between the end of one and the beginning of the next."""
    from langzoo.components.trainer import training

    begun, ended = [], []
    make = network.make_train_function

    def make_timed(force: bool = False) -> None:
        make(force)
        step = network.train_function

        def timed(iterator: Any) -> Any:
            begun.append(time.perf_counter())
            logs = step(iterator)
            logs["loss"].numpy()  # until then it may go on
            ended.append(time.perf_counter())
            return logs

        network.train_function = timed

    network.make_train_function = make_timed
    training.train(network, windows, windows, settings, f"{folder}/checkpoints")
    network.make_train_function = make
    network.make_train_function(force=True)
    gaps = [begin - end for end, begin in zip(ended, begun[1:], strict=False)]
    return statistics.mean(gaps[len(gaps) // 2 :])


def _input(network: Any, windows: Any) -> dict[str, float]:
    """Seconds of a step on one batch, and the share that real batches add."""
    batches = windows.training_batches(_BATCH, seed=0, first_step=0, last_step=10**6)
    sides = [iter(batches.take(1).cache().repeat()), iter(batches)]
    seconds: list[list[float]] = [[], []]

    def step(side: int) -> None:
        started = time.perf_counter()
        network.train_function(sides[side])["loss"].numpy()
        seconds[side].append(time.perf_counter() - started)

    for side in (0, 1):
        step(side)
    seconds = [[], []]
    end = time.perf_counter() + 2 * _SECONDS
    for side in itertools.cycle((0, 1)):
        for _ in range(_BLOCK):
            step(side)
        if time.perf_counter() > end:
            break
    same, real = (statistics.median(values) for values in seconds)
    return {"step": same, "input": real / same - 1}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
