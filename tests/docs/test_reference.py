"""The pages of docs/ that are made from code are those that `make docs` makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import langzoo
import pytest

ROOT = Path(langzoo.__file__).parent
MADE = ("configuration.md", "metrics.md", "records.md", "signatures.md")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages as they are made now."""
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs.py"), str(folder)], check=True
    )
    return folder


def rows(page: str) -> list[list[str]]:
    """The cells of each row of the tables of a page."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.replace(r"\|", "").strip("|").split("|")]
        for line in lines
        if line.startswith("| `")
    ]


def test_all_of_them_are_made(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == set(MADE)


@pytest.mark.parametrize("page", MADE)
def test_page_is_as_it_is_made(page: str, made: Path) -> None:
    committed = (ROOT / "docs" / page).read_text(encoding="utf-8")

    assert committed == (made / page).read_text(encoding="utf-8"), "run `make docs`"


def test_every_key_has_a_meaning() -> None:
    found = rows("configuration.md")

    assert len(found) > 150
    assert [cells[0] for cells in found if not cells[-1]] == []
