"""A source of a corpus: where text lies and how it is read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

TEXT = "text"
_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_COMPRESSIONS = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".lzma", ".deflate")


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one kind, or a dataset by name.

    Attributes:
        path: A file, a folder (read recursively) or a pattern, on any filesystem that
            Beam knows, or `s3://`; `{SPAN}` and `{VERSION}` in it stand for numbers,
            of which the highest is read. Or a dataset: see `hubs`.
        format: `"text"`, `"jsonl"`, `"csv"`, `"tsv"`, `"parquet"`, or `"auto"`, which
            goes by the ending of a file's name and takes what it does not know for
            text.
        documents: What one document of a text file is: `"file"`, `"paragraph"`
            (separated by blank lines) or `"line"`. In the other formats it is a record.
        text_field: The field or column of a record that holds the text.
        fields: Fields or columns that travel with the text, by the name of the feature
            that they become. Their values become strings.
        weight: How often each document stands in the training split: 2 is twice; 2.5
            is twice, and a half of the documents, chosen by their hash, three times;
            0.1 keeps a tenth of them. The other splits have each document once.
    """

    path: str
    format: str = "auto"
    documents: str = "file"
    text_field: str = "text"
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    weight: float = 1.0

    def format_of(self, path: str) -> str:
        """Returns the format of one of the source's files."""
        if self.format != "auto":
            return self.format
        name = path.lower()
        for ending in _COMPRESSIONS:
            name = name.removesuffix(ending)
        return next((f for end, f in _FORMATS.items() if name.endswith(end)), TEXT)


def to_json(sources: Sequence[Source]) -> str:
    """Writes sources as JSON."""
    return json.dumps([dataclasses.asdict(source) for source in sources])


def from_json(text: str) -> list[Source]:
    """Reads what `to_json` wrote."""
    content: list[dict[str, Any]] = json.loads(text)
    return [Source(**source) for source in content]
