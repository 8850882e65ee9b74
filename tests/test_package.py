"""The wheel holds the package and its data, and runs outside the checkout."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import langzoo
import pytest
from packaging.requirements import Requirement

ROOT = Path(langzoo.__file__).parent
FLOORS = ("cli", "components", "models", "pipelines", "serving")
# Beside the package in the repository's root.
METADATA = ("LICENSE", "README.md", "pyproject.toml", "setup.cfg", "setup.py")


def _package_files(root: Path) -> set[str]:
    """Paths from the root of all that belongs to the package, code and data."""
    files = [*root.glob("__*__.py"), root / "py.typed"]
    for floor in FLOORS:
        files += [file for file in (root / floor).rglob("*") if file.is_file()]
    return {
        str(file.relative_to(root)) for file in files if "__pycache__" not in file.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by setuptools from a copy, so that no build/ is left here."""
    source = tmp_path_factory.mktemp("source")
    for name in (*METADATA, *_package_files(ROOT)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from setuptools import build_meta; build_meta.build_wheel('dist')",
        ],
        cwd=source,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (file,) = (source / "dist").glob("langzoo-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed into it, without its dependencies."""
    target = tmp_path_factory.mktemp("site")
    uv = ROOT / ".tools" / "uv"
    command = [str(uv) if uv.exists() else "uv", "pip", "install", "--quiet"]
    command += ["--offline", "--no-deps", "--python", sys.executable]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    return target


def _run_outside(installed: Path, *command: str) -> str:
    return subprocess.run(
        command,
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": str(installed)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {(ROOT / file).parent for file in _package_files(ROOT)}

    assert not [
        folder
        for folder in folders
        if list(folder.glob("*.py")) and not (folder / "__init__.py").exists()
    ]


def test_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name[-1] != "/"}
    content = {name for name in names if ".dist-info/" not in name}

    assert content == {f"langzoo/{file}" for file in _package_files(ROOT)}


def test_wheel_carries_the_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (licence,) = (n for n in archive.namelist() if n.endswith("licenses/LICENSE"))

    assert "Apache License" in archive.read(licence).decode()


def test_version_is_the_same_everywhere(wheel: Path) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert importlib.metadata.version("langzoo") == langzoo.__version__
    assert wheel.name.split("-")[1] == langzoo.__version__
    assert f"[{langzoo.__version__}]" in changelog


def test_installed_package_is_imported_outside_the_checkout(installed: Path) -> None:
    code = "import langzoo; print(langzoo.__file__)"

    output = _run_outside(installed, sys.executable, "-c", code)

    assert output.strip() == str(installed / "langzoo" / "__init__.py")


def test_installed_command_says_its_version(installed: Path) -> None:
    output = _run_outside(installed, str(installed / "bin" / "langzoo"), "--version")

    assert langzoo.__version__ in output


def test_installed_command_lists_its_commands(installed: Path) -> None:
    output = _run_outside(installed, str(installed / "bin" / "langzoo"), "--help")

    assert "run" in output
    assert "serve" in output


def test_installed_package_finds_its_data(installed: Path) -> None:
    code = (
        "from importlib.resources import files;"
        "print(files('langzoo.pipelines').joinpath('configs', 'demo.yaml').read_text())"
    )

    output = _run_outside(installed, sys.executable, "-c", code)

    assert "corpus:" in output


_NOT_LOCKED = ("gpu", "bench")


def test_lock_holds_every_dependency_that_setup_cfg_names() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    names = {line.split("==")[0] for line in locked.splitlines() if "==" in line}
    required = {
        Requirement(requirement).name.lower()
        for requirement in importlib.metadata.requires("langzoo") or []
        if not any(f'"{extra}"' in requirement for extra in _NOT_LOCKED)
    }

    assert required <= names


def test_lock_names_no_package_index() -> None:
    locked = (ROOT / "requirements.lock").read_text()

    assert "://" not in locked
    assert "--index" not in locked
