"""The table of signatures: complete, and told in full."""

from __future__ import annotations

import langzoo  # noqa: F401  (sets the environment, so it comes first)
from langzoo.models.tasks import TASKS
from langzoo.serving.export import contract, signatures


def test_every_task_has_signatures_that_can_be_built() -> None:
    assert TASKS.keys() == signatures.SIGNATURES.keys() == contract.SIGNATURES.keys()
    for task in contract.SIGNATURES.values():
        assert len({signature.name for signature in task}) == len(task)


def test_the_reference_tells_of_every_signature_input_and_output() -> None:
    page = contract.reference()
    for task, promised in contract.SIGNATURES.items():
        _, found, of_task = page.partition(f"## `{task}`\n")
        assert found
        for signature in promised:
            _, _, section = of_task.partition(f"### `{signature.name}`\n")
            section, _, _ = section.partition("\n#")
            assert signature.meaning in section
            for name, tensor in {**signature.inputs, **signature.outputs}.items():
                assert f"| `{name}` | {tensor.dtype} `[b" in section
    assert "| `top_p` | float32 `[b]` | `1.0` | Draw from the fewest" in page
    assert "together; 1: all. From 0 to 1. |" in page
    assert "| `calibration` | float32 `[b, 15, 3]` |" in page
