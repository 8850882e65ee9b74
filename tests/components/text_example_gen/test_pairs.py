"""Pairs of texts: of records, of two files side by side, refused where they part."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import files, readers
from langzoo.components.text_example_gen.cleaning import digest
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.executor import to_example
from langzoo.components.text_example_gen.readers import LeftOut
from langzoo.components.text_example_gen.records import Splitting, Summary
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    CorpusSettings,
    SourceSettings,
)
from langzoo.components.text_example_gen.streams import UnlikeError, UnusableError
from langzoo.components.text_example_gen.values import Broken, document_of
from langzoo.pipelines.configuration import loading

BUCKETS = {"train": 800, "test": 100, "eval": 100}


def told(items):
    """Source and target of each document, or where and why it is none."""
    found = []
    for item in items:
        if isinstance(item, Broken):
            found.append((item.place, item.reason))
        elif isinstance(item, LeftOut):
            found.append((item.name, item.what))
        else:
            found.append((item.text, item.target))
    return found


def of_records(path, text, **options):
    path.write_text(text)
    options = {"text_field": "en", "target_field": "de", **options}
    return told(readers.read(str(path), SourceSettings(path=str(path), **options)))


def side_by_side(tmp_path, source, target, **options):
    """What is read of two files of these bytes."""
    paths = [tmp_path / "x.en", tmp_path / "x.de"]
    for path, content in zip(paths, (source, target), strict=True):
        path.write_bytes(content)
    told_of = {"source": str(paths[0]), "target": str(paths[1]), **options}
    settings = SourceSettings(**told_of)
    return list(readers.read(str(paths[0]), settings))


def lines(*records):
    return "".join(f"{json.dumps(record)}\n" for record in records)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.jsonl", lines({"en": "a dog", "de": "ein Hund"})),
        ("x.json", json.dumps([{"de": "ein Hund", "en": "a dog"}])),
        ("x.csv", "de,id,en\nein Hund,1,a dog\n"),
        ("x.tsv", "en\tde\r\na dog\tein Hund\r\n"),
    ],
)
def test_a_record_has_source_and_target(tmp_path, name, text):
    assert of_records(tmp_path / name, text) == [("a dog", "ein Hund")]


def test_of_parquet_both_are_columns_also_within_others(tmp_path):
    path = str(tmp_path / "x.parquet")
    rows = [{"translation": {"en": "a dog", "de": "ein Hund"}}, {"translation": None}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    source = SourceSettings(
        path=path, text_field="translation.en", target_field="translation.de"
    )
    pairs = told(readers.read(path, source))
    assert pairs == [("a dog", "ein Hund"), ("row 2", "'translation.en' is null")]


def test_what_packages_of_datasets_give_as_bytes_is_text():
    source = SourceSettings(path="tfds://x", text_field="en", target_field="de")
    record = {"en": b"a dog", "de": "grün".encode()}
    assert told([document_of("x", source, 0, "record 0", record)]) == [
        ("a dog", "grün")
    ]


def test_a_record_without_a_target_is_told_with_its_place_and_field(tmp_path):
    records = lines(
        {"en": "a", "de": None},
        {"en": "a"},
        {"en": "a", "de": 7},
        {"en": "a", "de": " \n"},
        {"en": "a", "de": "b\r\nc"},
        {"en": "a", "de": "\ud800"},
    )
    assert of_records(tmp_path / "x.jsonl", records) == [
        ("line 1", "'de' is null"),
        ("line 2", "without the field 'de' (it has 'en')"),
        ("line 3", "'de' is int, not a string"),
        ("line 4", "'de' is empty"),
        ("a", "b\nc"),
        ("line 6", "not UTF-8"),
    ]
    with pytest.raises(UnusableError, match=r"without the field 'de' \(it has 'en'\)"):
        of_records(tmp_path / "x.csv", "en\na\n")


def test_an_example_has_its_target():
    example = to_example(Document("x", "a dog", target="ein Hund"))
    assert example.features.feature["target"].bytes_list.value == [b"ein Hund"]
    assert "target" not in to_example(Document("x", "a dog")).features.feature


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"end"])
def test_lines_of_two_files_belong_together(tmp_path, end, last):
    one, other = b"one" + end + b"two" + (end if last else b""), b"eins\nzwei\n"
    expected = [("one", "eins"), ("two", "zwei")]
    assert told(side_by_side(tmp_path, one, other)) == expected


@pytest.mark.parametrize("inside", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_a_newline_ends_a_line(tmp_path, inside):
    one = f"a{inside}b\nc\n".encode()
    assert told(side_by_side(tmp_path, one, b"A\nC\n")) == [
        (f"a{inside}b", "A"),
        ("c", "C"),
    ]
    assert told(side_by_side(tmp_path, b"a\rb\nc", b"A\nC")) == [
        ("a\nb", "A"),
        ("c", "C"),
    ]


def test_marks_and_encodings_are_those_of_each_file(tmp_path):
    one, other = "\ufeffgrün\n".encode(), "grün\n".encode("cp1252")
    pairs = side_by_side(tmp_path, one, other, encoding="cp1252")
    assert told(pairs) == [("grün", "grün")]
    wide = "\ufeffa\nb\n".encode("utf-16-le")
    assert told(side_by_side(tmp_path, wide, b"A\nB\n")) == [("a", "A"), ("b", "B")]


def test_lines_that_have_no_counterpart_are_counted_and_shift_nothing(tmp_path):
    one, other = b"a\n\n \nd\n\xff\nf\n", b"A\n\nC\n\nE\nF\n"
    items = side_by_side(tmp_path, one, other)
    paths = [tmp_path / "x.en", tmp_path / "x.de"]
    assert told(items) == [
        ("a", "A"),
        ("line 2", "pairs of blank lines"),
        ("line 3", f"blank in {paths[0]}, and not in the other file"),
        ("line 4", f"blank in {paths[1]}, and not in the other file"),
        ("line 5", "not UTF-8"),
        ("f", "F"),
    ]
    # A name is of the line, whatever is before it.
    assert items[-1].id == f"{paths[0]} and {paths[1]}#5"


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        (b"a\nb\nc\n", b"A\n", (3, 1)),
        (b"a\n", b"A\nB", (1, 2)),
        (b"a\n", b"A\n\n", (1, 2)),
        (b"", b"A\n", (0, 1)),
    ],
)
def test_unequal_numbers_of_lines_are_an_error_with_both(tmp_path, one, other, counts):
    with pytest.raises(UnlikeError) as told_of:
        side_by_side(tmp_path, one, other)
    said = f"{tmp_path}/x.en has {counts[0]} line(s), and {tmp_path}/x.de has"
    assert str(told_of.value).startswith(f"{said} {counts[1]}: each line needs")


def test_two_files_may_be_compressed_each_in_its_way(tmp_path):
    one, other = tmp_path / "x.en.gz", tmp_path / "x.de"
    one.write_bytes(gzip.compress(b"a\nb\n"))
    other.write_bytes(b"A\nB\n")
    source = SourceSettings(source=str(one), target=str(other))
    assert told(readers.read(str(one), source)) == [("a", "A"), ("b", "B")]
    one.write_bytes(b"a\nb\n")
    with pytest.raises(UnusableError, match=f"^{one}: not gzip"):
        list(readers.read(str(one), source))
    other.write_bytes(b"\0\0A\n")
    source = SourceSettings(source=str(other), target=str(other))
    with pytest.raises(UnusableError, match=f"^{other}: binary"):
        list(readers.read(str(other), source))


def test_two_empty_files_have_no_pairs(tmp_path):
    assert side_by_side(tmp_path, b"", b"") == []


def test_both_files_are_found_and_fingerprinted(tmp_path):
    for name in ("day-1.en", "day-1.de", "day-2.en", "day-2.de"):
        (tmp_path / name).write_text("a\n")
    day = str(tmp_path / "day-{SPAN}")
    source = SourceSettings(source=f"{day}.en", target=f"{day}.de")
    [file] = files.find([source]).files
    assert file.name == f"{tmp_path}/day-2.en and {tmp_path}/day-2.de"
    before = files.fingerprint([source])
    (tmp_path / "day-2.de").write_text("ab\n")
    assert files.fingerprint([source]) != before
    (tmp_path / "day-3.en").write_text("a\n")
    with pytest.raises(InputError, match=r"is of span 3, and .* of span 2: they must"):
        files.find([source])


def test_a_source_may_have_several_files_of_targets(tmp_path):
    for name in ("x.en", "0.de", "1.de"):
        (tmp_path / name).write_text("a\n")
    pairs = [
        SourceSettings(source=f"{tmp_path}/x.en", target=f"{tmp_path}/{number}.de")
        for number in (0, 1)
    ]
    assert len(files.find(pairs).files) == 2
    with pytest.raises(InputError, match="belongs to two sources"):
        files.find([pairs[0], pairs[0].model_copy(update={"weight": 2.0})])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("x.en", "no.de"), "no file matches the corpus '.*no.de'"),
        (("*.en", "x.de"), "2 files, and a source and its target are one file each"),
        (("x.en", "x.jsonl"), "x.jsonl is jsonl, by its name, and a source and its"),
        (("x.en", "x.tar.gz"), "x.tar.gz is tar, by its name, and a source and its"),
    ],
)
def test_what_is_not_two_text_files_is_refused(tmp_path, names, said):
    for name in ("x.en", "y.en", "x.de", "x.jsonl", "x.tar.gz"):
        (tmp_path / name).write_text("a\n")
    one, other = (str(tmp_path / name) for name in names)
    with pytest.raises(InputError, match=said):
        files.find([SourceSettings(source=one, target=other)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "a"}, "source 'a' is one of two text files side by side"),
        ({"source": "a", "target": "b", "path": "c"}, "one of two text files side by"),
        ({"path": "a", "target": "b", "documents": "paragraph"}, "documents paragraph"),
        ({"path": "a", "target": "b", "format": "csv"}, "format csv is of other"),
        ({"path": "a", "target": "b", "text_field": "x"}, "are text, line by line"),
        ({"path": "a", "target": "b", "target_field": "x"}, "are text, line by line"),
        ({"path": "a", "target": "tfds://b"}, "a dataset is of other sources"),
        ({"path": "a", "target_field": "b", "label_field": "c"}, "give one, as a"),
        ({"path": "a", "fields": {"target": "b"}}, "is that of corpus.target_field"),
        (
            {"path": "a", "target_field": "b", "fields": {"target_ids": "c"}},
            "'target_ids' cannot be the name of a feature",
        ),
    ],
)
def test_what_does_not_go_with_pairs_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        CorpusSettings(sources=[settings])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "corpus.target_field=de",
            "and task causal_lm does not: leave it out, or name",
        ),
        ("corpus.sources=[{source: a, target: b}]", "and task causal_lm does not"),
        ("cleaning.max_length_ratio=3", "task causal_lm has none: leave it out"),
        ("cleaning.drop_copies=true", "cleaning.drop_copies is of documents with a"),
        ("cleaning.max_target_bytes=3", "cleaning.max_target_bytes is of documents"),
    ],
)
def test_targets_are_of_a_task_that_learns_from_them(setting, said):
    with pytest.raises(loading.ConfigError, match=said):
        loading.load(None, [setting])


def test_lengths_of_targets_are_as_those_of_texts():
    with pytest.raises(ValueError, match="min_target_bytes 5 must be at most"):
        CleaningSettings(min_target_bytes=5, max_target_bytes=4)


def test_all_sources_have_targets_or_none():
    with pytest.raises(ValueError, match="b has no target_field, and others have"):
        CorpusSettings(sources=[{"source": "a", "target": "A"}, {"path": "b"}])
    mixed = [{"source": "a", "target": "A"}, {"path": "b.csv", "target_field": "de"}]
    assert CorpusSettings(sources=mixed).targets == {"target"}


def test_all_targets_of_a_source_are_in_one_split():
    for number in range(30):
        pair = [Document(it, f"Text {number}", target=it) for it in "ab"]
        assert len({document.split_of(BUCKETS) for document in pair}) == 1


def test_equal_sources_with_other_targets_are_no_duplicates():
    first, second, third = (
        Document(name, "a", target=target)
        for name, target in (("x", "A"), ("y", "B"), ("z", "A"))
    )
    assert digest(first) == digest(third) != digest(second)
    assert digest(first, frozenset()) == digest(second, frozenset())
    assert digest(first, frozenset({"target"})) != digest(second, frozenset({"target"}))


def splitting(*sources):
    return Splitting.of(
        [SourceSettings(**source) for source in sources], CleaningSettings(), BUCKETS
    )


def test_what_decides_a_split_knows_both_files_and_the_target():
    pair = {"source": "./a.en", "target": "a.de"}
    assert splitting(pair).sources.keys() == {"a.en and a.de"}
    assert not splitting(pair).seen_by(splitting({**pair, "weight": 2.0}), "eval")
    others = {"source": "a.en", "target": "b.de"}
    assert "a.en and b.de" in splitting(pair).seen_by(splitting(others), "eval")
    assert len(splitting(pair, others).sources) == 2
    table = {"path": "a.csv", "target_field": "de"}
    swapped = {"path": "a.csv", "target_field": "fr"}
    assert "target_field" in splitting(table).seen_by(splitting(swapped), "eval")


def test_a_splitting_of_before_there_were_targets_compares():
    old = splitting({"path": "a.csv"})
    (told_of,) = old.sources.values()
    del told_of["target_field"]
    assert not splitting({"path": "a.csv"}).seen_by(old, "eval")


def test_an_ingestion_tells_of_its_pairs(run_example_gen, tmp_path, listening):
    numbers = range(40)
    one = "".join(f"Text {i % 30}\n" for i in numbers) + "\nonly here\n"
    other = "".join(f"Wort {i}\n" for i in numbers) + "\n\n"
    (tmp_path / "train.en").write_text(one)
    (tmp_path / "train.de").write_text(other)
    table = tmp_path / "eval.jsonl"
    table.write_text(lines({"en": "Text 1", "de": "Wort"}, {"en": "a", "de": None}))
    train = {"source": f"{tmp_path}/train.en", "target": f"{tmp_path}/train.de"}
    sources = [
        {**train, "split": "train"},
        {"path": str(table), "split": "eval", "text_field": "en", "target_field": "de"},
    ]
    with listening() as said:
        examples = run_example_gen(sources, measured=True)
    summary = Summary.read(examples.uri)
    assert summary.documents == {"train": 40, "eval": 1}
    assert summary.left_out == {"pairs of blank lines": 1}
    assert any("left out 1 pairs of blank lines" in line for line in said)
    name = f"{tmp_path}/train.en and {tmp_path}/train.de"
    blank = f"line 42: blank in {tmp_path}/train.de, and not in the other file"
    assert summary.skipped == {str(table): "line 2: 'de' is null", name: blank}
    # A source of eval that train has, too, with another target.
    assert summary.contamination["eval"].exact == 1
    [file] = tf.io.gfile.glob(f"{examples.uri}/Split-eval/*")
    [record] = tf.data.TFRecordDataset(file, "GZIP").as_numpy_iterator()
    features = tf.train.Example.FromString(record).features.feature
    assert features["target"].bytes_list.value == [b"Wort"]


def test_unequal_files_end_an_ingestion_in_a_line(run_example_gen, tmp_path):
    (tmp_path / "x.en").write_text("a\nb\n")
    (tmp_path / "x.de").write_text("A\n")
    source = {"source": f"{tmp_path}/x.en", "target": f"{tmp_path}/x.de"}
    with pytest.raises(InputError, match=r"x\.en has 2 line\(s\), and .*x\.de has 1: "):
        run_example_gen([source])


def test_too_few_pairs_are_told_without_a_word_of_finer_documents(
    run_example_gen, tmp_path
):
    for name in ("x.en", "x.de"):
        (tmp_path / name).write_text("a\n")
    source = {"source": f"{tmp_path}/x.en", "target": f"{tmp_path}/x.de"}
    with pytest.raises(InputError, match=r"the split '\w+' empty; add documents$"):
        run_example_gen([source])


SUMMARIES = loading.DEMO_CONFIG.with_name("summarization.yaml")
TRANSLATION = loading.DEMO_CONFIG.with_name("translation.yaml")


def test_a_task_of_pairs_needs_targets():
    with pytest.raises(loading.ConfigError, match=r"corpus\.target_field must name"):
        loading.load(SUMMARIES, ["corpus.target_field=null"])
    with pytest.raises(loading.ConfigError, match=r"\{source: train.en, target: "):
        loading.load(TRANSLATION, ["corpus.sources=[{path: a.en}]"])


def test_pairs_are_cleaned_and_told_apart_by_their_targets():
    steps = ["cleaning.max_length_ratio=3", "cleaning.duplicate_fields=[target]"]
    assert loading.load(SUMMARIES, steps).cleaning.of_pairs == ["max_length_ratio"]


def test_documents_are_not_sliced_by_their_targets():
    with pytest.raises(loading.ConfigError, match="no feature 'target' to slice by"):
        loading.load(SUMMARIES, ["gate.slices=[target]"])


@pytest.mark.parametrize("setting", ["packing=best_fit", "carry_state=true"])
def test_pairs_share_no_rows(setting):
    with pytest.raises(loading.ConfigError, match="is of tasks whose rows documents"):
        loading.load(SUMMARIES, [f"trainer.{setting}"])
