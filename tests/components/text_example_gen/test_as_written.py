"""Text as it is written: nothing of it is lost or altered on the way to a document."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json

import hypothesis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import strategies
from langzoo.components.text_example_gen import cleaning, readers, rows
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.records import Summary
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    SourceSettings,
)
from langzoo.components.text_example_gen.streams import UnusableError
from langzoo.components.text_example_gen.values import Broken, document_of


def read(path, **options):
    source = SourceSettings(path=str(path), **options)
    items = list(readers.read(str(path), source))
    texts = [item.text for item in items if isinstance(item, Document)]
    broken = {item.place: item.reason for item in items if isinstance(item, Broken)}
    return texts, broken


CODE = "\n\nclass A:\n\n    def f(self):\n        return 1\n\n  \n    pass  \n\n"


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("file", [CODE.strip("\n")]),
        (
            "paragraph",
            ["class A:", "    def f(self):\n        return 1", "    pass  "],
        ),
        (
            "line",
            ["class A:", "    def f(self):", "        return 1", "    pass  "],
        ),
    ],
)
def test_a_document_keeps_its_indentation(tmp_path, unit, texts):
    (tmp_path / "x.txt").write_text(CODE)
    assert read(tmp_path / "x.txt", documents=unit) == (texts, {})


TEXTS = [" positive", "    indented\n        more", "end \n\n", '"quoted"', "a,b\t;c"]


def write_json_lines(path):
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))


def write_parquet(path):
    pa.parquet.write_table(pa.table({"text": TEXTS}), path)


WRITERS = {
    ".jsonl": write_json_lines,
    ".parquet": write_parquet,
    ".csv": lambda path: pd.DataFrame({"text": TEXTS, "n": 1}).to_csv(path),
    ".tsv": lambda path: pd.DataFrame({"text": TEXTS, "n": 1}).to_csv(path, sep="\t"),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_record_keeps_its_white_space_and_quotes(tmp_path, ending):
    WRITERS[ending](tmp_path / f"x{ending}")
    assert read(tmp_path / f"x{ending}") == (TEXTS, {})


def test_a_cleaning_step_keeps_the_white_space_around_a_text():
    steps = cleaning._CleanEach(CleaningSettings(remove_control_characters=True))
    steps.setup()
    texts = {
        item.text
        for text in (" \x01a\n", "\x01 ")
        for item in steps.process(Document("id", text))
        if isinstance(item, Document)
    }
    assert texts == {" a\n"}


@pytest.mark.parametrize(
    ("ending", "delimiter"), [(".csv", ";"), (".tsv", "|"), (".csv", "\t")]
)
def test_a_delimiter_can_be_told(tmp_path, ending, delimiter):
    table = pd.DataFrame({"text": TEXTS, "n": 1})
    table.to_csv(tmp_path / f"x{ending}", sep=delimiter)
    assert read(tmp_path / f"x{ending}", delimiter=delimiter) == (TEXTS, {})


def test_one_stray_quote_costs_its_own_line(tmp_path):
    lines = ["text,label", "plain,0", '"5\'11"" tall man,1']
    lines += [f"kept {number},{number % 2}" for number in range(500)]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    texts, broken = read(tmp_path / "x.csv")
    assert texts == ["plain", *(f"kept {number}" for number in range(500))]
    assert broken == {"line 3": "not CSV (unexpected end of data)"}


@pytest.mark.parametrize("fault", ['"open,1', 'a,"open', '"open "" more,1', '"a"b,1'])
@pytest.mark.parametrize("behind", ['said "hi",0', '"two\nlines, ""so""",0', "x,0"])
def test_what_stands_behind_a_stray_quote_is_read(tmp_path, fault, behind):
    rest = "".join(f"kept {number},0\n" for number in range(9))
    (tmp_path / "x.csv").write_text(f"text,label\n{fault}\n{rest}{behind}\n{rest}")
    texts, broken = read(tmp_path / "x.csv")
    kept = [f"kept {number}" for number in range(9)]
    (text,) = next(csv.reader(io.StringIO(behind)))[:1]
    assert texts == [*kept, text, *kept]
    assert [*broken] == ["line 2"]


