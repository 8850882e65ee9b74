"""A family that is not one of ours, in the package of which the pages tell.

`write(folder)` writes it; with the folder on the path, `FAMILY` names it.
"""

from __future__ import annotations

import re
from pathlib import Path

FAMILY = "mypackage.mingru:FAMILY"
"""What a configuration says of it, as `model.family`."""

_PAGES = Path(__file__).parents[1] / "docs"
_MODULE = r"^```python\n# (mypackage/\S+\.py)\n(.*?)^```"


def write(folder: Path) -> Path:
    """Writes the package into a folder, which is to be on the path.

    Returns:
        The folder of the package, `mypackage`.
    """
    package = folder / "mypackage"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for page in sorted(_PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for name, source in re.findall(_MODULE, text, re.MULTILINE | re.DOTALL):
            (folder / name).write_text(source)
    return package
