"""The document: what readers give, cleaning changes and examples are made of."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Document:
    """One document of a corpus, on its way from a source to an example.

    Attributes:
        id: Its name, unique over the corpus and the same in every run: the file's
            path, in an archive with the name of the file in it, followed by `#` and the
            document's number where a file holds many.
        text: Its text, as it is written; never blank.
        fields: Further fields that travel with the text, such as a label or a
            target, by name.
        weight: How often it counts in the training split, next to a document of
            weight 1.
    """

    id: str
    text: str
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    weight: float = 1.0
