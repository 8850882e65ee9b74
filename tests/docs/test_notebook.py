"""notebooks/zoo.ipynb runs from the first cell to the last and does what it says."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import langzoo
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(langzoo.__file__).parent / "notebooks" / "zoo.ipynb"
MAX_BYTES = 150_000  # so that a diff of its outputs stays bearable

# Takes the place of what the tagged cell sets; 500 steps would take minutes.
PARAMETERS = "epochs, steps_per_epoch, batch_size = 2, 6, 8"
REPORT = """\
import json
print(json.dumps({
    "histories": histories,
    "prompt": "The statement",
    "saved": before,
    "loaded": after,
    "is_new": loaded is not model,
}))
"""


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of the notebook."""
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def executed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after all its cells ran, and a last one that reports."""
    notebook = read()
    (parameters,) = (
        cell
        for cell in code_cells(notebook)
        if "parameters" in cell.metadata.get("tags", [])
    )
    parameters.source += f"\n{PARAMETERS}"
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    with pytest.MonkeyPatch.context() as patch:
        # The user's own settings and start-up files stay out.
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
        ).execute()
    return notebook


@pytest.fixture(scope="module")
def report(executed: Any) -> dict[str, Any]:
    output = code_cells(executed)[-1].outputs[-1]
    return json.loads(output.text)


def test_committed_notebook_is_valid_and_small() -> None:
    nbformat.validate(read())
    assert NOTEBOOK.stat().st_size < MAX_BYTES


def test_committed_outputs_are_of_one_run_without_an_error() -> None:
    cells = code_cells(read())

    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds == {"stream", "display_data"}


@pytest.mark.parametrize("measure", ["loss", "val_loss"])
def test_every_family_learns(report: dict[str, Any], measure: str) -> None:
    assert len(report["histories"]) == 2
    for family, history in report["histories"].items():
        assert history[measure][-1] < history[measure][0], family


def test_loaded_model_generates_what_the_saved_one_did(report: dict[str, Any]) -> None:
    assert report["is_new"]
    assert report["loaded"] == report["saved"]
    assert report["loaded"].startswith(report["prompt"])
    assert len(report["loaded"]) > len(report["prompt"])


def test_curves_are_drawn(executed: Any) -> None:
    pictures = [
        base64.b64decode(output.data["image/png"])
        for cell in code_cells(executed)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]

    assert [picture[1:4] for picture in pictures] == [b"PNG"]


def test_nothing_is_left_in_the_working_folder(executed: Any, folder: Path) -> None:
    assert not list(folder.iterdir())
