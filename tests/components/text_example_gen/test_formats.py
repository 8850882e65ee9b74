"""Files as what they are: read, left out and counted, or refused in a line."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile

import pytest
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import files, readers
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.records import Summary
from langzoo.components.text_example_gen.settings import SourceSettings
from langzoo.components.text_example_gen.streams import BrokenOffError, UnusableError

TEXTS = ["First.", "Second, über."]
RECORDS = [{"text": text, "data": {"no": n}} for n, text in enumerate(TEXTS)]


def read(path, **options):
    source = SourceSettings(path=str(path), **options)
    return list(readers.read(str(path), source))


def texts_of(path, **options):
    items = read(path, **options)
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "\n".join(json.dumps([record]) for record in RECORDS),
        "\n".join(map(json.dumps, RECORDS)),
        "\n\n".join(json.dumps(record, indent=1) for record in RECORDS),
        f"\ufeff  [\n{',  '.join(map(json.dumps, RECORDS))} ]\n\n",
    ],
)
@pytest.mark.parametrize("ending", [".json", ".JSON.gz", ".jsonl"])
def test_json_is_an_array_or_records_one_after_the_other(tmp_path, content, ending):
    path = tmp_path / f"x{ending}"
    encoded = content.encode()
    path.write_bytes(gzip.compress(encoded) if "gz" in ending else encoded)
    assert texts_of(path) == TEXTS


def test_a_long_array_is_a_stream_of_its_elements(tmp_path):
    path = tmp_path / "x.json"
    records = [
        {"text": f"{n} {'long ' * (n % 50_000)}"} for n in range(0, 200_000, 999)
    ]
    path.write_text(json.dumps(records, indent=1))
    assert texts_of(path) == [record["text"] for record in records]


def test_numbers_of_an_array_are_whole_and_no_records(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[" + ", ".join(["1234567"] * 30_000) + "]")
    assert {item.reason for item in read(path)} == {"no JSON object"}
    assert len(read(path)) == 30_000


@pytest.mark.parametrize("end", ["", '{"te', '{"text": "Sec', ", tru"])
def test_an_array_without_its_end_breaks_off(tmp_path, end):
    path = tmp_path / "x.json"
    path.write_text(f'[{{"text": "First."}}, {end}')
    with pytest.raises(BrokenOffError, match=r"x\.json: .*cut short"):
        read(path)


def test_what_is_no_json_is_said(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"text": "First."}, {text: "Second."}, {"text": "Third"}]')
    with pytest.raises(UnusableError, match=r"not JSON.*double quotes"):
        read(path)


def write_tar(path, contents):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_zip(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


ARCHIVES = {
    ".tar": write_tar,
    ".tar.gz": write_tar,
    ".tgz": write_tar,
    ".zip": write_zip,
}
MEMBERS = {
    "./deep/a.txt": b"First.\n",
    "b.jsonl.gz": gzip.compress(json.dumps(RECORDS[1]).encode()),
    "deep/.hidden": b"x",
    "bad.txt": b"caf\xe9",
    "inner.zip": b"PK\x03\x04",
}


@pytest.mark.parametrize("ending", ARCHIVES)
def test_the_files_of_an_archive_are_read(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    ARCHIVES[ending](path, MEMBERS)
    items = read(path)
    documents = {item.id: item.text for item in items if isinstance(item, Document)}
    assert documents == {
        f"{path}/./deep/a.txt": TEXTS[0],
        f"{path}/b.jsonl.gz#0": TEXTS[1],
    }
    others = [
        tuple(vars(item).values()) for item in items if not isinstance(item, Document)
    ]
    assert sorted(others) == [
        ("bad.txt", "not UTF-8 (byte 3)"),
        ("deep/.hidden", "hidden"),
        ("inner.zip", "an archive in an archive"),
    ]


@pytest.mark.parametrize("ending", ARCHIVES)
def test_an_archive_cut_short_breaks_off(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    noise = os.urandom(50_000).hex().encode()
    ARCHIVES[ending](path, {"a.txt": b"First.", "b.txt": noise})
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(BrokenOffError, match=str(path)):
        read(path)


@pytest.mark.parametrize("ending", [*ARCHIVES, ".txt", ".json", ".csv", ".parquet"])
def test_an_empty_file_holds_nothing(tmp_path, ending):
    (tmp_path / f"x{ending}").write_bytes(b"")
    assert read(tmp_path / f"x{ending}") == []


@pytest.mark.parametrize("ending", ARCHIVES)
def test_what_is_no_archive_is_said(tmp_path, ending):
    for content in (b"Only text.\n" * 100, b"x"):
        (tmp_path / f"x{ending}").write_bytes(content)
        with pytest.raises(UnusableError, match=r"not (tar|zip|gzip)"):
            read(tmp_path / f"x{ending}")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".tsv"])
def test_a_mark_says_how_a_file_is_encoded(tmp_path, encoding, ending):
    path = tmp_path / f"x{ending}"
    contents = {
        ".jsonl": "\n".join(map(json.dumps, RECORDS)),
        ".json": json.dumps(RECORDS),
    }
    table = "text\n" + "\n".join(f'"{text}"' for text in TEXTS)
    content = contents.get(ending, "\n".join(TEXTS) if ending == ".txt" else table)
    path.write_bytes(content.encode(encoding))
    assert texts_of(path, documents="line") == TEXTS


@pytest.mark.parametrize("unit", ["file", "line"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "Hello world".encode("utf-16-le"),
            r"utf-16-le without a mark.*corpus\.encoding",
        ),
        (
            "Привет, мир".encode("utf-16-be"),
            r"utf-16-be without a mark.*corpus\.encoding",
        ),
        (b"%PDF-1.7\nobj", "PDF"),
        (b"\x7fELF\x01\x00text\n\x00\x01", r"binary \(byte 5 is 0\)"),
    ],
)
def test_what_is_no_text_is_refused_whatever_a_document_is(
    tmp_path, content, said, unit
):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(UnusableError, match=said):
        read(path, documents=unit)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "shift_jis"])
@pytest.mark.parametrize("unit", ["file", "line"])
def test_an_encoding_can_be_told(tmp_path, encoding, unit):
    path = tmp_path / "x.txt"
    text = "テスト" if encoding == "shift_jis" else "Café, über."
    path.write_bytes(text.encode(encoding))
    assert texts_of(path, documents=unit, encoding=encoding) == [text]


def test_what_an_encoding_lacks_is_said_by_its_name(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"good\n\x81\n")
    _, broken = read(tmp_path / "x.txt", documents="line", encoding="cp1252")
    assert (broken.place, broken.reason) == ("line 2", "not CP1252")


UNMEANT = {
    ".git/config": "hidden",
    ".git/hooks/sample": "hidden",
    ".DS_Store": "hidden",
    ".ipynb_checkpoints/a.txt": "hidden",
    "..2026_01_01/a.txt": "hidden",
    "a.txt~": "backups",
    "#a.txt#": "backups",
    "a.txt.bak": "backups",
    "b.txt.part": "backups",
    "_SUCCESS": "markers",
    "_delta_log/0.json": "markers",
    "__MACOSX/a.txt": "the system",
    "checkpoint": "checkpoints",
    "notes.ipynb": "notebooks",
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / ".corpora" / "texts"
    for name in (*UNMEANT, "a.txt", "deep/_b.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Text of {name}.")
    return folder


@pytest.mark.parametrize("pattern", ["", "/", "/**", "/**.txt"])
def test_files_that_no_one_means_are_left_out(folder, pattern):
    found = files.find([SourceSettings(path=f"{folder}{pattern}")])
    names = {file.path.removeprefix(f"{folder}/") for file in found.files}
    assert names == {"a.txt", "deep/_b.txt"}
    if "txt" not in pattern:
        told = {
            path.removeprefix(f"{folder}/"): what
            for path, what in found.left_out.items()
        }
        assert told.keys() == {
            path if "/" not in path else path.partition("/")[0] for path in UNMEANT
        }


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (".git", [".git/config", ".git/hooks/sample"]),
        (".DS_Store", [".DS_Store"]),
        ("*.bak", ["a.txt.bak"]),
        (".ipynb*/*", [".ipynb_checkpoints/a.txt"]),
        ("checkpoint", ["checkpoint"]),
    ],
)
def test_what_is_spelled_is_meant(folder, pattern, names):
    found = files.find([SourceSettings(path=f"{folder}/{pattern}")])
    assert [file.path for file in found.files] == [f"{folder}/{name}" for name in names]


def test_nothing_but_what_is_left_out_is_told_so(folder):
    with pytest.raises(InputError, match=r"what does is left out: .*_SUCCESS"):
        files.find([SourceSettings(path=f"{folder}/_S*")])


def test_a_mounted_config_map_has_each_file_once(tmp_path):
    (tmp_path / "..2026_01_01").mkdir()
    (tmp_path / "..2026_01_01" / "a.txt").write_text("Text.")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "a.txt").symlink_to("..data/a.txt")
    found = files.find([SourceSettings(path=str(tmp_path))])
    assert [file.path for file in found.files] == [str(tmp_path / "a.txt")]


@pytest.mark.parametrize("pattern", ["", "/**", "/*/*.txt"])
def test_links_are_followed_and_nothing_is_there_twice(tmp_path, pattern):
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    for path in (corpus / "real" / "a.txt", elsewhere / "b.txt"):
        path.parent.mkdir(parents=True)
        path.write_text("Text.")
    (corpus / "first").symlink_to("real")
    (corpus / "loop").symlink_to(corpus)
    (corpus / "more").symlink_to(elsewhere)
    (corpus / "real" / "again.txt").symlink_to("a.txt")
    (corpus / "real" / "lost.txt").symlink_to("nowhere")
    os.mkfifo(corpus / "real" / "pipe.txt")
    found = files.find([SourceSettings(path=f"{corpus}{pattern}")])
    names = [file.path.removeprefix(f"{corpus}/") for file in found.files]
    assert names == ["more/b.txt", "real/a.txt"]
    told = {
        path.removeprefix(f"{corpus}/real/"): what
        for path, what in found.left_out.items()
    }
    assert told == {
        "again.txt": "other names of files that are read",
        "lost.txt": "pipes, devices and links to nothing",
        "pipe.txt": "pipes, devices and links to nothing",
    }


def test_a_folder_that_must_not_be_listed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("Text.")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed: .*deep"):
        files.find([SourceSettings(path=str(tmp_path))])


def test_what_is_left_out_is_counted_and_told(run_example_gen, tmp_path, caplog):
    caplog.set_level("INFO", "langzoo")
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"Text {number}.")
    (folder / "0.txt~").write_text("Text 0 before.")
    # Names that are not UTF-8.
    (folder / os.fsdecode(b"\xfe.txt")).write_text("Text a.")
    (folder / os.fsdecode(b"\xff.txt")).touch()
    write_tar(folder / "x.tar", {"._a": b"x", ".b": b"x", "a.txt": b"Text a."})
    summary = Summary.read(run_example_gen([SourceSettings(path=str(folder))]).uri)
    assert summary.left_out == {"backups and unfinished files": 1, "hidden": 2}
    assert summary.skipped == {f"{folder}/\\xff.txt": "empty"}
    assert sum(summary.documents.values()) == 32
    told = f"1 backups and unfinished files, 2 hidden ({folder / '0.txt~'})"
    assert f"left out {told}" in caplog.messages


@pytest.mark.parametrize("told", [{"text_field": "body"}, {"fields": {"label": "x"}}])
def test_fields_that_are_told_and_unused_are_an_error(tmp_path, told):
    (tmp_path / "a.txt").write_text("Text.")
    with pytest.raises(
        InputError, match=r"corpus\.text_field, .* is text, by the name of"
    ):
        files.find([SourceSettings(path=str(tmp_path), **told)])
    (tmp_path / "b.jsonl").write_text('{"body": "Text."}')
    files.find([SourceSettings(path=str(tmp_path), **told)])
    with pytest.raises(UnusableError, match="text without fields"):
        read(tmp_path / "a.txt", **told)
