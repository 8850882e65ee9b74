"""The house is one that can be read: no circles of imports, no long functions."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import langzoo
from langzoo.components.evaluator.measures.tables import TASK_MEASURES
from langzoo.components.trainer.rows import ROWS
from langzoo.models.tasks import TASKS
from langzoo.serving.export import contract

ROOT = Path(langzoo.__file__).parent
FLOORS = ("models", "serving", "components", "pipelines", "cli")
MOST_LINES = 60

FILES = {
    path.relative_to(ROOT).with_suffix("").parts: path
    for floor in FLOORS
    for path in sorted((ROOT / floor).rglob("*.py"))
}
"""Each module by the parts of its name; a package's own is its `__init__`."""


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imported(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The modules of this package that a module imports, wherever in its file."""
    for node in nodes(FILES[parts]):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = (*parts[: -node.level], *(node.module or "").split("."))
        base = tuple(part for part in base if part)
        for alias in node.names:
            candidates = ((*base, alias.name), (*base, alias.name, "__init__"))
            known = [name for name in candidates if name in FILES]
            named = base if base in FILES else (*base, "__init__")
            target = known[0] if known else named
            if target in FILES:
                yield target


def circle(edges: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    edges = {
        ".".join(parts): {".".join(other) for other in imported(parts)}
        for parts in FILES
    }
    assert not circle(edges)


def test_no_rooms_of_a_folder_import_each_other_in_a_circle():
    """A room is a file or a folder, with all that is in it."""
    rooms: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(
        lambda: defaultdict(set)
    )
    for parts in FILES:
        for other in imported(parts):
            shared = 0
            while parts[shared] == other[shared] and shared < len(parts) - 1:
                shared += 1
            if parts[shared] != other[shared]:
                rooms[parts[:shared]][parts[shared]].add(other[shared])
    found = {"/".join(folder): circle(edges) for folder, edges in rooms.items()}
    assert not {folder: names for folder, names in found.items() if names}


def test_every_floor_answers_the_same_tasks():
    tables = (ROWS, TASK_MEASURES, contract.SIGNATURES)
    assert [table.keys() for table in tables] == [TASKS.keys()] * len(tables)


def test_every_function_fits_on_a_screen():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{'/'.join(parts)}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for parts, path in FILES.items()
        for node in nodes(path)
        if isinstance(node, functions)
        and node.end_lineno - node.lineno + 1 > MOST_LINES
    ]
    assert not long


def test_python_is_started_without_the_working_directory_in_front():
    started = [
        (path.name, line.strip())
        for path in FILES.values()
        for line in path.read_text().splitlines()
        if '"-m",' in line and "by_module" not in line
    ]
    assert started
    assert [one for one in started if '"-P", "-m"' not in one[1]] == []
