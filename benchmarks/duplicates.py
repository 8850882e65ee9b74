"""Near duplicates among documents that share most of their text."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from .apart import measure_apart
from .tables import show, table_of

_DOCUMENTS = (10_000, 100_000)
_WORDS = 60
_OWN = (2, 4, 8, 20)


def main(only: str) -> None:
    """Finds the near duplicates of each corpus and prints the table."""
    title = f"Near duplicates among documents of {_WORDS} words"
    heads = ("words of their own", "documents", "dropped", "seconds", "of CPU")
    table = table_of(title, *heads)
    for own in _OWN:
        for documents in _DOCUMENTS:
            if only not in f"{own}":
                continue
            found = measure_apart(__name__, documents, own)
            table.add_row(
                f"{own}",
                f"{documents:,}",
                f"{found['dropped']:,}",
                f"{found['seconds']:.0f}",
                f"{found['cpu']:.0f}",
            )
    show(table)


def measure(documents: int, own: int) -> dict[str, float]:
    """Reads so many documents and finds their near duplicates."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from langzoo.components.text_example_gen.documents import Document
    from langzoo.components.text_example_gen.near_duplicates import (
        FindNearDuplicates,
        MinHash,
    )

    draw = random.Random(0)
    shared = " ".join(f"w{draw.randrange(5000)}" for _ in range(_WORDS - own))
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "texts")
        with texts.open("w") as file:
            for number in range(documents):
                words = " ".join(f"w{draw.randrange(5000)}" for _ in range(own))
                file.write(f"{number:07}\t{shared} {words}\n")
        started, cpu = time.perf_counter(), time.process_time()
        runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
        options = PipelineOptions([f"--runner={runner}"])
        with beam.Pipeline(options=options) as pipeline:
            both = tuple(
                pipeline
                | f"Read{name}" >> beam.io.ReadFromText(str(texts))
                | f"Parse{name}" >> beam.Map(lambda line: Document(*line.split("\t")))
                for name in ("First", "Second")
            )
            _ = (
                both
                | FindNearDuplicates(MinHash())
                | beam.combiners.Count.Globally()
                | beam.Map(str)
                | beam.io.WriteToText(f"{folder}/dropped", shard_name_template="")
            )
        return {
            "dropped": int(Path(folder, "dropped").read_text()),
            "seconds": time.perf_counter() - started,
            "cpu": time.process_time() - cpu,
        }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
