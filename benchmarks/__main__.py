"""`python -m benchmarks [NAME...]`: runs all benchmarks, or those named."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from . import (
    attention,
    data,
    duplicates,
    generation,
    intervals,
    memory,
    records,
    serving,
    trainer,
    training,
    understanding,
)

_BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "training": lambda options: training.main(options.rounds, options.only),
    "trainer": lambda options: trainer.main(options.rounds, options.only),
    "attention": lambda options: attention.main(options.rounds, options.only),
    "generation": lambda options: generation.main(options.rounds, options.only),
    "serving": lambda options: serving.main(options.rounds, options.only),
    "understanding": lambda options: understanding.main(options.rounds, options.only),
    "records": lambda options: records.main(options.only, options.seeds, options.data),
    "data": lambda options: data.main(
        options.sizes or data.SIZES, options.rounds, options.only
    ),
    "memory": lambda options: memory.main(options.sizes or memory.SIZES, options.only),
    "duplicates": lambda options: duplicates.main(options.only),
    "intervals": lambda options: intervals.main(options.only),
}


def main() -> None:
    """Runs the benchmarks and prints a table of each."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--only", default="", help="settings whose name holds this")
    parser.add_argument("--seeds", type=int, default=records.SEEDS, help="of records")
    parser.add_argument("--data", type=Path, help="folder of texts for records")
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(size) for size in text.split(",")],
        default=(),
        help="megabytes of the corpora of data and memory, such as 1,10",
    )
    options = parser.parse_args()
    left_out = {"memory", "records"}
    names = options.names or [name for name in _BENCHMARKS if name not in left_out]
    unknown = set(names) - set(_BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {unknown.pop()!r}: there are {[*_BENCHMARKS]}")
    for name in names:
        _BENCHMARKS[name](options)


main()
