"""Exports for tests that ask what they export; what a check calls is not called twice.

That of every family and tokenizer keeps its checks, test_export.py and the pipelines'
tests show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langzoo.serving.export import checks, saved_model
from langzoo.serving.export.signatures import Signatures

# What a pipeline asks of a model.
_ASKED = ("evaluate", "serving_default", "score", "generate")


@contextlib.contextmanager
def exports(only: Sequence[str] = ()) -> Iterator[pytest.MonkeyPatch]:
    """Within it exports are made without a call of each signature, or of some only."""
    save = saved_model._save

    def save_some(model: Any, served: Signatures, directory: str) -> None:
        functions = {name: served.functions[name] for name in only or served.functions}
        save(model, served._replace(functions=functions), directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "check_export", checks.check_ops)
        patch.setattr(saved_model, "_save", save_some)
        yield patch


@contextlib.contextmanager
def pipelines() -> Iterator[None]:
    """Within it pipelines export what they ask for themselves, and miss no more."""
    from langzoo.components.evaluator import judging

    with exports(_ASKED) as patch:
        patch.setattr(judging, "missing_signatures", lambda path, task: [])
        yield


def export(
    model: Any, directory: Any, only: Sequence[str] = (), **options: Any
) -> None:
    """Exports as `export_causal_lm`, without a call of each signature, or some only."""
    with exports(only):
        saved_model.export_causal_lm(model, directory, **options)
