"""`python -m benchmarks [NAME...]`: runs all benchmarks, or those named."""

from __future__ import annotations

import argparse

from . import generation, training

_BENCHMARKS = {"training": training.main, "generation": generation.main}


def main() -> None:
    """Runs the benchmarks and prints a table of each."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", default=[*_BENCHMARKS])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--only", default="", help="settings whose name holds this")
    options = parser.parse_args()
    unknown = set(options.names) - set(_BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {unknown.pop()!r}: there are {[*_BENCHMARKS]}")
    for name in options.names:
        _BENCHMARKS[name](rounds=options.rounds, only=options.only)


main()
