"""A family that is not one of ours: the package of the page on how to write one.

`write(folder)` writes it; with the folder on the path, `FAMILY` names it.
"""

from __future__ import annotations

import re
from pathlib import Path

FAMILY = "mypackage.mingru:FAMILY"
"""What a configuration says of it, as `model.family`."""

_PAGE = Path(__file__).parents[1] / "docs" / "own-family.md"
_MODULE = r"^```python\n# (\S+\.py)\n(.*?)^```"


def write(folder: Path) -> Path:
    """Writes the package into a folder, which is to be on the path.

    Returns:
        The folder of the package, `mypackage`.
    """
    page = _PAGE.read_text(encoding="utf-8")
    package = folder / "mypackage"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name, source in re.findall(_MODULE, page, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(source)
    return package
