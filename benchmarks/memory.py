"""Memory of a corpus's way through the pipeline, by stage.

The corpus is 200 files of the standard library's source code, again and again, each
time with other lines left out; a document is a file or a paragraph. Each stage runs as
in a pipeline, in a process of its own; what counts is the most that it, or a process
that it started, ever had resident. The model is a small one: what it takes of memory
does not depend on the corpus.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .apart import measure_apart, peak_megabytes
from .data import MEGABYTE, SCHEMA, run_component, source_texts
from .tables import show, table_of

SIZES = (50, 200, 1000)
BOUND = 1500
"""Megabytes that any process may take."""

STAGES = (
    *("ingestion", "statistics", "tokenizer", "Transform"),
    *("contiguous", "best_fit", "evaluation"),
)
_FILES = 200
_DOCUMENTS = ("file", "paragraph")
_VOCABULARY = 1000
_CONTEXT = 64
_BATCH = 64


def main(sizes: Sequence[int], only: str) -> None:
    """Takes corpora through all stages and prints a table of each kind of documents."""
    for documents in _DOCUMENTS:
        if only not in documents:
            continue
        title = f"a document a {documents}; peak MB, at most {BOUND:,}"
        heads = ("MB", "stage", "peak MB", "minutes", "of CPU")
        table = table_of(title, *heads, left="stage")
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                _write_corpus(Path(folder, "corpus"), size)
                for stage in STAGES:
                    if stage == "evaluation":
                        measure_apart(__name__, "export", folder, documents)
                    found = measure_apart(__name__, stage, folder, documents)
                    figures = [found["seconds"] / 60, found["cpu"] / 60]
                    table.add_row(
                        f"{size:,}",
                        stage,
                        f"{found['peak']:,.0f}{'!' * (found['peak'] > BOUND)}",
                        *(f"{minutes:.1f}" for minutes in figures),
                    )
                    print(f"{size} MB, {stage}: {found['peak']:,.0f} MB", flush=True)
        show(table)


def _write_corpus(folder: Path, megabytes: int) -> None:
    """Writes files of source code, of so many megabytes together."""
    folder.mkdir()
    source = source_texts()
    for number in range(_FILES):
        left = megabytes * MEGABYTE // _FILES
        with (folder / f"{number:03}.txt").open("wb") as file:
            while left > 0:
                content = next(source).encode()[:left]
                file.write(content.decode(errors="ignore").encode())
                left -= len(content)


def measure(stage: str, folder: Path, documents: str) -> dict[str, float]:
    """Runs a stage on what those before it have left.

    Returns:
        Seconds, CPU seconds and `peak_megabytes`.
    """
    started, cpu = time.perf_counter(), time.process_time()
    if stage in _ALONE:
        _ALONE[stage](folder)
    else:
        executor, component = _STAGES[stage](folder, documents)
        kinds = {name: channel.type for name, channel in component.inputs.items()}
        inputs = {name: [_found(folder, name, kind)] for name, kind in kinds.items()}
        outputs = {n: [channel.type()] for n, channel in component.outputs.items()}
        run_component(executor, component, inputs, outputs, folder=folder)
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "peak": peak_megabytes(),
    }


def _found(folder: Path, name: str, kind: Any) -> Any:
    """The artifact of that name that a component has written."""
    from tfx.types import artifact_utils

    artifact = kind()
    (path,) = folder.glob(f"*/{name}")
    artifact.uri = str(path)
    if name == "examples":
        splits = [split.name.removeprefix("Split-") for split in path.glob("Split-*")]
        artifact.split_names = artifact_utils.encode_split_names(sorted(splits))
    return artifact


def _channel(kind: str) -> Any:
    from tfx.types import standard_artifacts
    from tfx.types.channel import Channel

    return Channel(type=getattr(standard_artifacts, kind))


def _ingestion(folder: Path, documents: str) -> tuple[Any, Any]:
    from langzoo.components.text_example_gen import executor
    from langzoo.components.text_example_gen.component import TextExampleGen
    from langzoo.components.text_example_gen.settings import CorpusSettings

    corpus = CorpusSettings(path=str(folder / "corpus"), documents=documents)
    return executor.Executor, TextExampleGen(corpus)


def _statistics(folder: Path, documents: str) -> tuple[Any, Any]:
    from langzoo.components.statistics_gen import executor
    from langzoo.components.statistics_gen.component import StatisticsGen

    return executor.Executor, StatisticsGen(_channel("Examples"))


def _tokenizer(folder: Path, documents: str) -> tuple[Any, Any]:
    from langzoo.components.tokenizer_trainer import executor
    from langzoo.components.tokenizer_trainer.component import TokenizerTrainer

    component = TokenizerTrainer(
        _channel("Examples"), type="bpe", vocabulary_size=_VOCABULARY
    )
    return executor.Executor, component


def _transform(folder: Path, documents: str) -> tuple[Any, Any]:
    from langzoo.components.transform import executor
    from langzoo.components.transform.component import Transform
    from langzoo.components.types import Tokenizer
    from tfx.types.channel import Channel

    schema = folder / "SchemaGen" / "schema" / "schema.pbtxt"
    schema.parent.mkdir(parents=True)
    schema.write_text(SCHEMA)
    component = Transform(
        examples=_channel("Examples"),
        schema=_channel("Schema"),
        tokenizer=Channel(type=Tokenizer),
    )
    return executor.Executor, component


def _evaluation(folder: Path, documents: str) -> tuple[Any, Any]:
    from langzoo.components.evaluator import executor
    from langzoo.components.evaluator.component import Evaluator
    from langzoo.components.evaluator.settings import GateSettings

    component = Evaluator(
        examples=_channel("Examples"),
        model=_channel("Model"),
        settings=GateSettings().asked([]),
    )
    return executor.Executor, component


def _pack(folder: Path, packing: str) -> None:
    """Packs the training split and goes through it once."""
    from langzoo.components.trainer.rows.packing import make_windows
    from langzoo.components.trainer.rows.windows import write_documents
    from langzoo.components.transform.executor import tokenizer_of

    (transformed,) = folder.glob("*/transformed_examples")
    graph, path = str(transformed.with_name("transform_graph")), folder / "packed"
    patterns = [f"{transformed}/Split-train/*"]
    write_documents(path, patterns, graph, tokenizer_of(graph))
    windows = make_windows(path, _CONTEXT, packing)
    last = windows.steps_an_epoch(_BATCH)
    for _ in windows.training_batches(_BATCH, seed=0, first_step=0, last_step=last):
        pass


def _export(folder: Path) -> None:
    from langzoo.components.transform.executor import tokenizer_of
    from langzoo.models.zoo import build_causal_lm
    from langzoo.serving.export.saved_model import export_causal_lm

    (graph,) = folder.glob("*/transform_graph")
    tokenizer = tokenizer_of(str(graph))
    model = build_causal_lm(
        "gated_conv", tokenizer, _CONTEXT, num_layers=1, hidden_dim=16
    )
    path = folder / "Trainer" / "model" / "Format-Serving"
    export_causal_lm(model, str(path), stride=_CONTEXT)


_STAGES: dict[str, Callable[[Path, str], tuple[Any, Any]]] = {
    "ingestion": _ingestion,
    "statistics": _statistics,
    "tokenizer": _tokenizer,
    "Transform": _transform,
    "evaluation": _evaluation,
}
_ALONE: dict[str, Callable[[Path], None]] = {
    "contiguous": functools.partial(_pack, packing="contiguous"),
    "best_fit": functools.partial(_pack, packing="best_fit"),
    "export": _export,
}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.disable(logging.WARNING)
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
