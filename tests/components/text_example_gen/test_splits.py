"""Splits of one's own, and what stays together in one."""

from __future__ import annotations

import collections
import hashlib
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import files, readers
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.records import Summary
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    CorpusSettings,
    SourceSettings,
)
from langzoo.components.text_example_gen.streams import UnusableError
from tfx.types import artifact_utils


def texts_by_split(examples):
    found = {}
    for split in artifact_utils.decode_split_names(examples.split_names):
        pattern = f"{artifact_utils.get_split_uri([examples], split)}/*"
        records = tf.data.TFRecordDataset(tf.io.gfile.glob(pattern), "GZIP")
        found[split] = [
            tf.train.Example.FromString(record)
            .features.feature["text"]
            .bytes_list.value[0]
            .decode()
            for record in records.as_numpy_iterator()
        ]
    return found


def write(folder, name, count):
    path = folder / f"{name}.txt"
    path.write_text("".join(f"{name} {number}\n" for number in range(count)))
    return str(path)


COUNTS = {"train": 40, "eval": 7, "test": 5}


def test_a_source_says_its_split(run_example_gen, tmp_path):
    sources = [
        SourceSettings(path=write(tmp_path, name, n), documents="line", split=name)
        for name, n in COUNTS.items()
    ]
    examples = run_example_gen(sources)
    assert texts_by_split(examples) == {
        name: [f"{name} {number}" for number in range(n)] for name, n in COUNTS.items()
    }
    assert Summary.read(examples.uri).documents == COUNTS


def test_what_says_no_split_is_split_as_without_the_others(run_example_gen, tmp_path):
    plain = SourceSettings(path=write(tmp_path, "plain", 200), documents="line")
    more = SourceSettings(
        path=write(tmp_path, "more", 30), documents="line", split="train"
    )
    before = texts_by_split(run_example_gen([plain], "before"))
    after = texts_by_split(run_example_gen([plain, more]))
    assert sorted(after["eval"]) == sorted(before["eval"])
    added = collections.Counter(after["train"]) - collections.Counter(before["train"])
    assert sorted(added) == sorted(f"more {number}" for number in range(30))


@pytest.mark.parametrize("end", ["", " more"])
def test_of_copies_those_that_evaluate_stay(run_example_gen, tmp_path, end):
    lines = {
        name: [
            f"{name} {n} {' '.join(f'{name}{n}w{at}' for at in range(20))}"
            for n in range(9)
        ]
        for name in COUNTS
    }
    copies = [f"{line}{end}" for those in lines.values() for line in those]
    lines["a"] = copies
    for name, those in lines.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(those))
    sources = [
        SourceSettings(
            path=f"{tmp_path}/{name}.txt",
            documents="line",
            split="train" if name == "a" else name,
        )
        for name in lines
    ]
    steps = CleaningSettings(drop_duplicates=not end, drop_near_duplicates=bool(end))
    found = texts_by_split(run_example_gen(sources, cleaning=steps))
    assert {split: len(texts) for split, texts in found.items()} == dict.fromkeys(
        COUNTS, 9
    )
    for split in ("eval", "test"):
        assert found[split] == lines[split]


