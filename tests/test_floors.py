"""Imports go only downwards: cli > pipelines > components > serving > models."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import langzoo
import pytest

ROOT = Path(langzoo.__file__).parent

# From the bottom; a floor may import from itself and from those before it.
FLOORS = ("models", "serving", "components", "pipelines", "cli", "__main__")
PIPELINE_LIBRARIES = frozenset(
    {
        "apache_beam",
        "kfp",
        "ml_metadata",
        "tensorflow_data_validation",
        "tensorflow_model_analysis",
        "tensorflow_transform",
        "tfx",
        "tfx_bsl",
    }
)
SERVER_LIBRARIES = frozenset({"grpc", "starlette", "tensorflow_serving", "uvicorn"})
FOREIGN = {
    "models": PIPELINE_LIBRARIES | SERVER_LIBRARIES,
    "serving": PIPELINE_LIBRARIES,
}


def imported_modules(source: str, package: str) -> set[str]:
    """Dotted names of what a source file imports, wherever in the file it does.

    Args:
        source: The text of the file.
        package: The package it is in, from which relative imports count.
    """
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(parents if node.level else []), *_parts(node.module)])
            # `from .. import serving` imports a module as `from ..serving import x`
            # does, so the names count as well; too many of them do no harm.
            modules.update(f"{base}.{alias.name}" for alias in node.names)
    return modules


def _parts(module: str | None) -> list[str]:
    return [module] if module else []


def _files(floor: str) -> Iterator[tuple[Path, str]]:
    """Yields each source file of a floor and the package it is in."""
    single = ROOT / f"{floor}.py"
    files = [single] if single.exists() else sorted((ROOT / floor).rglob("*.py"))
    for file in files:
        yield file, ".".join(["langzoo", *file.relative_to(ROOT).parent.parts])


def _violations(floor: str, allowed: Callable[[str], bool]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {module}"
        for file, package in _files(floor)
        for module in sorted(imported_modules(file.read_text(), package))
        if not allowed(module)
    ]


@pytest.mark.parametrize(
    ("statement", "module"),
    [
        ("import langzoo.serving.errors", "langzoo.serving.errors"),
        ("from langzoo import serving", "langzoo.serving"),
        ("from langzoo.serving import export", "langzoo.serving.export"),
        ("from . import transform", "langzoo.components.trainer.transform"),
        ("from .. import types", "langzoo.components.types"),
        ("from ..types import Tokenizer", "langzoo.components.types.Tokenizer"),
        ("from ... import pipelines", "langzoo.pipelines"),
        ("from ...pipelines import config", "langzoo.pipelines.config"),
        ("def f():\n    import tfx.proto", "tfx.proto"),
        ("if TYPE_CHECKING:\n    from tfx import types", "tfx.types"),
    ],
)
def test_import_statement_is_resolved(statement: str, module: str) -> None:
    assert imported_modules(statement, "langzoo.components.trainer") == {module}


def test_every_module_stands_on_a_floor() -> None:
    tops = {file.stem for file in ROOT.glob("*.py")} - {"setup"}
    tops |= {folder.parent.name for folder in ROOT.glob("*/__init__.py")}
    assert tops == {*FLOORS, "__init__"}


@pytest.mark.parametrize("floor", FLOORS)
def test_floor_imports_only_from_itself_and_below(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]

    def allowed(module: str) -> bool:
        return not any(f"{module}.".startswith(f"langzoo.{name}.") for name in above)

    assert not _violations(floor, allowed)


@pytest.mark.parametrize("floor", FOREIGN)
def test_floor_knows_no_library_of_the_floors_above(floor: str) -> None:
    assert not _violations(
        floor, lambda module: module.partition(".")[0] not in FOREIGN[floor]
    )


LIGHT = ("settings", "records", "family", "contract", "task", "recipe")
HEAVY = frozenset({"tensorflow", "keras", "tfx", "apache_beam", "ml_metadata"})


def test_light_modules_load_no_heavy_library() -> None:
    modules = [
        f"{package}.{file.stem}" for floor in FLOORS for file, package in _files(floor)
    ]
    light = [
        name
        for name in modules
        if name.rpartition(".")[2] in LIGHT or ".configuration." in name
    ]
    assert len(light) > 20
    assert not _loaded("\n".join(f"import {name}" for name in light)) & HEAVY


NETWORK = ("server", "client", "gateway")


@pytest.mark.parametrize("room", NETWORK)
def test_the_network_knows_of_exports_what_the_contract_says(room: str) -> None:
    def allowed(module: str) -> bool:
        return not f"{module}.".startswith(
            ("langzoo.models.", "langzoo.serving.export.", "langzoo.serving.in_process")
        ) or f"{module}.".startswith("langzoo.serving.export.contract.")

    assert not _violations(f"serving/{room}", allowed)


def test_the_served_graph_knows_no_network() -> None:
    def allowed(module: str) -> bool:
        return not module.startswith("langzoo.serving.") or module.startswith(
            "langzoo.serving.export."
        )

    assert not _violations("serving/export", allowed)


def test_rooms_of_the_network_import_in_one_direction() -> None:
    for room, others in {
        "client": ("server", "gateway"),
        "server": NETWORK[1:],
    }.items():
        above = tuple(f"langzoo.serving.{other}." for other in others)
        assert not _violations(
            f"serving/{room}", lambda module, above=above: not module.startswith(above)
        )


def test_package_itself_imports_none_of_its_floors() -> None:
    modules = imported_modules((ROOT / "__init__.py").read_text(), "langzoo")
    assert not [module for module in modules if module.startswith("langzoo")]


# Without a collection of garbage imports take half of their time.
LOADS = "import gc, sys; gc.disable()"


def _loaded(code: str) -> set[str]:
    """Names of the modules that are loaded after running a piece of code."""
    output = subprocess.run(
        [sys.executable, "-c", f"{LOADS}\n{code}\nprint(*sys.modules)"],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return set(output.splitlines()[-1].split())


def test_importing_the_package_loads_no_heavy_library() -> None:
    assert not _loaded("import langzoo") & {"tensorflow", "keras", "numpy", "tfx"}


def test_who_asks_a_model_loads_neither_tensorflow_nor_models() -> None:
    loaded = _loaded("import langzoo.serving.client, langzoo.serving.gateway.command")
    assert not loaded & {"tensorflow", "keras", "numpy", "langzoo.models"}


def test_a_model_is_served_without_the_code_that_made_it() -> None:
    loaded = _loaded("import langzoo.serving.server.app, langzoo.serving.in_process")
    assert "langzoo.models" not in loaded


def test_the_contract_takes_nothing_but_python() -> None:
    before = _loaded("import langzoo, typing, dataclasses, collections.abc")
    loaded = _loaded("import langzoo.serving.export.contract") - before
    assert loaded == {
        f"langzoo.serving{name}" for name in ("", ".export", ".export.contract")
    }


@pytest.mark.parametrize("floor", ["models", "serving"])
def test_importing_all_of_a_floor_loads_nothing_above_it(floor: str) -> None:
    modules = [
        ".".join([package, file.stem]).removesuffix(".__init__")
        for file, package in _files(floor)
        if file.stem != "__main__"
    ]
    above = {f"langzoo.{name}" for name in FLOORS[FLOORS.index(floor) + 1 :]}

    loaded = _loaded("\n".join(f"import {module}" for module in modules))

    assert not loaded & (above | PIPELINE_LIBRARIES)


def _cpu_seconds(*command: str) -> float:
    """The least of three runs; wall time would depend on what else runs."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def once() -> float:
        before = spent()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return spent() - before

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import langzoo"), ("-m", "langzoo", "--help")],
    ids=["import", "help"],
)
def test_answers_in_under_a_second(arguments: tuple[str, ...]) -> None:
    assert _cpu_seconds(sys.executable, *arguments) < 1.0
