"""Data: a corpus that grows, and tokenizers beside Hugging Face's.

The corpora are the standard library's source code, again and again, each time with
other lines left out; a paragraph is a document. Ingestion and Transform run as in a
pipeline, in one process of Beam's, imports not counted; memory is the most that the
process ever had. Each size, and each side of a tokenizer, has a process of its own.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import statistics
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .apart import measure_apart, peak_megabytes, run_for
from .tables import show, table_of

SIZES = (1, 10, 100)
THEIRS, OURS = "Hugging Face", "graph"

MEGABYTE = 1_000_000
_VOCABULARY = 8192
_SAMPLE_MEGABYTES = 2
_KEPT_LINES = 0.9
_RUNNERS_MEGABYTES = 10
_RUNNERS = {
    "one process": [],
    "two worker processes": [
        "--direct_running_mode=multi_processing",
        "--direct_num_workers=2",
    ],
}
_BATCH = 256
_MEASURED_SECONDS = 5.0
SCHEMA = (
    'feature { name: "text" type: BYTES presence { min_fraction: 1 } '
    "shape { dim { size: 1 } } }"
)


def main(sizes: Sequence[int], rounds: int, only: str) -> None:
    """Measures and prints a table of each.

    Raises:
        RuntimeError: if a side fails, or worker processes give other records.
    """
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder, "sample")
        _write_corpus(sample, _SAMPLE_MEGABYTES)
        measure_apart(__name__, "train", sample, folder)
        if not only or only in "growth":
            _growth(sizes, Path(folder))
        if not only or only in "runners":
            _runners(Path(folder))
        kinds = [kind for kind in _KINDS if only in kind or only in "tokenizers"]
        if kinds:
            _tokenizers(kinds, rounds, Path(folder))


def _growth(sizes: Sequence[int], folder: Path) -> None:
    title = "ingestion and Transform, x: times the size before"
    heads = ("MB", "stage", "MB/s", "CPU s/MB", "x", "peak MB", "x")
    table = table_of(title, *heads, left="stage")
    before: dict[str, tuple[float, float]] = {}
    for size in sizes:
        corpus = folder / f"corpus-{size}"
        _write_corpus(corpus, size)
        stages = measure_apart(__name__, "grow", corpus, folder)
        del stages["records"]
        for name, stage in stages.items():
            cpu, peak = stage["cpu"] / size, stage["peak"]
            factors = [""] * 2
            if name in before:
                last = before[name]
                factors = [f"{cpu / last[0]:.2f}", f"{peak / last[1]:.2f}"]
            before[name] = cpu, peak
            table.add_row(
                f"{size}",
                name,
                f"{size / stage['seconds']:.2f}",
                f"{cpu:.2f}",
                factors[0],
                f"{peak:,.0f}",
                factors[1],
            )
    show(table)


def _runners(folder: Path) -> None:
    corpus = folder / "corpus-runners"
    _write_corpus(corpus, _RUNNERS_MEGABYTES)
    title = f"{_RUNNERS_MEGABYTES} MB, the same records, MB/s"
    table = table_of(title, "runner", "ingestion", "Transform", left="runner")
    expected = None
    for name, arguments in _RUNNERS.items():
        stages = measure_apart(__name__, "grow", corpus, folder, *arguments)
        records = stages.pop("records")
        if records != (expected or records):
            raise RuntimeError(f"{name}: other records: {records}, not {expected}")
        expected = records
        speeds = (_RUNNERS_MEGABYTES / stage["seconds"] for stage in stages.values())
        table.add_row(name, *(f"{speed:.2f}" for speed in speeds))
    show(table)


def _tokenizers(kinds: Sequence[str], rounds: int, folder: Path) -> None:
    title = f"tokenization on one thread, batches of {_BATCH}, MB/s"
    heads = ("tokenizer", THEIRS, OURS, f"{OURS} / {THEIRS}")
    table = table_of(title, *heads, left="tokenizer")
    for kind in kinds:
        medians = {
            side: statistics.median(
                measure_apart(__name__, "tokenize", kind, side, folder)
                for _ in range(rounds)
            )
            for side in (THEIRS, OURS)
            if side == OURS or kind in _THEIRS
        }
        theirs = medians.get(THEIRS)
        table.add_row(
            kind,
            f"{theirs:.2f}" if theirs else "",
            f"{medians[OURS]:.2f}",
            f"{medians[OURS] / theirs:.2f}" if theirs else "",
        )
    show(table)


def _write_corpus(folder: Path, megabytes: int) -> None:
    """Writes files of source code, of so many megabytes together."""
    folder.mkdir()
    left = megabytes * MEGABYTE
    for number, text in enumerate(source_texts()):
        content = text.encode()[:left]
        (folder / f"{number:06}.txt").write_bytes(
            content.decode(errors="ignore").encode()
        )
        left -= len(content)
        if not left:
            return


def source_texts() -> Iterator[str]:
    """Yields the standard library's modules, without end, never twice the same."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*/*.py"))
    sources = [path.read_text(errors="ignore") for path in paths]
    for seed in range(sys.maxsize):
        generator = random.Random(seed)
        for source in sources:
            lines = source.splitlines(keepends=True)
            yield "".join(line for line in lines if generator.random() < _KEPT_LINES)


