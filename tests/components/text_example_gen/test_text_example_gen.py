"""Ingestion: files to documents, each in one split, nothing lost unseen."""

from __future__ import annotations

import bz2
import collections
import csv
import gc
import gzip
import itertools
import json
import lzma
import re
import sys
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import zstandard
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import (
    demo_corpus,
    files,
    readers,
    repeated_keys,
    shards,
)
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.records import Summary
from langzoo.components.text_example_gen.repeated_keys import RepeatedKeys
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    SourceSettings,
)
from langzoo.components.text_example_gen.streams import BrokenOffError, UnusableError
from langzoo.components.text_example_gen.values import Broken
from tfx.types import artifact_utils


@pytest.fixture
def ingest(run_example_gen):
    """Runs the component's executor on a corpus; returns the artifact's folder."""

    def run(*corpus, **options):
        sources = [
            source
            if isinstance(source, SourceSettings)
            else SourceSettings(path=str(source))
            for source in corpus
        ]
        return run_example_gen(sources, **options)

    return run


def read_features(examples, split):
    pattern = f"{artifact_utils.get_split_uri([examples], split)}/*"
    dataset = tf.data.TFRecordDataset(
        tf.io.gfile.glob(pattern), compression_type="GZIP"
    )
    return [
        tf.train.Example.FromString(record).features.feature
        for record in dataset.as_numpy_iterator()
    ]


def read_texts(examples, split):
    features = read_features(examples, split)
    texts = {
        feature["id"].bytes_list.value[0].decode(): (
            feature["text"].bytes_list.value[0].decode()
        )
        for feature in features
    }
    assert len(texts) == len(features)  # ids are unique
    return texts


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for number in range(60):
        text = f"Document {number} über\r\nsome lines.\n"
        (folder / "deep" / f"{number}.txt").write_bytes(text.encode())
    return folder


def test_every_file_becomes_one_document_in_one_split(ingest, folder):
    examples = ingest(folder, eval_fraction=0.3)
    train, evaluation = read_texts(examples, "train"), read_texts(examples, "eval")
    assert not set(train) & set(evaluation)
    texts = {**train, **evaluation}
    assert len(texts) == 60
    assert texts[str(folder / "deep" / "7.txt")] == "Document 7 über\nsome lines."
    summary = Summary.read(examples.uri)
    assert summary.documents == {"train": len(train), "eval": len(evaluation)}
    assert sum(summary.bytes.values()) == sum(len(t.encode()) for t in texts.values())


def test_the_split_of_a_document_survives_adding_documents(ingest, folder, tmp_path):
    before = read_texts(ingest(folder, eval_fraction=0.3), "eval")
    for number in range(60, 80):
        (folder / f"{number}.txt").write_text(f"New document {number}.")
    tf.io.gfile.rmtree(str(tmp_path / "examples"))
    after = read_texts(ingest(folder, eval_fraction=0.3), "eval")
    assert set(before) <= set(after)


@pytest.mark.parametrize(
    ("unit", "documents"),
    [
        ("file", {"": "One\ntwo.\n\n  \nThree."}),
        ("paragraph", {"#0": "One\ntwo.", "#1": "Three."}),
        ("line", {"#0": "One", "#1": "two.", "#2": "Three."}),
    ],
)
def test_units_of_documents(tmp_path, unit, documents):
    path = tmp_path / "one.txt"
    path.write_bytes(b"\xef\xbb\xbf\n\nOne\r\ntwo.\r\r  \nThree.\n")
    read = readers.read(str(path), SourceSettings(path="x", documents=unit))
    found = {document.id: document.text for document in read}
    assert found == {f"{path}{number}": text for number, text in documents.items()}


@hypothesis.given(hypothesis.strategies.text("ab \n\x0b\x0c\x85\xa0"))
def test_paragraphs_stand_between_blank_lines(text):
    pieces = re.split(r"\n\s*\n", text)
    around = r"\A([ \t]*\n)+|(\n[ \t]*)+\Z"
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    found = [document for _, document in readers.split_lines(lines, "paragraph")]
    assert found == [
        re.sub(around, "", piece) for piece in pieces if piece.strip("\n \t")
    ]


