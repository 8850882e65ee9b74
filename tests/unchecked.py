"""Exports for tests that ask what they export; what a check calls is not called twice.

That of every family and tokenizer keeps its checks, test_export.py and the pipelines'
tests show.
"""

from __future__ import annotations

from typing import Any

import pytest
from langzoo.serving.export import checks, saved_model


def export(model: Any, directory: Any, **options: Any) -> None:
    """Exports as `export_causal_lm`, without a call of each signature."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "check_export", checks.check_ops)
        saved_model.export_causal_lm(model, directory, **options)
