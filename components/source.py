"""Fingerprints for the cache keys of components: of source code, and of presets.

TFX's cache ignores source code, so each component carries the hash of the code that it
runs as a parameter; a change there makes its cached results unreachable.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = "langzoo"
_HERE = Path(__file__).resolve().parent.parent
# What is imported by its name: `langzoo.serving.server`, `.backbone:LSTMBackbone`.
_NAMED = re.compile(r"(\.*)(\w+(?:\.\w+)*)(:\w+)?")
_TEXT = re.compile(r"[\w.:-]{1,100}")


def source_hash(*modules: str) -> str:
    """Hashes the source of modules and of all that they import.

    Imports are followed within the packages of the modules, wherever in a file they
    stand, and so are strings that name a module (`"langzoo.serving.server"`, or
    `".backbone:LSTMBackbone"`, relative to the package) or a data file beside it. A
    needless change costs a run; one that is overlooked leaves a stale result.

    Args:
        *modules: Dotted names; what follows the name of a module is left out, as in
            `"langzoo.components.trainer.run.run_fn"` and `"mypackage.mamba:FAMILY"`.

    Returns:
        16 hexadecimal digits.

    Raises:
        ModuleNotFoundError: Where there is no such module.
    """
    roots = {name: _folder_of(name) for name in {_top(module) for module in modules}}
    found: set[Path] = set()
    waiting = [path for name in modules for path in _resolve(roots, name)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            waiting += _imported(roots, path)
    digest = hashlib.sha256()
    names = {path: _name_in(roots, path) for path in found}
    for path in sorted(found, key=names.__getitem__):
        digest.update(names[path].encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _top(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]


def _folder_of(package: str) -> Path:
    """Where a package's name begins: the package itself, or a module of one file."""
    if package == _PACKAGE:
        return _HERE
    sys.path_importer_cache.clear()  # It may be new.
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    folders = spec.submodule_search_locations
    return Path(folders[0] if folders else str(spec.origin))


def _resolve(roots: dict[str, Path], name: str) -> list[Path]:
    """The files that importing a dotted name runs; its last parts may be no module."""
    first, *parts = name.partition(":")[0].split(".")
    path = roots.get(first)
    if path is None:
        return []
    if path.is_file():
        return [path]
    files = []
    for part in parts:
        files.append(path / "__init__.py")
        if (path / f"{part}.py").is_file():
            files.append(path / f"{part}.py")
            break
        if not (path / part).is_dir():
            break
        path = path / part
    else:
        # A package, which `python -m` may run.
        files += [path / "__init__.py", path / "__main__.py"]
    # The folder of a package needs no file.
    return [file for file in files if file.is_file()]


def _imported(roots: dict[str, Path], path: Path) -> Iterator[Path]:
    name = _name_in(roots, path)
    package = name.rpartition(".")[0] if path.name != "__init__.py" else name
    names, texts = _read(path.read_text(encoding="utf-8"))
    for level, module in names:
        parents = package.split(".")[: len(package.split(".")) + 1 - level]
        prefix = ".".join(parents) + "." if level else ""
        yield from _resolve(roots, prefix + module)
    for beside in texts:
        data = path.parent / beside
        if data.is_file() and data.suffix not in ("", ".py"):
            yield data
        elif data.is_dir() and not any(data.glob("**/*.py")):
            yield from (file for file in data.rglob("*") if file.is_file())


def _name_in(roots: dict[str, Path], path: Path) -> str:
    """The dotted name of a file of one of the packages."""
    for name, folder in roots.items():
        if path == folder:
            return name
        if path.is_relative_to(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            dotted = ".".join([name, *(part for part in parts if part != "__init__")])
            return dotted if path.suffix == ".py" else dotted + path.suffix
    raise AssertionError(path)


@functools.cache
def _read(source: str) -> tuple[frozenset[tuple[int, str]], frozenset[str]]:
    """What a file imports, levels above its package and dotted names; its strings.

    Of these only what may name a module or a file.
    """
    names, texts = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            names |= {(node.level, base + alias.name) for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    texts = {text for text in texts if _TEXT.fullmatch(text) and text.strip(".")}
    for text in texts:
        match = _NAMED.fullmatch(text)
        if match and (match[3] or "." in match[2]):
            names.add((len(match[1]), match[2]))
    return frozenset(names), frozenset(texts)


def preset_hash(preset: str) -> str:
    """Hashes name, size and time of change of the files of a local model preset.

    Returns:
        16 hexadecimal digits; "" where `preset` is no folder or file of this machine.
    """
    folder = Path(preset).expanduser()
    if not preset or not folder.exists():
        return ""
    digest = hashlib.sha256()
    files = [folder] if folder.is_file() else folder.rglob("*")
    for file in sorted(file for file in files if file.is_file()):
        stat = file.stat()
        name = file.relative_to(folder)
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
