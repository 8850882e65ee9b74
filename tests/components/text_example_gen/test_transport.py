"""Reading to the end: a transport that breaks off is never a smaller corpus."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import re
import tracemalloc
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import files, readers, streams
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    SourceSettings,
)
from langzoo.components.text_example_gen.streams import BrokenOffError, UnusableError

RECORDS = [{"text": f"Text {n}, {n * 7919 % 10007}."} for n in range(1000)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(readers, "_WAITS", (0, 0))


class Failing(io.FileIO):
    """A file that fails behind some of its bytes."""

    def __init__(self, path, error, share):
        super().__init__(path)
        self._error, self._left = error, int(Path(path).stat().st_size * share)

    def read(self, size=-1):
        if self._left <= 0:
            raise self._error
        data = super().read(min(size, self._left))
        self._left -= len(data)
        return data


@pytest.fixture
def fails(monkeypatch):
    """Makes the files that are opened fail some times, half-way."""

    def so(times, error=None, share=0.5):
        error = error or OSError(errno.EIO, "Input/output error")
        failing = [error] * times
        opened = streams._open

        def open_one(path):
            return Failing(path, failing.pop(), share) if failing else opened(path)

        monkeypatch.setattr(streams, "_open", open_one)

    return so


def write(folder, ending):
    path = folder / f"records{ending}"
    if "parquet" in ending:
        table = pa.Table.from_pylist(RECORDS)
        pa.parquet.write_table(table, path, row_group_size=50)
    elif ending.endswith(".txt"):
        path.write_text("".join(record["text"] + "\n" for record in RECORDS))
    elif ending.endswith(".gz"):
        path.write_bytes(gzip.compress(LINES.encode()))
    else:
        path.write_text(LINES)
    return str(path)


def read(path):
    source = SourceSettings(path=path, documents="line")
    return [document.text for document in readers.read(path, source)]


ENDINGS = [".jsonl", ".txt", ".jsonl.gz", ".parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_breaks_off_is_read_again_and_nothing_comes_twice(tmp_path, fails, ending):
    path = write(tmp_path, ending)
    fails(times=2)
    assert read(path) == [record["text"] for record in RECORDS]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), RuntimeError("reset by peer")]
)
def test_what_breaks_off_each_time_is_an_error(tmp_path, fails, ending, error):
    path = write(tmp_path, ending)
    fails(times=3, error=error)
    said = error.args[-1]
    with pytest.raises(BrokenOffError, match=f"{re.escape(path)}: .*broke off: {said}"):
        read(path)


@pytest.mark.parametrize("steps", [{}, {"drop_duplicates": True}])
def test_a_run_ends_with_the_file_whatever_strict_says(
    tmp_path, run_example_gen, monkeypatch, steps
):
    path = write(tmp_path, ".jsonl")
    write(tmp_path, "-2.jsonl")
    opened = streams._open

    def open_one(name):
        error = PermissionError(errno.EACCES, "Permission denied")
        return Failing(name, error, 0.5) if name == path else opened(name)

    monkeypatch.setattr(streams, "_open", open_one)
    with pytest.raises(InputError, match=rf"^{path}: .*Permission denied$"):
        run_example_gen(
            [SourceSettings(path=str(tmp_path / "*.jsonl"))],
            cleaning=CleaningSettings(**steps),
        )


def test_a_file_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(BrokenOffError, match=r"absent\.txt: .*No such file"):
        read(str(tmp_path / "absent.txt"))


def test_a_parquet_file_without_its_end_is_an_error(tmp_path):
    path = Path(write(tmp_path, ".parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenOffError, match=r"\.parquet: .*not Parquet"):
        read(str(path))


def test_damage_within_compressed_data_is_an_error(tmp_path):
    path = tmp_path / "x.txt.bz2"
    noise = "".join(f"{n * 7919 % 100_003}\n" for n in range(500_000)).encode()
    whole = bytearray(bz2.compress(noise))
    whole[len(whole) * 3 // 4] ^= 255
    path.write_bytes(whole)
    with pytest.raises(BrokenOffError, match=r"x\.txt\.bz2: .*not bzip2"):
        read(str(path))


COMPRESSORS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
    ".deflate": zlib.compress,
}


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_an_empty_file_is_empty_however_it_is_named(tmp_path, ending):
    (tmp_path / f"x{ending}").write_bytes(b"")
    assert read(str(tmp_path / f"x{ending}")) == []


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_small_file_that_becomes_a_large_one_is_a_stream(tmp_path, ending):
    path = tmp_path / f"x.txt{ending}"
    path.write_bytes(COMPRESSORS[ending]((b"a" * 99_999 + b"\n") * 1200))
    assert path.stat().st_size < 1e6
    size = 0
    tracemalloc.start()
    try:
        with streams.open_stream(str(path)) as stream:
            while chunk := stream.read(1 << 20):
                size += len(chunk)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 120e6
    assert most < 50e6


@pytest.fixture
def dataset(monkeypatch):
    """A Hugging Face dataset whose stream breaks off after 100 records, some times."""
    import datasets

    errors = []

    def records():
        for number in range(1000):
            if number == 100 and errors:
                raise errors.pop()
            yield {"text": f"Text {number}."}

    def load(*_, **__):
        return datasets.IterableDataset.from_generator(records)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return errors


def test_a_dataset_that_breaks_off_is_read_again(dataset):
    dataset += [ConnectionError("reset by peer")] * 2
    assert read("hf://some/dataset") == [f"Text {number}." for number in range(1000)]


def test_a_dataset_that_breaks_off_each_time_is_an_error(dataset, run_example_gen):
    dataset += [ConnectionError("reset by peer")] * 3
    with pytest.raises(InputError, match=r"^hf://some/dataset: .*reset by peer$"):
        run_example_gen([SourceSettings(path="hf://some/dataset")])


def test_the_fingerprint_of_a_dataset_knows_its_version(tmp_path):
    (tmp_path / "train.jsonl").write_text(LINES)
    corpus = [SourceSettings(path=f"hf://{tmp_path}")]
    before = files.fingerprint(corpus)
    assert files.fingerprint(corpus) == before
    (tmp_path / "train.jsonl").write_text(LINES + '{"text": "More."}\n')
    assert files.fingerprint(corpus) != before


def test_the_fingerprint_of_a_tensorflow_dataset_knows_its_version(tmp_path):
    import tensorflow_datasets as tfds

    class LangzooVersions(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {"train": [(0, {"text": "Text."})]}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.core.add_data_dir(tmp_path)
    corpus = [SourceSettings(path="tfds://langzoo_versions")]
    before = files.fingerprint(corpus)
    LangzooVersions.VERSION = tfds.core.Version("1.0.1")
    assert files.fingerprint(corpus) != before


def test_content_that_is_not_what_its_name_says_is_no_break(tmp_path):
    (tmp_path / "x.txt.gz").write_text("not compressed")
    with pytest.raises(UnusableError, match="not gzip"):
        read(str(tmp_path / "x.txt.gz"))
