"""The fingerprint of source code that stands in components' parameters."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import langzoo

CODE = "from langzoo.components.source import source_hash; print(source_hash('models'))"


def hash_of(checkout):
    # A checkout is the package itself, so its parent is where it is imported from.
    ended = subprocess.run(
        [sys.executable, "-S", "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        cwd=checkout.parent,
    )
    return ended.stdout


def test_an_edit_changes_the_fingerprint_and_undoing_it_brings_it_back(tmp_path):
    package = Path(langzoo.__file__).parent
    checkout = tmp_path / "langzoo"
    for part in ("models", "components"):
        shutil.copytree(package / part, checkout / part)
    shutil.copy(package / "__init__.py", checkout)
    before = hash_of(checkout)
    file = checkout / "models" / "transformer.py"
    original = file.read_text()
    file.write_text(original + "\n# An edit.\n")
    assert hash_of(checkout) != before
    file.write_text(original)
    assert hash_of(checkout) == before