def test_the_lines_of_a_text_that_is_quoted_wrongly_are_no_records(tmp_path):
    (tmp_path / "x.csv").write_text(
        'text,label\n"Dear all, I\nsay "hello" to\nyou, my friends",1\ngood,0\n'
    )
    texts, broken = read(tmp_path / "x.csv")
    assert texts == ["good"]
    assert sum("not CSV" in reason for reason in broken.values()) == 1


def test_a_quote_stays_open_for_so_long_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_QUOTED", 1000)
    rest = "".join(f"kept {number},0\n" for number in range(5000))
    (tmp_path / "x.csv").write_text(f'text,label\n"open,1\n{rest}')
    taken = []
    lines = (line for line in (tmp_path / "x.csv").read_text().splitlines(True))
    found = iter(rows.Rows((taken.append(1) or line for line in lines), ",", "CSV"))
    assert "open for 1,000 characters" in next(found).problem
    assert len(taken) < 200
    assert sum(not row.problem for row in found) == 5000


def test_a_quoted_table_within_a_field_is_text(tmp_path):
    table = "id,name\n1,a\n2,b\n"
    pd.DataFrame({"text": [table], "n": 1}).to_csv(tmp_path / "x.csv", index=False)
    assert read(tmp_path / "x.csv") == ([table], {})


@hypothesis.given(
    strategies.lists(
        strategies.text('ab",;\t\n é', min_size=1).filter(lambda t: t.strip("\n \t")),
        min_size=1,
    ),
    strategies.sampled_from([(",", "CSV"), (";", "CSV")]),
)
def test_whatever_the_standard_library_writes_is_read_as_it_was(texts, told):
    delimiter, name = told
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["text", "n"], *([text, "1"] for text in texts)])
    lines = io.StringIO(file.getvalue(), newline="")
    found = [row.columns for row in rows.Rows(iter(lines), delimiter, name)]
    assert found == [[text, "1"] for text in texts]


def test_tab_separated_values_with_quotes_as_letters_are_read_as_they_are(tmp_path):
    lines = ['"open\t0', '"a" and b\t1', 'close"\t2', "5'11\"\t3", '"both"\t4']
    (tmp_path / "x.tsv").write_text("text\tn\n" + "\n".join(lines))
    texts, broken = read(tmp_path / "x.tsv")
    assert texts == ['"open', '"a" and b', 'close"', "5'11\"", "both"]
    assert not broken


NESTED = [{"data": {"text": f"Text {n}.", "meta": {"lang": "en"}}} for n in range(3)]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_a_name_with_dots_is_of_a_field_within_a_field(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    if ending == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(NESTED), path)
    elif ending == ".json":
        path.write_text(json.dumps(NESTED))
    else:
        path.write_text("\n".join(map(json.dumps, NESTED)))
    source = SourceSettings(
        path=str(path), text_field="data.text", fields={"lang": "data.meta.lang"}
    )
    documents = list(readers.read(str(path), source))
    assert [document.text for document in documents] == [
        "Text 0.",
        "Text 1.",
        "Text 2.",
    ]
    assert all(document.fields == {"lang": "en"} for document in documents)


