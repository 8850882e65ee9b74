"""Single values that leave a Beam pipeline through a file."""

from __future__ import annotations

import json
from typing import Any

import apache_beam as beam
from tfx.dsl.io import fileio


def write_one(path: str) -> beam.PTransform:
    """Writes the one line of a collection to a file of exactly this name."""
    return beam.io.WriteToText(path, num_shards=1, shard_name_template="")


def read_json(path: str) -> Any:
    """Reads what `write_one` wrote of a line of JSON."""
    with fileio.open(path, "r") as file:
        return json.load(file)
