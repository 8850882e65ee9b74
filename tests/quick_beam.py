"""Beam, which finds out again and again what does not change within tests.

It looks at the methods of each function of a pipeline, at its source and at the
pipeline's options dozens of times, which is half of the time of a pipeline of a few
documents; and it weighs each side input that it keeps, with all of Python's modules.
"""

from __future__ import annotations

import contextlib
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker import statecache
from apache_beam.transforms import core, userstate


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def find(one: Any, *others: Any) -> Any:
        found = known.setdefault(one, {})
        if others not in found:
            found[others] = function(one, *others)
        return found[others]

    return find


def _of_class(specs: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """State and timers, which only functions with a class of their own have here."""
    known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def find(function: Any) -> Any:
        if type(function) not in known:
            known[type(function)] = specs(function)
        return known[type(function)]

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


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Within it Beam finds it out once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statecache, "get_deep_size", sys.getsizeof)
        # Only a warning comes of it.
        patch.setattr(core, "_check_fn_use_yield_and_return", lambda function: False)
        for place, name, quicker in (
            (userstate, "get_dofn_specs", _of_class),
            (PipelineOptions, "view_as", _remembered),
            (core, "get_signature", _of_methods),
        ):
            patch.setattr(place, name, quicker(getattr(place, name)))
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_beam():
    """For tests of a folder whose conftest.py imports this."""
    with remembering():
        yield