def test_unusable_files_are_named_counted_and_skipped(ingest, folder):
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "empty.txt").write_bytes(b"")
    summary = Summary.read(ingest(folder).uri)
    assert summary.skipped == {
        str(folder / "empty.txt"): "empty",
        str(folder / "latin.txt"): "not UTF-8 (byte 3)",
    }
    assert summary.files == 62


def test_strict_makes_an_unusable_file_an_error(ingest, folder):
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt: not UTF-8 \(byte 3\)"):
        ingest(folder, strict=True)


def test_no_file(ingest, tmp_path):
    with pytest.raises(InputError, match="no file matches the corpus"):
        ingest(tmp_path / "absent" / "*.txt")


def test_only_an_empty_file(ingest, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(InputError, match="none of the 1 file"):
        ingest(tmp_path / "empty.txt")


def test_a_corpus_too_small_to_split_says_what_to_do(ingest, tmp_path):
    (tmp_path / "one.txt").write_text("Only one document.")
    with pytest.raises(InputError, match=r"too small.*corpus\.documents=paragraph"):
        ingest(tmp_path / "one.txt")


def test_the_fingerprint_follows_the_files(folder):
    corpus = [SourceSettings(path=str(folder))]
    before = files.fingerprint(corpus)
    assert files.fingerprint(corpus) == before
    (folder / "deep" / "0.txt").write_text("changed")
    assert files.fingerprint(corpus) != before


def texts_of(path, **options):
    """Reads a file; returns texts by number and what was broken, by place."""
    items = list(readers.read(str(path), SourceSettings(path=str(path), **options)))
    texts = {
        int(item.id.removeprefix(f"{path}#")): item.text
        for item in items
        if isinstance(item, Document)
    }
    broken = {item.place: item.reason for item in items if isinstance(item, Broken)}
    return texts, broken


LINES = "Zoë\n\nsaid\n" * 1000
COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_the_ending_of_a_name_says_how_a_file_is_compressed(tmp_path, ending):
    path = tmp_path / f"lines.txt{ending}"
    compress = COMPRESSORS[ending]
    # Two frames, as `cat a.gz b.gz` makes them.
    path.write_bytes(compress(LINES.encode()) + compress(b"end\n"))
    texts, broken = texts_of(path, documents="line")
    assert list(texts.values()) == [*LINES.split(), "end"]
    assert not broken


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2", ".xz"])
def test_compressed_data_cut_short_are_an_error_after_what_there_is(tmp_path, ending):
    path = tmp_path / f"lines.txt{ending}"
    random = "".join(f"{number * 7919 % 10007}\n" for number in range(50_000))
    whole = COMPRESSORS[ending](random.encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenOffError, match="cut short"):
        texts_of(path, documents="line")


def test_a_file_that_is_not_what_its_name_says_is_skipped(ingest, folder):
    path = folder / "plain.txt.gz"
    path.write_text("not compressed")
    (reason,) = Summary.read(ingest(folder).uri).skipped.values()
    assert reason.startswith("not gzip")


def test_of_a_text_file_only_the_broken_lines_are_skipped(tmp_path):
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"good\n\ncaf\xe9\nfine\n")
    texts, broken = texts_of(path, documents="line")
    assert texts == {0: "good", 2: "fine"}
    assert broken == {"line 3": "not UTF-8"}


RECORDS = [
    {"body": "First.\r\nSecond line.", "mood": "good", "stars": 5},
    {"body": ' "quoted", with\ttab ', "mood": "bad", "stars": 1},
]


def write_csv(path, delimiter=",", records=RECORDS):
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, records[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(records)


def write_json_lines(path):
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))


def write_parquet(path):
    pa.parquet.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=1)


WRITERS = {"csv": write_csv, "jsonl": write_json_lines, "parquet": write_parquet}


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("file_format", WRITERS)
def test_records_give_text_and_fields_by_name(tmp_path, file_format, ending):
    plain = tmp_path / f"records.{file_format}"
    WRITERS[file_format](plain)
    path = tmp_path / f"records.{file_format}{ending}"
    path.write_bytes(COMPRESSORS[ending](plain.read_bytes()))
    source = SourceSettings(
        path="x", text_field="body", fields={"label": "mood", "target": "stars"}
    )
    assert list(readers.read(str(path), source)) == [
        Document(f"{path}#0", "First.\nSecond line.", {"label": "good", "target": "5"}),
        Document(f"{path}#1", ' "quoted", with\ttab ', {"label": "bad", "target": "1"}),
    ]


