"""Beam, which remembers what it finds out again and again of the same objects.

It looks at the methods of each function of a pipeline, and parses its options, dozens
of times, which is half of the time of a pipeline of a few documents.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core, userstate


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def find(one: Any, *others: Any) -> Any:
        found = known.setdefault(one, {})
        if others not in found:
            found[others] = function(one, *others)
        return found[others]

    return find


def _of_methods(signature: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def find(function: Any) -> Any:
        if not isinstance(function, types.MethodType):
            return signature(function)
        if function.__func__ not in known:
            known[function.__func__] = signature(function)
        return known[function.__func__]

    return find


@pytest.fixture(scope="session", autouse=True)
def quick_beam():
    """For tests of a folder whose conftest.py imports this."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name, quicker in (
            (userstate, "get_dofn_specs", _remembered),
            (PipelineOptions, "view_as", _remembered),
            (core, "get_signature", _of_methods),
        ):
            patch.setattr(place, name, quicker(getattr(place, name)))
        yield