def test_a_name_with_dots_may_be_the_name_itself(tmp_path):
    pa.parquet.write_table(pa.table({"a.b": ["Text."]}), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text('{"a.b": "Text.", "a": {"b": "other"}}')
    for name in ("x.parquet", "x.jsonl"):
        assert read(tmp_path / name, text_field="a.b") == (["Text."], {})


@pytest.mark.parametrize("name", ["data.body", "text.inner", "nothing.at.all"])
def test_a_field_within_a_field_that_is_not_there_is_named(tmp_path, name):
    pa.parquet.write_table(pa.Table.from_pylist(NESTED), tmp_path / "x.parquet")
    with pytest.raises(UnusableError, match="without the field"):
        read(tmp_path / "x.parquet", text_field=name)


COLUMNS = {
    "date": (pa.array([18262, None], pa.date32()), "2020-01-01"),
    "far": (pa.array([1 << 62, None], pa.timestamp("us")), None),
    "zoned": (
        pa.array([0, None], pa.timestamp("ms", "UTC")),
        "1970-01-01 00:00:00.000Z",
    ),
    "time": (pa.array([61_000, None], pa.time32("ms")), "00:01:01.000"),
    "duration": (pa.array([5, None], pa.duration("s")), "5"),
    "decimal": (pa.array([decimal.Decimal("1.50"), None]), "1.50"),
    "int": (pa.array([1 << 63, None], pa.uint64()), str(1 << 63)),
    "float": (pa.array([0.5, None]), "0.5"),
    "bool": (pa.array([True, None]), "true"),
    "bytes": (pa.array([b"ab", None]), "ab"),
    "large": (pa.array(["a", None], pa.large_string()), "a"),
    "dictionary": (pa.array(["a", None]).dictionary_encode(), "a"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_type_is_a_label_and_null_is_none(tmp_path, name):
    column, told = COLUMNS[name]
    path = tmp_path / "x.parquet"
    pa.parquet.write_table(pa.table({"text": ["One.", "Two."], name: column}), path)
    source = SourceSettings(path=str(path), fields={"label": name})
    first, second = readers.read(str(path), source)
    assert (second.text, second.fields) == ("Two.", {})
    if told is not None:
        assert first.fields == {"label": told}
    else:
        assert str(1 << 62) in first.fields["label"]


def test_a_column_of_lists_is_refused_by_record(tmp_path):
    path = tmp_path / "x.parquet"
    pa.parquet.write_table(pa.table({"text": ["One."], "label": [["a"]]}), path)
    _, broken = read(path, fields={"label": "label"})
    assert broken == {"row 1": "'label' is ListScalar, not a string or number"}


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_a_null_label_costs_the_label_and_not_the_document(tmp_path, ending):
    records = [{"text": "One.", "mood": None}, {"text": "Two.", "mood": "good"}]
    path = tmp_path / f"x{ending}"
    joined = (
        json.dumps(records)
        if ending == ".json"
        else "\n".join(map(json.dumps, records))
    )
    path.write_text(joined)
    source = SourceSettings(path=str(path), fields={"label": "mood"})
    fields = {item.text: item.fields for item in readers.read(str(path), source)}
    assert fields == {"One.": {}, "Two.": {"label": "good"}}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.datetime(2020, 1, 2, 3), "2020-01-02 03:00:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (b"Zo\xc3\xab", "Zoë"),
    ],
)
def test_a_value_of_a_dataset_is_a_label(value, told):
    source = SourceSettings(path="x", fields={"label": "label"})
    record = {"text": "Text.", "label": value}
    assert document_of("x", source, 0, "", record).fields == {"label": told}


@pytest.mark.parametrize("value", [np.zeros(3), [1], {"a": 1}, b"\xff", object()])
def test_a_value_that_is_no_label_is_a_broken_record(value):
    source = SourceSettings(path="x", fields={"label": "label"})
    record = {"text": "Text.", "label": value}
    assert isinstance(document_of("x", source, 0, "record 7", record), Broken)


def test_a_missing_label_travels_through_ingestion(run_example_gen, tmp_path):
    records = [
        {"text": f"Text {n}.", "mood": None if n % 2 else "good"} for n in range(60)
    ]
    (tmp_path / "x.json").write_text(json.dumps(records))
    source = SourceSettings(path=str(tmp_path / "x.json"), fields={"label": "mood"})
    examples = run_example_gen([source])
    assert sum(Summary.read(examples.uri).documents.values()) == 60


@pytest.mark.parametrize("told", [{"encoding": "latin-0"}, {"delimiter": ";;"}])
def test_an_encoding_or_delimiter_that_is_none_is_refused(told):
    with pytest.raises(ValueError, match=next(iter(told))):
        SourceSettings(path="x", **told)