def test_tab_separated_values_know_no_quotes(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"open, not closed\t1\nsecond\t0\n')
    texts, broken = texts_of(path)
    assert texts == {0: '"open, not closed', 1: "second"}
    assert not broken


def test_a_format_that_is_given_beats_the_ending_of_the_name(tmp_path):
    path = tmp_path / "records.json"
    write_json_lines(path)
    texts, _ = texts_of(path, format="jsonl", text_field="mood")
    assert texts == {0: "good", 1: "bad"}


def test_broken_json_lines_are_skipped_with_line_and_reason(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [
        *(b'{"text": "good"}', b"", b"{", b"[1]", b'{"body": 1, "id": 2}'),
        *(b'{"text": 3}', b'{"text": null}', b'{"text": " "}', b'{"text": "\xe9"}'),
        *(b'{"text": "\\ud800"}', b"[" * 100_000, b'{"text": "fine"}'),
    ]
    path.write_bytes(b"\n".join(lines))
    texts, broken = texts_of(path)
    assert texts == {0: "good", 10: "fine"}
    assert broken == {
        "line 3": "not JSON",
        "line 4": "no JSON object",
        "line 5": "without the field 'text' (it has 'body', 'id')",
        "line 6": "'text' is int, not a string",
        "line 7": "'text' is null",
        "line 8": "'text' is empty",
        "line 9": "not UTF-8",
        "line 10": "not UTF-8",
        "line 11": "not JSON",
    }


def test_broken_rows_are_skipped_with_line_and_reason(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(
        b'text,label\n"two\nlines",1\none,two,three\n"a"b,1\n,1\ncaf\xe9,1\n'
        b'good,1\n"never closed,1\nlost,1\n'
    )
    texts, broken = texts_of(path)
    assert texts == {0: "two\nlines", 5: "good", 7: "lost"}
    assert broken == {
        "line 4": "3 columns where the header has 2",
        "line 5": "not CSV (',' expected after '\"')",
        "line 6": "'text' is empty",
        "line 7": "not UTF-8",
        "line 9": "not CSV (unexpected end of data)",
    }


def test_broken_rows_of_parquet_are_skipped_with_row_and_reason(tmp_path):
    path = tmp_path / "x.parquet"
    raw = pa.array([b"good", None, b"caf\xe9", b"fine"], pa.binary()).view(pa.string())
    pa.parquet.write_table(pa.table({"text": raw}), path)
    texts, broken = texts_of(path)
    assert texts == {0: "good", 3: "fine"}
    assert broken == {"row 2": "'text' is null", "row 3": "not UTF-8"}


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_table_without_the_column_names_those_it_has(tmp_path, file_format):
    path = tmp_path / f"x.{file_format}"
    WRITERS[file_format](path)
    said = r"without the field 'text' \(it has 'body', 'mood', 'stars'\)"
    with pytest.raises(UnusableError, match=said):
        texts_of(path)


def test_a_file_that_is_no_parquet_is_skipped(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_text("text\n" * 100)
    with pytest.raises(UnusableError, match="not Parquet"):
        texts_of(path)


def test_a_field_longer_than_the_csv_module_s_limit_is_read(tmp_path):
    path = tmp_path / "x.csv"
    write_csv(path, records=[{"text": "long " * 100_000 + "end"}])
    texts, _ = texts_of(path)
    assert len(texts[0]) == 500_003


def test_skipped_records_are_counted_and_summed_up(ingest, folder):
    lines = [f'{{"text": "Text {number}."}}' for number in range(20)] + ["{"] * 3
    (folder / "x.jsonl").write_text("\n".join(lines))
    summary = Summary.read(ingest(folder).uri)
    assert summary.skipped == {
        str(folder / "x.jsonl"): "3 records, first line 21: not JSON"
    }
    assert summary.skipped_records == 3
    assert sum(summary.documents.values()) == 80


def test_strict_makes_a_broken_record_an_error(ingest, folder):
    (folder / "x.jsonl").write_text('{"text": "Good."}\n{"txt": "Bad."}\n')
    with pytest.raises(InputError, match=r"x\.jsonl: line 2: without the field 'text'"):
        ingest(folder, strict=True)


def test_fields_become_features(ingest, tmp_path):
    path = tmp_path / "x.tsv"
    rows = "".join(f"Text {number}.\t{number % 2}\n" for number in range(60))
    path.write_text(f"text\tsense\n{rows}")
    examples = ingest(SourceSettings(path=str(path), fields={"label": "sense"}))
    for feature in read_features(examples, "train"):
        text, label = (feature[name].bytes_list.value[0] for name in ("text", "label"))
        assert int(label) == int(text[5:-1]) % 2


def test_text_files_have_no_fields(ingest, folder):
    with pytest.raises(InputError, match=r"corpus\.fields .* are of records"):
        ingest(SourceSettings(path=str(folder), fields={"label": "label"}))


def write_numbered(path, count, what="Text"):
    path.write_text("".join(f"{what} {number}.\n" for number in range(count)))
    return str(path)


def test_a_weight_repeats_training_documents_only(ingest, tmp_path):
    twice = write_numbered(tmp_path / "twice.txt", 300)
    once = write_numbered(tmp_path / "once.txt", 300, what="Other")
    before = ingest(
        *(SourceSettings(path=path, documents="line") for path in (twice, once))
    )
    train, evaluation = (read_texts(before, split) for split in ("train", "eval"))
    tf.io.gfile.rmtree(before.uri)
    after = ingest(
        SourceSettings(path=twice, documents="line", weight=2.5),
        SourceSettings(path=once, documents="line"),
    )
    assert read_texts(after, "eval") == evaluation
    counts = collections.Counter(read_texts(after, "train").values())
    assert set(counts) == set(train.values())
    others = [count for text, count in counts.items() if text.startswith("Other")]
    assert set(others) == {1}
    texts = [count for text, count in counts.items() if text.startswith("Text")]
    assert set(texts) == {2, 3}
    # A binomial of 270 halves: five standard deviations.
    assert abs(texts.count(3) - len(texts) / 2) < 5 * (len(texts) / 4) ** 0.5
    assert all("__weight" not in feature for feature in read_features(after, "train"))
    assert Summary.read(after.uri).documents["train"] == counts.total()


def test_a_small_weight_keeps_a_share_that_is_the_same_each_time(ingest, tmp_path):
    path = write_numbered(tmp_path / "x.txt", 300)
    kept = []
    for _ in range(2):
        examples = ingest(SourceSettings(path=path, documents="line", weight=0.2))
        kept.append(read_texts(examples, "train"))
        tf.io.gfile.rmtree(examples.uri)
    assert kept[0] == kept[1]
    assert 0.1 < len(kept[0]) / 270 < 0.3


def test_a_file_cannot_belong_to_two_sources(ingest, folder):
    with pytest.raises(InputError, match=r"0\.txt belongs to two sources"):
        ingest(
            SourceSettings(path=str(folder)), SourceSettings(path=f"{folder}/**/0.txt")
        )


def test_the_ids_of_documents_stay_when_sources_are_added(ingest, tmp_path):
    first = SourceSettings(
        path=write_numbered(tmp_path / "b.txt", 50), documents="line"
    )
    before = ingest(first)
    ids = {**read_texts(before, "train"), **read_texts(before, "eval")}
    tf.io.gfile.rmtree(before.uri)
    added = SourceSettings(
        path=write_numbered(tmp_path / "a.txt", 50, "Else"), documents="line"
    )
    after = ingest(added, first)
    assert (
        ids.items()
        <= {
            **read_texts(after, "train"),
            **read_texts(after, "eval"),
        }.items()
    )


@pytest.mark.parametrize(
    ("pattern", "names", "span"),
    [
        ("day-{SPAN}/*.txt", ["day-10/a.txt", "day-10/b.txt"], "span 10"),
        ("day-{SPAN}", ["day-10/a.txt", "day-10/b.txt"], "span 10"),
        ("day-{SPAN}/a.txt", ["day-10/a.txt"], "span 10"),
        ("s{SPAN}/v{VERSION}/*", ["s2/v11/c.txt"], "span 2, version 11"),
        ("s{SPAN}/v{VERSION}", ["s2/v11/c.txt"], "span 2, version 11"),
        ("f{SPAN}-{VERSION}-{SPAN}.txt", ["f7-1-7.txt"], "span 7, version 1"),
    ],
)
def test_the_newest_span_and_version_are_read(tmp_path, pattern, names, span):
    paths = (
        *("day-9/a.txt", "day-10/a.txt", "day-10/b.txt", "day-x/a.txt"),
        *("s1/v99/c.txt", "s2/v9/c.txt", "s2/v11/c.txt", "f7-1-7.txt", "f7-2-8.txt"),
    )
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("Text.")
    found = files.find([SourceSettings(path=f"{tmp_path}/{pattern}")]).files
    assert [file.path for file in found] == [f"{tmp_path}/{name}" for name in names]
    assert {str(file.span) for file in found} == {span}


def test_a_new_span_changes_the_fingerprint_and_is_what_the_artifact_says(
    ingest, tmp_path
):
    corpus = SourceSettings(path=f"{tmp_path}/x-{{SPAN}}.txt", documents="line")
    write_numbered(tmp_path / "x-3.txt", 50)
    before = files.fingerprint([corpus])
    write_numbered(tmp_path / "x-12.txt", 50, what="Newer")
    assert files.fingerprint([corpus]) != before
    examples = ingest(corpus)
    assert all(
        text.startswith("Newer") for text in read_texts(examples, "train").values()
    )
    assert (examples.span, examples.version) == (12, 0)
    assert Summary.read(examples.uri).spans == {corpus.path: "span 12"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("absent-{SPAN}/*.txt", "no file matches the corpus"),
        ("v{VERSION}/*.txt", r"add \{SPAN\}"),
        ("nowhere://x/*.txt", "cannot be listed: .*nowhere"),
    ],
)
def test_paths_that_cannot_be_found_are_named(pattern, said):
    with pytest.raises(InputError, match=said):
        files.find([SourceSettings(path=pattern)])


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.txt", "./a.txt"),
        ("da*/b.txt", "./day-1/b.txt"),
        ("day-{SPAN}/*.txt", "./day-1/b.txt"),
        ("day-1/*", "day-1/b.txt"),
        ("day-1", "day-1/b.txt"),
        ("a.txt", "a.txt"),
    ],
)
def test_relative_paths_are_of_the_working_directory(
    tmp_path, monkeypatch, pattern, path
):
    (tmp_path / "a.txt").write_text("Text.")
    (tmp_path / "day-1").mkdir()
    (tmp_path / "day-1" / "b.txt").write_text("Text.")
    monkeypatch.chdir(tmp_path)
    found = files.find([SourceSettings(path=pattern)]).files
    assert [file.path for file in found] == [path]


@pytest.mark.parametrize("path", ["hf://imdb", "tfds://imdb_reviews"])
def test_a_dataset_without_its_package_names_the_extra(path, monkeypatch):
    for package in ("datasets", "tensorflow_datasets"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'langzoo\[datasets\]'"):
        files.find([SourceSettings(path=path)])


def test_a_hugging_face_dataset_is_read_by_name(ingest, tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    rows = [f'{{"body": "Text {n}.", "label": {n % 2}}}' for n in range(60)]
    (folder / "validation.jsonl").write_text("\n".join(rows))
    name = f"hf://{folder}@validation"
    examples = ingest(
        SourceSettings(path=name, text_field="body", fields={"label": "label"})
    )
    texts = {**read_texts(examples, "train"), **read_texts(examples, "eval")}
    assert texts == {f"{name}#{n}": f"Text {n}." for n in range(60)}


def test_a_tensorflow_dataset_is_read_by_name(tmp_path):
    class LangzooSample(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = Path(__file__).parent  # which tests run alone do not tell

        def _info(self):
            features = {"text": tfds.features.Text(), "label": np.int64}
            features = tfds.features.FeaturesDict(features)
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {"validation": self._generate_examples()}

        def _generate_examples(self):
            for number in range(3):
                yield number, {"text": f"Zoë {number}.", "label": number}

    LangzooSample(data_dir=tmp_path).download_and_prepare()
    tfds.core.add_data_dir(tmp_path)
    name = "tfds://langzoo_sample@validation"
    documents = readers.read(name, SourceSettings(path=name, fields={"label": "label"}))
    assert {document.text: document.fields for document in documents} == {
        f"Zoë {number}.": {"label": str(number)} for number in range(3)
    }


def test_a_dataset_that_does_not_exist_is_named(ingest, tmp_path):
    with pytest.raises(InputError, match=r"hf://.*/absent: reading broke off"):
        ingest(SourceSettings(path=f"hf://{tmp_path}/absent"))


def test_memory_stays_flat_as_a_file_grows(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(60_000):
            file.write(f'{{"text": "Text {number}, {"padding " * 20}"}}\n')
    tracemalloc.start()
    count = sum(1 for _ in readers.read(str(path), SourceSettings(path="x")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 60_000  # 12 MB
    assert peak < 6e6


@pytest.fixture
def usual_collections():
    """Collects garbage as often as a fresh process does, and not as one of tests.

    The more there is that has lasted, the more has to be new for all to be collected.
    """
    rarely = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.collect()  # finds that nothing has lasted
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*rarely)


@pytest.mark.usefixtures("usual_collections")
def test_memory_stays_flat_as_the_corpus_grows(ingest, tmp_path, monkeypatch):
    monkeypatch.setattr(repeated_keys, "_BITS", 1 << 20)
    path = tmp_path / "x.txt"
    text = ("padding" * 60 + " ") * 760
    steps = CleaningSettings(drop_duplicates=True)

    def peak(documents):
        """Bytes allocated, at most, while so many of 320 kB are ingested."""
        with open(path, "w") as file:
            file.writelines(f"{n} {text}\n" for n in range(documents))
        source = SourceSettings(path=str(path), documents="line")
        tracemalloc.start()
        ingest(source, cleaning=steps, measured=True)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    before = peak(25)  # with what is loaded and reserved once
    grown = peak(100) - before
    assert path.stat().st_size > 30e6
    assert grown < 18e6  # where the corpus has grown by 24 MB


def test_shards_follow_the_size_and_keep_the_order(ingest, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 20_000)
    path = write_numbered(tmp_path / "x.txt", 3000)
    examples = ingest(SourceSettings(path=path, documents="line"))
    uri = Path(artifact_utils.get_split_uri([examples], "train"))
    names = sorted(file.name for file in uri.iterdir())
    number = len(names)
    assert number > 5
    assert names == [
        f"data_tfrecord-{shard:05}-of-{number:05}.gz" for shard in range(number)
    ]
    files = [str(uri / name) for name in names]
    records = tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    features = (tf.train.Example.FromString(r).features.feature for r in records)
    ids = [feature["id"].bytes_list.value[0] for feature in features]
    numbers = [int(name.rpartition(b"#")[2]) for name in ids]
    assert numbers == sorted(numbers)
    sizes = [(uri / name).stat().st_size for name in names[:-1]]
    assert max(sizes) < 1.2 * min(sizes)


def test_a_sieve_holds_all_that_came_again_and_little_else():
    keys = np.random.default_rng(0).integers(2**64, size=100_000, dtype=np.uint64)
    again, once = keys[:1000], keys[1000:]
    combine = RepeatedKeys()
    one, other = combine.create_accumulator(), combine.create_accumulator()
    combine.add_input(one, np.concatenate([again[:300], again[:600], once[:50_000]]))
    combine.add_input(one, again[300:])
    combine.add_input(other, np.concatenate([again[600:], once[50_000:]]))
    sieve = combine.extract_output(combine.merge_accumulators([one, other]))
    assert sieve.holds(again).all()
    assert sieve.holds(once).mean() < 0.001


def test_the_demo_s_corpus_is_written_where_it_is_read(ingest, monkeypatch):
    # All of it takes long to collect, and is looked at in test_demo_corpus.py.
    some = list(itertools.islice(demo_corpus.documents(), 60))
    monkeypatch.setattr(demo_corpus, "documents", lambda: iter(some))
    # As in a container, which no one has given any files.
    examples = ingest(SourceSettings(path=demo_corpus.NAME))
    summary = Summary.read(examples.uri)
    assert sum(summary.documents.values()) == len(some)