def grow(corpus: Path, folder: Path, *beam_arguments: str) -> dict[str, Any]:
    """Runs ingestion and Transform on a corpus, with the tokenizer in a folder.

    Returns:
        Seconds, CPU seconds and peak megabytes of both, of this process, and how many
        records there are, with a hash.
    """
    from langzoo.components.text_example_gen import executor as ingestion
    from langzoo.components.text_example_gen.component import TextExampleGen
    from langzoo.components.text_example_gen.settings import CorpusSettings
    from langzoo.components.transform import executor as transform
    from langzoo.components.transform.component import Transform
    from langzoo.components.types import Tokenizer
    from tfx.types import standard_artifacts
    from tfx.types.channel import Channel

    output = Path(tempfile.mkdtemp(dir=folder))
    run = functools.partial(run_component, folder=output, beam_arguments=beam_arguments)
    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    schema.uri, tokenizer = str(output / "schema"), Tokenizer()
    os.mkdir(schema.uri)
    Path(schema.uri, "schema.pbtxt").write_text(SCHEMA)
    tokenizer.uri = str(folder / "bpe")
    example_gen = TextExampleGen(
        CorpusSettings(path=str(corpus), documents="paragraph")
    )
    outputs = {"examples": [examples]}
    stages = {"ingestion": run(ingestion.Executor, example_gen, {}, outputs)}
    component = Transform(
        examples=Channel(type=standard_artifacts.Examples),
        schema=Channel(type=standard_artifacts.Schema),
        tokenizer=Channel(type=Tokenizer),
    )
    inputs = {"examples": [examples], "schema": [schema], "tokenizer": [tokenizer]}
    outputs = {name: [channel.type()] for name, channel in component.outputs.items()}
    stages["Transform"] = run(transform.Executor, component, inputs, outputs)
    (transformed,) = outputs["transformed_examples"]
    return {**stages, "records": [_hash(examples.uri), _hash(transformed.uri)]}


def _hash(folder: str) -> list[int]:
    """Counts the records of an artifact and adds up their hashes, in whatever order."""
    import tensorflow as tf

    files = sorted(map(str, Path(folder).glob("Split-*/*")))
    hashes = [
        zlib.crc32(record)
        for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    ]
    return [len(hashes), sum(hashes)]


def run_component(
    executor: Any,
    component: Any,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    *,
    folder: Path,
    beam_arguments: Sequence[str] = (),
) -> dict[str, float]:
    """Runs an executor as in a pipeline.

    Args:
        executor: Its class.
        component: What it is of.
        inputs: Artifacts, by key.
        outputs: Likewise; they are put into the folder.
        folder: For what is written.
        beam_arguments: More arguments of Beam's.

    Returns:
        Seconds, CPU seconds of this process, and `peak_megabytes`.
    """
    from langzoo.pipelines.configuration import loading
    from tfx.utils import proto_utils

    properties = {
        name: proto_utils.proto_to_json(value)
        if hasattr(value, "SerializeToString")
        else value
        for name, value in component.exec_properties.items()
    }
    for name, (artifact,) in outputs.items():
        artifact.uri = str(folder / component.id / name)
    context = executor.Context(
        beam_pipeline_args=[*loading.load().beam_pipeline_args, *beam_arguments],
        tmp_dir=str(folder / component.id / "scratch"),
        unique_id="1",
    )
    started, cpu = time.perf_counter(), time.process_time()
    executor(context).Do(inputs, outputs, properties)
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "peak": peak_megabytes(),
    }


def _documents(corpus: Path) -> list[str]:
    texts = (path.read_text() for path in sorted(corpus.glob("*.txt")))
    pieces = (piece.strip("\n") for text in texts for piece in text.split("\n\n"))
    return [piece for piece in pieces if piece.strip()]


