"""The corpus that is there without a download: Python's own documentation.

The help topics of `pydoc` and the docstrings of the standard library of the running
interpreter: about 2 MB of English prose in some 8,000 documents.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .demo_code import Function
from .demo_code import functions as tagged_functions

# What stands for it where a path is asked for.
NAME = "demo"
KINDS = "demo-kinds"
"""Likewise for the same documents as records of JSON: `text` and the `kind` of what is
documented."""
CODE = "demo-code"
"""Likewise for functions of the standard library as records of JSON: `words` and
`tags`, see `demo_code`."""
SUMMARIES = "demo-summaries"
"""Likewise for docstrings as records of JSON: their first lines, `summary`, and what is
below these, `text`."""
_FOLDERS = {NAME: "demo-corpus", KINDS: KINDS, CODE: CODE, SUMMARIES: SUMMARIES}
_RECORDS = "documents.jsonl"
# Shorter ones ("See above.") teach a language model nothing.
_MIN_CHARACTERS = 20
# Tests are about the tests, and some are invalid on purpose.
_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages"})
_DOCUMENTED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# To be raised when the same interpreter would give other documents.
_FORMAT = 1


@dataclass(frozen=True)
class Document:
    """A text and what it documents.

    Args:
        name: Such as `topics/assert` or `json.decoder.JSONDecoder.decode`; unique.
        text: At least 20 characters, without indentation or blank lines around it;
            no other document has the same.
        kind: What that is: `topic`, `module`, `class`, `method` or `function`.
    """

    name: str
    text: str
    kind: str


def documents() -> Iterator[Document]:
    """Yields the documents, in the same order every time.

    The sources of the standard library are parsed; nothing is imported or executed.
    """
    names: dict[str, int] = {}
    texts: set[str] = set()
    for name, text, kind in _all_texts():
        text = inspect.cleandoc(text).strip()
        if len(text) < _MIN_CHARACTERS or text in texts:
            continue
        texts.add(text)
        # The branches of an `if` may define one name twice.
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}.{names[name]}"
        yield Document(unique, text, kind)


def summaries() -> Iterator[tuple[str, str]]:
    """Yields docstrings in two parts, no two with the same rest.

    They are those that begin with a line that ends as a sentence does, and a blank one.

    Yields:
        What is below the first line, at least 20 characters, and that line.

    References:
        - [PEP 257](https://peps.python.org/pep-0257/#multi-line-docstrings)
    """
    known: set[str] = set()
    for document in documents():
        summary, _, rest = document.text.partition("\n")
        rest, is_begun = rest.strip(), rest.startswith("\n")
        is_sentence = len(summary) >= _MIN_CHARACTERS and summary.endswith(".")
        if not (is_sentence and is_begun) or len(rest) < _MIN_CHARACTERS:
            continue
        if rest not in known:
            known.add(rest)
            yield rest, summary


def functions() -> Iterator[Function]:
    """Yields functions of the standard library with their tags, each once."""
    known: set[tuple[str, ...]] = set()
    for _, file in _stdlib_modules():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in somebody else's strings
            for function in tagged_functions(file.read_text("utf-8", "replace")):
                if tuple(function.words) not in known:
                    known.add(tuple(function.words))
                    yield function


def found(path: str, parent: Path) -> str:
    """Where a corpus of this name lies: one of these is written, others are paths.

    Args:
        path: What was asked for.
        parent: Folder for what is written.

    Raises:
        InputError: As of `write`.
    """
    if path not in _FOLDERS:
        return path
    folder = Path(parent, _FOLDERS[path]).absolute()
    write(folder, path)
    return str(folder)


def write(path: str | os.PathLike[str], corpus: str = NAME) -> int:
    """Writes each document into a UTF-8 text file, `<path>/<module>/<name>.txt`.

    Corpora of records are one file of JSON Lines in place of them.

    The folder appears whole or not at all. A record beside it, `<path>.json`, says
    which interpreter's documents it holds; where these are there already, nothing is
    written.

    Args:
        path: The folder; its parents are created.
        corpus: The name of the corpus.

    Returns:
        The number of files.

    Raises:
        InputError: Where the folder holds something else, or this Python has no
            sources to take documents from.
    """
    folder = Path(path).absolute()
    record_file = folder.with_name(f"{folder.name}.json")
    record = _read_record(record_file)
    if record == _record(folder):
        return record["documents"]
    if record is None and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds something else than the demo corpus")

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-corpus-", dir=folder.parent) as work:
        new = Path(work, "new")
        _write(corpus, new)
        record = _record(new)
        if not record["documents"]:
            raise InputError(
                f"Python's standard library has no sources in {_stdlib()}: "
                "name a corpus of your own"
            )
        # The record goes first, so that a folder without one is never ours.
        record_new = Path(work, "record")
        record_new.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(record_new, record_file)
        if folder.exists():
            os.rename(folder, Path(work, "old"))
        os.rename(new, folder)
    return record["documents"]


def _all_texts() -> Iterator[tuple[str, str, str]]:
    for name, text in sorted(_topics().items()):
        yield f"topics/{name}", text, "topic"
    for module, file in _stdlib_modules():
        tree = _parse(file)
        docstring = ast.get_docstring(tree, clean=False)
        if docstring:
            yield module, docstring, "module"
        yield from _docstrings(tree, module)


def _topics() -> dict[str, str]:
    """The texts behind Python's `help("topic")`."""
    file = _stdlib() / "pydoc_data" / "topics.py"
    if not file.exists():  # some distributions leave it out
        return {}
    for node in _parse(file).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return ast.literal_eval(node.value)
    return {}


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _stdlib_modules() -> Iterator[tuple[str, Path]]:
    """Yields dotted name and source file of each module, sorted by name."""
    stdlib = _stdlib()
    for top in sorted(sys.stdlib_module_names):
        files = [stdlib / f"{top}.py", *sorted((stdlib / top).rglob("*.py"))]
        for file in files:
            parts = file.relative_to(stdlib).with_suffix("").parts
            if file.is_file() and not _SKIPPED_FOLDERS.intersection(parts):
                yield ".".join(parts).removesuffix(".__init__"), file


def _parse(file: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in somebody else's strings
        return ast.parse(file.read_bytes())


def _docstrings(node: ast.AST, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yields name, docstring and kind of what is defined in a node, at any depth."""
    function = "method" if isinstance(node, ast.ClassDef) else "function"
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, _DOCUMENTED):
            name = f"{prefix}.{child.name}"
            docstring = ast.get_docstring(child, clean=False)
            if docstring:
                is_class = isinstance(child, ast.ClassDef)
                yield name, docstring, "class" if is_class else function
        yield from _docstrings(child, name)


def _write(corpus: str, folder: Path) -> None:
    folder.mkdir()
    if corpus == CODE:
        _write_records((function._asdict() for function in functions()), folder)
    elif corpus == KINDS:
        told = ({"text": it.text, "kind": it.kind} for it in documents())
        _write_records(told, folder)
    elif corpus == SUMMARIES:
        pairs = ({"text": rest, "summary": line} for rest, line in summaries())
        _write_records(pairs, folder)
    else:
        _write_files(documents(), folder)


def _write_files(texts: Iterable[Document], folder: Path) -> None:
    for document in texts:
        group, _, topic = document.name.partition("/")
        group = group.partition(".")[0]
        file = folder / group / f"{topic or document.name}.txt"
        file.parent.mkdir(exist_ok=True)
        # A docstring may hold half of a surrogate pair, which no UTF-8 file can.
        file.write_bytes(document.text.encode("utf-8", errors="replace") + b"\n")


def _write_records(records: Iterable[dict[str, Any]], folder: Path) -> None:
    with open(folder / _RECORDS, "w", encoding="utf-8", errors="replace") as file:
        for record in records:
            file.write(f"{json.dumps(record, ensure_ascii=False)}\n")


def _record(folder: Path) -> dict[str, Any]:
    """Says whose documents a folder should hold, and what it does hold."""
    listing = sorted(
        (str(file.relative_to(folder)), file.stat().st_size)
        for file in folder.rglob("*")
        if file.is_file()
    )
    return {
        "format": _FORMAT,
        "python": sys.version,
        "documents": len(listing),
        "bytes": sum(size for _, size in listing),
        "listing": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
    }


def _read_record(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
