"""Words with tags: read of every format, refused where they do not go together."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import demo_code, labels, readers
from langzoo.components.text_example_gen.cleaning import digest
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.executor import to_example
from langzoo.components.text_example_gen.records import Labels, Summary
from langzoo.components.text_example_gen.settings import CorpusSettings, SourceSettings
from langzoo.components.text_example_gen.values import Broken
from langzoo.pipelines.configuration import loading

CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O

# # O
3\u00a0000 CD O
"""


def tagged_in(path, text, **options):
    """Text and tags of each document of a file, or where and why it is none."""
    path.write_text(text)
    source = SourceSettings(path=str(path), **{"tags_field": "tags", **options})
    return [
        (it.place, it.reason) if isinstance(it, Broken) else (it.text, it.tags)
        for it in readers.read(str(path), source)
    ]


def lines(*records):
    return "".join(f"{json.dumps(record)}\n" for record in records)


@pytest.mark.parametrize(
    ("words", "tags"),
    [(["EU", "rejects"], ["B-ORG", "O"]), ("EU  rejects", " B-ORG\tO ")],
)
def test_words_and_tags_are_lists_or_text(tmp_path, words, tags):
    records = lines({"text": words, "tags": tags})
    expected = [("EU rejects", ("B-ORG", "O"))]
    assert tagged_in(tmp_path / "x.jsonl", records) == expected


