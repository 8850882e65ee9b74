"""scripts/setup.sh says in one line what is missing, and does nothing twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import langzoo
import pytest

ROOT = Path(langzoo.__file__).parent
LOCKED = ("requirements.lock", "setup.cfg", "pyproject.toml")
# What the script runs before it fetches anything; no Python and no apt among them.
TOOLS = ("bash", "cat", "cut", "dirname", "head", "sed", "sha256sum", "sort", "uname")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that set-up reads, elsewhere."""
    folder = tmp_path / "my clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("scripts/setup.sh", *LOCKED):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with TOOLS only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return folder


def _command(path: Path, name: str, script: str) -> Path:
    file = path / name
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/bash\n{script}\n")
    file.chmod(0o755)
    return file


def _set_up(
    checkout: Path, path: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "scripts/setup.sh"],
        cwd=checkout,
        env={"PATH": str(path), "HOME": str(checkout), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode != 0
    lines = (result.stdout + result.stderr).splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]


def test_other_processor_is_refused(checkout: Path, path: Path) -> None:
    _command(path, "uname", '[ "$1" = -m ] && echo aarch64 || echo Linux')

    _assert_one_line(_set_up(checkout, path), "x86-64", "aarch64")


def test_missing_python_is_named(checkout: Path, path: Path) -> None:
    _assert_one_line(_set_up(checkout, path), "Python 3.11", "PYTHON=")


def test_other_version_of_python_is_refused(checkout: Path, path: Path) -> None:
    python = _command(path, "python3.11", "exit 1")

    result = _set_up(checkout, path, PYTHON=str(python))

    _assert_one_line(result, "Python 3.11", f"PYTHON={python}")


def test_old_glibc_without_apt_is_refused(checkout: Path, path: Path) -> None:
    # Answers the two questions of the script as a Python on Debian 12 would.
    _command(
        path, "python3.11", 'case "$*" in *LIBC*) echo 2.36 ;; *) echo "$0" ;; esac'
    )

    _assert_one_line(_set_up(checkout, path), "glibc 2.38", "2.36", "apt")


def test_system_without_glibc_is_refused(checkout: Path, path: Path) -> None:
    _command(path, "python3.11", 'case "$*" in *LIBC*) exit 1 ;; *) echo "$0" ;; esac')

    _assert_one_line(_set_up(checkout, path), "glibc")


@pytest.mark.parametrize("folder", [".venv", ".tools"])
def test_refusal_leaves_nothing_behind(checkout: Path, path: Path, folder: str) -> None:
    _set_up(checkout, path)

    assert not (checkout / folder).exists()


@pytest.fixture
def ready(checkout: Path) -> Path:
    """A checkout whose .venv is up to date: the stamp says so and its Python runs."""

    def digest(*names: str) -> str:
        content = b"".join((checkout / name).read_bytes() for name in names)
        return hashlib.sha256(content).hexdigest()

    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (checkout / ".venv" / ".stamp").write_text(
        f"{checkout.resolve()} {digest('scripts/setup.sh')}\n{digest(*LOCKED)}\n"
    )
    return checkout


def test_environment_that_is_up_to_date_is_left_alone(ready: Path, path: Path) -> None:
    result = _set_up(ready, path)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["scripts/setup.sh", *LOCKED])
def test_changed_file_makes_set_up_run_again(
    ready: Path, path: Path, name: str
) -> None:
    with (ready / name).open("a") as file:
        file.write("\n# changed\n")

    _assert_one_line(_set_up(ready, path), "Python 3.11")


def test_moved_checkout_is_set_up_again(ready: Path, path: Path) -> None:
    moved = ready.rename(ready.with_name("moved"))

    _assert_one_line(_set_up(moved, path), "Python 3.11")


def test_environment_without_its_python_is_set_up_again(
    ready: Path, path: Path
) -> None:
    python = ready / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")

    _assert_one_line(_set_up(ready, path), "Python 3.11")


def test_make_without_a_target_changes_nothing(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)

    result = subprocess.run(
        ["make"], cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )

    assert "make demo" in result.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["Makefile"]
