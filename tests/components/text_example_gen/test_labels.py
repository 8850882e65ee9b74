"""Labels: read of every format, counted by split, refused where they will not do."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import labels, readers
from langzoo.components.text_example_gen.executor import to_example
from langzoo.components.text_example_gen.records import Labels
from langzoo.components.text_example_gen.settings import CorpusSettings, SourceSettings
from langzoo.components.text_example_gen.values import Broken


def write(path, records):
    """Writes records in the format that the file's name says."""
    kind = path.suffix
    if kind == ".jsonl":
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    elif kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        with open(path, "w", newline="") as file:
            delimiter = "," if kind == ".csv" else "\t"
            table = csv.DictWriter(file, records[0], delimiter=delimiter)
            table.writeheader()
            table.writerows(records)


def labels_in(path, **options):
    """The labels of each document, or why it is none."""
    source = SourceSettings(path=str(path), label_field="kind", **options)
    items = readers.read(str(path), source)
    return [it.reason if isinstance(it, Broken) else it.labels for it in items]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_a_label_is_a_value_of_any_format(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    write(path, [{"text": "One.", "kind": " good "}, {"text": "Two.", "kind": "bad"}])
    assert labels_in(path) == [("good",), ("bad",)]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_several_labels_stand_in_a_column_between_separators(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    rows = ["a; b;a", "", "c"]
    write(path, [{"text": f"Text {i}.", "kind": k} for i, k in enumerate(rows)])
    found = labels_in(path, multi_label=True, label_separator=";")
    assert found == [("a", "b"), (), ("c",)]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_several_labels_are_a_list(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    rows = [["a", "b"], [], ["c"]]
    write(path, [{"text": f"Text {i}.", "kind": k} for i, k in enumerate(rows)])
    assert labels_in(path, multi_label=True) == [("a", "b"), (), ("c",)]
    reason = "'kind' is a list: corpus.multi_label says that there may be several"
    assert labels_in(path) == [reason] * 3


def test_numbers_and_truth_are_labels_and_what_is_none_is_told(tmp_path):
    path = tmp_path / "x.jsonl"
    kinds = [1, True, None, " ", "a\nb", {"a": 1}]
    write(path, [{"text": f"Text {i}.", "kind": k} for i, k in enumerate(kinds)])
    assert labels_in(path) == [
        ("1",),
        ("true",),
        "'kind' is null",
        "'kind' is empty",
        "'kind' has a line end in it",
        "'kind' is dict, not a string or number",
    ]


def test_an_example_has_each_label_of_its_document(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path, [{"text": "One.", "kind": ["a", "b"]}, {"text": "Two.", "kind": []}])
    source = SourceSettings(path=str(path), label_field="kind", multi_label=True)
    examples = [to_example(document) for document in readers.read(str(path), source)]
    parsed = tf.io.parse_example(
        [example.SerializeToString() for example in examples],
        {"label": tf.io.RaggedFeature(tf.string)},
    )
    assert parsed["label"].to_list() == [[b"a", b"b"], []]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({}, "no document of train has a label"),
        ({"a": 9}, "all documents of train have the label 'a'"),
        ({"a": 9, "b": 1, "c": 2}, "too few documents of train have 'b' \\(1\\)"),
    ],
)
def test_what_no_classifier_can_learn_of_is_a_line(train, said):
    with pytest.raises(InputError, match=f"^corpus.label_field: {said}"):
        labels.require_enough(Labels(documents={"train": train}), 2)


def test_a_split_of_unknown_labels_alone_is_a_line():
    documents = {"train": {"a": 9, "b": 9}, "eval": {"z": 3}}
    said = "no document of eval has a label that train has: there are 'z' \\(3\\), and"
    with pytest.raises(InputError, match=said):
        labels.require_enough(Labels(documents=documents), 2)
    # Where a document may have none, it is one without labels.
    labels.require_enough(Labels(documents=documents, multi_label=True), 2)


def test_labels_that_train_has_not_are_counted_and_told():
    found = Labels(documents={"train": {"b": 2, "a": 9}, "eval": {"a": 1, "z": 3}})
    labels.require_enough(found, 2)
    assert found.names == ["a", "b"]
    assert list(labels.described(found)) == [
        "2 label(s) in train: 'a' (9), 'b' (2)",
        "eval: 3 label(s) that train has not, which no model can know: 'z' (3)",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label_field": "kind", "fields": {"label": "x"}}, "is that of corpus.label"),
        (
            {
                "sources": [
                    {"path": "a.csv", "label_field": "kind"},
                    {"path": "b.csv"},
                ]
            },
            "b.csv has no label_field",
        ),
        (
            {
                "label_field": "kind",
                "sources": [{"path": "a.csv", "multi_label": True}, {"path": "b.csv"}],
            },
            "multi_label is of all of them",
        ),
    ],
)
def test_labels_of_sources_are_alike(settings, said):
    with pytest.raises(ValueError, match=said):
        CorpusSettings(**settings)


def test_an_ingestion_leaves_its_labels(run_example_gen, tmp_path):
    records = [{"text": f"Text {i}.", "kind": "ab"[i % 2]} for i in range(40)]
    write(tmp_path / "train.jsonl", records)
    write(tmp_path / "eval.jsonl", [{"text": "New.", "kind": "z"}, records[0]])
    sources = [
        {"path": str(tmp_path / f"{split}.jsonl"), "split": split}
        for split in ("train", "eval")
    ]
    examples = run_example_gen(sources, label_field="kind")
    found = Labels.read(examples.uri)
    assert found.documents == {"train": {"a": 20, "b": 20}, "eval": {"z": 1, "a": 1}}
    write(tmp_path / "train.jsonl", records[::2])
    with pytest.raises(InputError, match="have the label 'a'"):
        run_example_gen(sources, name="again", label_field="kind")