def train(sample: Path, folder: Path) -> None:
    """Writes a tokenizer of each kind, learned from a sample, and each side's of it."""
    from langzoo.models.tokenizers import word_piece, words
    from langzoo.models.tokenizers.byte import ByteTokenizer
    from langzoo.models.tokenizers.files import load_tokenizer
    from langzoo.models.tokenizers.sentence_piece import (
        character_tokenizer,
        count_characters,
        train_sentencepiece,
    )

    texts = _documents(sample)
    characters = count_characters(texts).most_common(_VOCABULARY - 300)
    counted = words.count_words(texts).most_common(_VOCABULARY - 10)
    byte_pairs = folder / "byte pairs.json"
    _train_byte_pairs(texts).save(str(byte_pairs))
    ours = {
        "bytes": ByteTokenizer(),
        "characters": character_tokenizer(c for c, _ in characters),
        "words": words.word_tokenizer(word for word, _ in counted),
        "word_piece": word_piece.train_word_piece(texts, vocabulary_size=_VOCABULARY),
        "byte pairs": load_tokenizer(byte_pairs),
    }
    for kind in ("bpe", "unigram"):
        ours[kind] = train_sentencepiece(
            texts, vocabulary_size=_VOCABULARY, model_type=kind, seed=0
        )
    for kind, tokenizer in ours.items():
        tokenizer.save_to_preset(str(folder / kind))
    pieces = ours["word_piece"].get_vocabulary()
    _hugging_face_word_piece(pieces).save(str(folder / "word_piece.json"))
    _hugging_face_unigram(ours["unigram"].proto).save(str(folder / "unigram.json"))


def _train_byte_pairs(texts: list[str]) -> Any:
    """GPT-2's kind of byte pairs."""
    import tokenizers

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return model


def _hugging_face_word_piece(pieces: list[str]) -> Any:
    """The same pieces, which are of bytes written as printable characters."""
    import tokenizers

    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    model = tokenizers.models.WordPiece(vocabulary, unk_token=pieces[1])
    model = tokenizers.Tokenizer(model)
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return model


def _hugging_face_unigram(proto: bytes) -> Any:
    """The same pieces with the same scores."""
    import sentencepiece
    import tokenizers

    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(len(model))]
    unknown = model.unk_id()
    unigram = tokenizers.models.Unigram(pieces, unknown, byte_fallback=True)
    model = tokenizers.Tokenizer(unigram)
    # The line break is a token of its own.
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("\n", "isolated")
    return model


def tokenize(kind: str, side: str, folder: Path) -> float:
    """Returns megabytes a second of one side, on one thread."""
    texts = _documents(folder / "sample")
    batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
    call = _SIDES[side](folder, kind, batches)
    call()
    seconds = statistics.median(run_for(call, _MEASURED_SECONDS))
    return sum(len(text.encode()) for text in texts) / MEGABYTE / seconds


def _theirs(folder: Path, kind: str, batches: list[list[str]]) -> Callable[[], None]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    model = tokenizers.Tokenizer.from_file(str(folder / f"{_THEIRS[kind]}.json"))

    def call() -> None:
        for batch in batches:
            model.encode_batch_fast(batch)

    return call


def _ours(folder: Path, kind: str, batches: list[list[str]]) -> Callable[[], None]:
    import langzoo  # noqa: F401
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from langzoo.components.transform import preprocessing

    tensors = [tf.constant(batch)[:, None] for batch in batches]

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.string)])
    def apply(texts: tf.Tensor) -> tf.RaggedTensor:
        config = {"tokenizer": str(folder / kind)}
        return preprocessing.preprocessing_fn({"text": texts}, config)["token_ids"]

    def call() -> None:
        for tensor in tensors:
            apply(tensor)

    return call


_KINDS = ("bpe", "byte pairs", "unigram", "word_piece", "words", "characters", "bytes")
# SentencePiece's byte pairs beside GPT-2's; the others have the same pieces.
_THEIRS = {
    "bpe": "byte pairs",
    "byte pairs": "byte pairs",
    "unigram": "unigram",
    "word_piece": "word_piece",
}
_SIDES = {THEIRS: _theirs, OURS: _ours}


def _main(command: str, *arguments: str) -> Any:
    if command == "grow":
        corpus, folder, *beam_arguments = arguments
        return grow(Path(corpus), Path(folder), *beam_arguments)
    if command == "train":
        return train(*map(Path, arguments))
    kind, side, folder = arguments
    return tokenize(kind, side, Path(folder))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.disable(logging.WARNING)
    print(json.dumps(_main(*sys.argv[1:])))