def test_a_table_has_them_in_columns(tmp_path):
    table = "tags,words\nB-ORG O,EU rejects\n"
    expected = [("EU rejects", ("B-ORG", "O"))]
    assert tagged_in(tmp_path / "x.csv", table, text_field="words") == expected
    rows = [{"words": ["EU", "rejects"], "tags": ["B-ORG", "O"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    source = SourceSettings(path="x", text_field="words", tags_field="tags")
    [document] = readers.read(str(tmp_path / "x.parquet"), source)
    assert (document.text, document.tags) == expected[0]


def test_what_does_not_go_together_is_told_with_its_place_and_field(tmp_path):
    records = lines(
        {"text": ["a", "b"], "tags": ["O"]},
        {"text": ["a"]},
        {"text": ["a"], "tags": None},
        {"text": [], "tags": []},
        {"text": ["a", ""], "tags": ["O", "O"]},
        {"text": ["a b"], "tags": ["O"]},
        {"text": ["a"], "tags": ["B PER"]},
        {"text": ["a"], "tags": {"a": 1}},
        {"text": " ", "tags": "O"},
    )
    assert tagged_in(tmp_path / "x.jsonl", records) == [
        ("line 1", "'tags' has 1 for the 2 words of 'text'"),
        ("line 2", "without the field 'tags' (it has 'text')"),
        ("line 3", "'tags' is null"),
        ("line 4", "'text' is empty"),
        ("line 5", "'text', number 2, is empty"),
        ("line 6", "'text', number 1, has white space in 'a b'"),
        ("line 7", "'tags', number 1, has white space in 'B PER'"),
        ("line 8", "'tags' is dict, neither a list nor a string"),
        ("line 9", "'text' is empty"),
    ]


@pytest.mark.parametrize(("tags_field", "text_field"), [("-1", "text"), (3, 1)])
def test_a_sentence_of_conll_is_a_document(tmp_path, tags_field, text_field):
    found = tagged_in(
        tmp_path / "x.conll", CONLL, tags_field=tags_field, text_field=text_field
    )
    assert found == [
        ("EU rejects", ("B-ORG", "O")),
        ("# 3\u00a0000", ("O", "O")),
    ]


def test_columns_of_conll_stand_between_tabs_too_and_comments_are_none(tmp_path):
    text = "#\thttp://x.de [2005]\n1\tNew\tB-LOC\tO\r\n2\tYork\tI-LOC\tO\t\n\n\n"
    options = {"tags_field": "3", "text_field": "2"}
    assert tagged_in(tmp_path / "x.conll", text, **options) == [
        ("New York", ("B-LOC", "I-LOC"))
    ]
    text = "a;B-X\nb c;O\n\na b\n;O\n"
    options = {"tags_field": -1, "delimiter": ";"}
    assert tagged_in(tmp_path / "x.conll", text, **options) == [
        ("line 2", "white space in 'b c' in column 1"),
        ("line 4", "1 columns, and 2 at the end of the sentence"),
    ]
    assert tagged_in(tmp_path / "x.conll", "a O\n", tags_field="7") == [
        ("line 1", "without the field '7' (it has 'text', '1', '2', '-2', '-1')")
    ]


def test_an_example_has_a_tag_for_each_word(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text(CONLL)
    source = SourceSettings(path=str(path), tags_field="-1")
    examples = [to_example(document) for document in readers.read(str(path), source)]
    parsed = tf.io.parse_example(
        [example.SerializeToString() for example in examples],
        {"tag": tf.io.RaggedFeature(tf.string)},
    )
    assert parsed["tag"].to_list() == [[b"B-ORG", b"O"], [b"O", b"O"]]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({}, "no document of train has a tag"),
        ({"O": 9}, "all words of train have the tag 'O': a tagger needs at least two"),
        ({"O": 9, "B-X": 1}, "too few words of train have 'B-X' \\(1\\)"),
    ],
)
def test_what_no_tagger_can_learn_of_is_a_line(train, said):
    found = Labels(feature="tag", documents={"train": train})
    with pytest.raises(InputError, match=f"^corpus.tags_field: {said}"):
        labels.require_enough(found, 2)


def test_an_ingestion_leaves_its_tags(run_example_gen, tmp_path):
    train = tmp_path / "train.jsonl"
    records = [{"text": f"Text {i}", "tags": "B-X O"} for i in range(20)]
    train.write_text(lines(*records, {"text": "a b", "tags": "O"}))
    (tmp_path / "eval.conll").write_text("Text B-NEW\n1 O\n")
    sources = [
        {"path": str(train), "split": "train", "tags_field": "tags"},
        {"path": str(tmp_path / "eval.conll"), "split": "eval", "tags_field": "-1"},
    ]
    examples = run_example_gen(sources)
    assert Labels.read(examples.uri) == Labels(
        feature="tag",
        documents={"train": {"B-X": 20, "O": 20}, "eval": {"B-NEW": 1, "O": 1}},
    )
    skipped = Summary.read(examples.uri).skipped
    reason = "line 21: 'tags' has 1 for the 2 words of 'text'"
    assert skipped == {str(train): reason}


def test_tags_that_train_has_not_are_counted_and_told():
    documents = {"train": {"B-X": 20, "O": 20}, "eval": {"B-NEW": 1, "O": 1}}
    assert list(labels.described(Labels(feature="tag", documents=documents))) == [
        "2 tag(s) in train: 'B-X' (20), 'O' (20)",
        "eval: 1 tag(s) that train has not, which no model can know: 'B-NEW' (1)",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tags_field": "t", "label_field": "l"}, "give one, as a model learns either"),
        ({"tags_field": "t", "fields": {"tag": "x"}}, "is that of corpus.tags_field"),
        (
            {"sources": [{"path": "a.csv", "tags_field": "t"}, {"path": "b.csv"}]},
            "b.csv has no tags_field",
        ),
    ],
)
def test_tags_of_sources_are_alike(settings, said):
    with pytest.raises(ValueError, match=said):
        CorpusSettings(**settings)


def test_cleaning_that_parts_words_is_refused():
    path = loading.DEMO_CONFIG.with_name("tagging.yaml")
    for step in ("normalize=NFKC", "mask_phones=true"):
        with pytest.raises(loading.ConfigError, match="may part words or join them"):
            loading.load(path, [f"cleaning.{step}"])
    loading.load(path, ["cleaning.normalize=NFC", "cleaning.mask_emails=true"])


def test_documents_are_not_sliced_by_the_tags_of_their_words():
    path = loading.DEMO_CONFIG.with_name("tagging.yaml")
    with pytest.raises(loading.ConfigError, match="no feature 'tag' to slice by"):
        loading.load(path, ["gate.slices=[tag]"])


def test_equal_texts_with_other_tags_are_no_duplicates():
    first, second, third = (
        Document(name, "a b", tags=tags)
        for name, tags in (("x", ("O", "B")), ("y", ("O", "O")), ("z", ("O", "B")))
    )
    assert digest(first) == digest(third) != digest(second)
    assert digest(first, frozenset()) == digest(second, frozenset())


def test_pythons_own_functions_have_tags():
    source = '''
def read(self, path, *, size: int = 1):
    """Read it."""
    # a note
    if size < 0:
        raise OSError("not a size", size)
    try:
        return self.stream.read(size), path
    except (os.error, ValueError):
        pass
'''
    [function] = demo_code.functions(source)
    spans: list[list[str]] = []
    for word, tag in zip(*function, strict=True):
        if tag.startswith("B-"):
            spans.append([tag[2:], word])
        elif tag != "O":
            assert tag[2:] == spans[-1][0]
            spans[-1].append(word)
    assert [(kind, " ".join(words)) for kind, *words in spans] == [
        ("PARAMETER", "self"),
        ("PARAMETER", "path"),
        ("PARAMETER", "size"),
        ("COMMENT", "# a note"),
        ("PARAMETER", "size"),
        ("EXCEPTION", "OSError"),
        ("STRING", '"not a size"'),
        ("PARAMETER", "size"),
        ("CALL", "self . stream . read"),
        ("PARAMETER", "size"),
        ("PARAMETER", "path"),
        ("EXCEPTION", "os . error"),
        ("EXCEPTION", "ValueError"),
    ]
    assert "it." not in function.words