def test_splits_of_a_dataset_are_splits(run_example_gen, tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name in ("train", "validation"):
        lines = [json.dumps({"text": f"{name} {number}"}) for number in range(20)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    sources = [
        SourceSettings(path=f"hf://{folder}@{name}", split=split)
        for name, split in (("train", "train"), ("validation", "eval"))
    ]
    found = texts_by_split(run_example_gen(sources))
    assert {
        name: {text.split()[0] for text in texts} for name, texts in found.items()
    } == {
        "train": {"train"},
        "eval": {"validation"},
    }


@pytest.mark.parametrize("folder", ["one", "elsewhere/two"])
def test_the_documents_of_a_file_stay_together_wherever_it_lies(
    run_example_gen, tmp_path, folder
):
    corpus = tmp_path / folder
    corpus.mkdir(parents=True)
    for number in range(30):
        write(corpus, f"file{number}", 5)
    source = SourceSettings(
        path=f"{corpus}/*.txt" if "two" in folder else str(corpus),
        documents="line",
        split_by="file",
    )
    found = texts_by_split(run_example_gen([source], eval_fraction=0.3))
    names = {
        split: {text.split()[0] for text in texts} for split, texts in found.items()
    }
    assert all(len(texts) == 5 * len(names[split]) for split, texts in found.items())
    expected = {n for n in range(30) if bucket(f"file{n}.txt") >= 700}
    assert names["eval"] == {f"file{number}" for number in expected}


def bucket(text):
    values = tf.train.BytesList(value=[text.encode()])
    content = tf.train.Feature(bytes_list=values).SerializeToString(deterministic=True)
    return int(hashlib.sha256(content).hexdigest(), 16) % 1000


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_the_records_of_one_value_stay_together(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    table = [{"text": f"Text {n}.", "by": f"author {n % 4}"} for n in range(20)]
    if ending == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(table), path)
    elif ending == ".csv":
        rows = "\n".join(f"{row['text']},{row['by']}" for row in table)
        path.write_text(f"text,by\n{rows}")
    else:
        path.write_text("\n".join(map(json.dumps, table)))
    source = SourceSettings(path=str(path), split_by="by")
    buckets = {"train": 500, "eval": 500}
    documents = list(readers.read(str(path), source))
    assert [document.fields for document in documents] == [{}] * 20
    for row, document in zip(table, documents, strict=True):
        split = "train" if bucket(row["by"]) < 500 else "eval"
        assert document.split_of(buckets) == split


def test_a_record_without_the_value_is_split_by_its_text():
    alone, other = Document("a", "Text."), Document("b", "Text.", group="author 1")
    buckets = {"train": 0, "eval": 1000}
    assert alone.split_of(buckets) == other.split_of(buckets) == "eval"
    assert Document("c", "x", split="test").split_of(buckets) == "test"


def test_the_files_of_an_archive_are_files(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, name, 3)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
        archive.add(tmp_path / "b.txt", "b.txt")
    path = str(tmp_path / "x.tar")
    source = SourceSettings(path=path, documents="line", split_by="file")
    groups = collections.Counter(item.group for item in readers.read(path, source))
    assert groups == {"a.txt": 3, "b.txt": 3}


def test_a_field_to_split_by_is_of_records(tmp_path):
    path = write(tmp_path, "x", 3)
    source = SourceSettings(path=path, split_by="author")
    with pytest.raises(InputError, match=r"corpus\.split_by by a field are of records"):
        files.find([source])
    (tmp_path / "x.csv").write_text("text,label\na,b\n")
    with pytest.raises(UnusableError, match="without the field 'author'"):
        list(readers.read(str(tmp_path / "x.csv"), source))


def test_the_buckets_are_those_of_the_fractions():
    corpus = CorpusSettings(eval_fraction=0.1, test_fraction=0.2)
    assert list(corpus.buckets.items()) == [
        ("train", 700),
        ("test", 200),
        ("eval", 100),
    ]
    given = [SourceSettings(path="a", split="test"), SourceSettings(path="b")]
    assert CorpusSettings(sources=given).buckets == {
        "train": 900,
        "test": 0,
        "eval": 100,
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sources": [{"path": "a", "split": "train"}]}, "none is eval"),
        ({"sources": [{"path": "a", "split": "eval"}]}, "none is train"),
        (
            {
                "sources": [
                    {"path": "a", "split": "train"},
                    {"path": "b", "split": "eval"},
                ],
                "test_fraction": 0.1,
            },
            r"test_fraction 0\.1 is of sources without a split",
        ),
        ({"path": "hf://a", "split_by": "file"}, "has no files to split by"),
    ],
)
def test_splits_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        CorpusSettings(**settings)
