"""Records: what is written is what is read, here and in an object store."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any, ClassVar

import pytest
from langzoo.components.errors import InputError
from langzoo.components.records import FileRecord, differences


class Findings(FileRecord):
    """A record such as a component's."""

    FILE: ClassVar[str] = "findings.json"

    value: float
    bounds: tuple[float, float] | None = None
    details: dict[str, Any] | None = None


@pytest.fixture(params=["path", "address"])
def folder(request, tmp_path):
    """A folder that is not there yet."""
    if request.param == "path":
        return str(tmp_path / "folder")
    return f"ram://{uuid.uuid4()}/folder"


def test_a_record_is_read_as_it_was_written(folder):
    assert Findings.find(folder) is None
    assert Findings.find(None) is None
    with pytest.raises(FileNotFoundError, match=r"folder/findings\.json"):
        Findings.read(folder)
    found = Findings(value=0.1, bounds=(-math.inf, math.inf), details={"where": "é"})
    found.write(folder)
    assert Findings.read(folder) == found == Findings.find(f"{folder}/")


def test_what_is_no_number_is_a_string_in_the_file():
    text = Findings(value=math.nan, details={"deep": [math.inf]}).dump()
    told = json.loads(text, parse_constant=pytest.fail)
    assert told == {"value": "NaN", "bounds": None, "details": {"deep": ["Infinity"]}}
    assert text.isascii()
    assert math.isnan(Findings.parse(text).value)


def test_what_another_version_has_written_is_read():
    assert math.isnan(Findings.parse('{"value": NaN}').value)
    assert Findings.parse('{"value": 1, "later": 2}') == Findings(value=1)


@pytest.mark.parametrize("text", ["{", "[]", '{"value": "high"}'])
def test_a_file_that_is_broken_is_named_in_a_line(text, tmp_path):
    (tmp_path / Findings.FILE).write_text(text)
    with pytest.raises(InputError) as raised:
        Findings.find(str(tmp_path))
    assert str(raised.value) == f"{tmp_path}/findings.json cannot be read: it is broken"


def test_nested_mappings_differ_by_key():
    ours = {"a": {"b": 1, "c": None, "d": 2}, "e": {"f": 1}}
    theirs = {"a": {"b": 2, "c": 3, "d": 2}, "e": {"f": 1}}
    assert differences(ours, theirs) == [
        "a.b 1 instead of 2",
        "a.c nothing instead of 3",
    ]
    assert differences(ours, ours) == []
