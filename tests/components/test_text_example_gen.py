"""Ingestion: files to documents, each in one split, nothing lost unseen."""

from __future__ import annotations

import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import executor, files
from langzoo.components.text_example_gen.component import TextExampleGen
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils


@pytest.fixture
def ingest(tmp_path):
    """Runs the component's executor on a corpus; returns the artifact's folder."""

    def run(corpus, **options):
        component = TextExampleGen(str(corpus), **options)
        properties = {
            name: proto_utils.proto_to_json(value)
            if hasattr(value, "SerializeToString")
            else value
            for name, value in component.exec_properties.items()
        }
        examples = standard_artifacts.Examples()
        examples.uri = str(tmp_path / "examples")
        context = executor.Executor.Context(
            tmp_dir=str(tmp_path / "scratch"), unique_id="1"
        )
        executor.Executor(context).Do({}, {"examples": [examples]}, properties)
        return examples

    return run


def read_texts(examples, split):
    pattern = f"{artifact_utils.get_split_uri([examples], split)}/*"
    dataset = tf.data.TFRecordDataset(
        tf.io.gfile.glob(pattern), compression_type="GZIP"
    )
    features = (
        tf.train.Example.FromString(record).features.feature
        for record in dataset.as_numpy_iterator()
    )
    return {
        feature["id"].bytes_list.value[0].decode(): (
            feature["text"].bytes_list.value[0].decode()
        )
        for feature in features
    }


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
    summary = executor.Summary.read(examples.uri)
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
        ("file", ["One\ntwo.\n\n  \nThree."]),
        ("paragraph", ["One\ntwo.", "Three."]),
        ("line", ["One", "two.", "Three."]),
    ],
)
def test_units_of_documents(unit, documents):
    text = "\n\nOne\r\ntwo.\n\n  \nThree.\n"
    assert executor.split_documents(text, unit) == documents


def test_unusable_files_are_named_counted_and_skipped(ingest, folder):
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "empty.txt").write_bytes(b"")
    summary = executor.Summary.read(ingest(folder).uri)
    assert summary.skipped == {
        str(folder / "empty.txt"): "empty",
        str(folder / "latin.txt"): "not UTF-8 (byte 3)",
    }
    assert summary.files == 62


def test_strict_makes_an_unusable_file_an_error(ingest, folder):
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8 \(byte 3\)"):
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
    before = files.fingerprint(str(folder))
    assert files.fingerprint(str(folder)) == before
    (folder / "deep" / "0.txt").write_text("changed")
    assert files.fingerprint(str(folder)) != before
