"""The demo corpus holds the running Python's own documentation, written once."""

from __future__ import annotations

import inspect
import json
import json.decoder
import os
import pydoc_data.topics
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import demo_corpus


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {document.name: document.text for document in demo_corpus.documents()}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The corpus of a standard library of two packages, for speed."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    for package in ("json", "pydoc_data"):
        shutil.copytree(stdlib / package, tmp_path / "stdlib" / package)
    monkeypatch.setattr(demo_corpus, "_stdlib", lambda: tmp_path / "stdlib")
    demo_corpus.write(tmp_path / "runs" / "corpus")
    return tmp_path / "runs" / "corpus"


def _content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text(encoding="utf-8")
        for file in folder.rglob("*")
        if file.is_file()
    }


def _run(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()


def test_corpus_is_about_two_megabytes_in_thousands_of_documents(
    texts: dict[str, str],
) -> None:
    # Debian's own Python comes without tkinter, idlelib and distutils.
    assert 5_500 < len(texts) < 10_000
    assert 1_700_000 < sum(len(text.encode()) for text in texts.values()) < 3_000_000


def test_help_topics_are_those_of_pydoc(texts: dict[str, str]) -> None:
    assert texts["topics/assert"] == pydoc_data.topics.topics["assert"].strip()


@pytest.mark.parametrize(
    ("name", "documented"),
    [
        ("json", json),
        ("json.dumps", json.dumps),
        ("json.decoder.JSONDecoder", json.decoder.JSONDecoder),
        ("json.decoder.JSONDecoder.decode", json.decoder.JSONDecoder.decode),
    ],
)
def test_docstrings_are_those_that_inspect_shows(
    texts: dict[str, str], name: str, documented: object
) -> None:
    expected = inspect.getdoc(documented)
    assert expected is not None
    assert texts[name] == expected.strip()


def test_no_text_comes_twice(texts: dict[str, str]) -> None:
    assert len(set(texts.values())) == len(texts)


def test_second_definition_of_a_name_is_a_document_of_its_own(
    texts: dict[str, str],
) -> None:
    # One for POSIX and one for Windows, in the branches of an `if`.
    assert texts["shutil.disk_usage"] != texts["shutil.disk_usage.2"]


def test_very_short_docstrings_are_left_out(texts: dict[str, str]) -> None:
    assert min(map(len, texts.values())) >= 20


def test_tests_of_the_standard_library_are_left_out(texts: dict[str, str]) -> None:
    folders = {part for name in texts for part in name.split(".")[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages"}


def test_documents_come_in_the_same_order_in_every_process(
    texts: dict[str, str],
) -> None:
    names = _run(
        """
        from langzoo.components.text_example_gen import demo_corpus
        print(*(document.name for document in demo_corpus.documents()), sep="\\n")
        """,
        PYTHONHASHSEED="1",
    )
    assert names.splitlines() == list(texts)


def test_nothing_of_the_standard_library_is_executed() -> None:
    # When imported, `this` prints and `antigravity` opens a browser.
    output = _run(
        """
        import sys
        from langzoo.components.text_example_gen import demo_corpus
        names = {document.name for document in demo_corpus.documents()}
        documented = {name.partition(".")[0] for name in names}
        print("antigravity" in documented or "turtle" in documented)
        print({"this", "antigravity", "turtle", "tkinter"} & set(sys.modules))
        """
    )
    assert output.split("\n") == ["True", "set()"]


def test_each_document_is_a_file_named_after_it(
    written: Path, texts: dict[str, str]
) -> None:
    content = _content(written)
    assert len(content) == len(list(demo_corpus.documents()))
    assert content["topics/assert.txt"] == texts["topics/assert"] + "\n"
    assert content["json/json.dumps.txt"] == texts["json.dumps"] + "\n"


def test_writing_again_leaves_the_files_alone(written: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in written.rglob("*")}

    assert demo_corpus.write(written) == len(_content(written))

    assert {file: file.stat().st_mtime_ns for file in written.rglob("*")} == before


def test_damaged_corpus_is_written_anew(written: Path) -> None:
    whole = _content(written)
    (written / "json" / "json.dumps.txt").unlink()
    (written / "stray.txt").write_text("not ours")

    demo_corpus.write(written)

    assert _content(written) == whole


def test_corpus_of_another_interpreter_is_replaced(written: Path) -> None:
    record_file = written.with_name("corpus.json")
    record = json.loads(record_file.read_text())
    record_file.write_text(json.dumps(record | {"python": "3.11.0"}))

    demo_corpus.write(written)

    assert json.loads(record_file.read_text())["python"] == sys.version


def test_nothing_is_left_beside_folder_and_record(written: Path) -> None:
    assert sorted(file.name for file in written.parent.iterdir()) == [
        "corpus",
        "corpus.json",
    ]


def test_python_without_its_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_corpus, "_stdlib", lambda: tmp_path / "nothing")

    with pytest.raises(InputError, match="has no sources"):
        demo_corpus.write(tmp_path / "corpus")

    assert not any(tmp_path.iterdir())


def test_folder_with_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear reader")

    with pytest.raises(InputError, match="holds something else"):
        demo_corpus.write(tmp_path)

    assert _content(tmp_path) == {"letter.txt": "Dear reader"}


def test_a_summary_is_the_first_line_of_a_docstring_and_not_in_the_rest() -> None:
    summaries = dict(demo_corpus.summaries())
    rest = inspect.getdoc(textwrap.dedent)
    assert rest is not None
    line, _, rest = rest.partition("\n\n")
    assert summaries[rest.strip()] == line
    assert len(summaries) > 1000
    for rest, line in summaries.items():
        assert "\n" not in line
        assert line.endswith(".")
        assert len(rest) >= 20


def test_summaries_are_records_of_text_and_summary(tmp_path: Path) -> None:
    folder = demo_corpus.found(demo_corpus.SUMMARIES, tmp_path)
    [file] = Path(folder).iterdir()
    with open(file, encoding="utf-8") as records:
        first = json.loads(next(records))
    assert (first["text"], first["summary"]) == next(demo_corpus.summaries())
