"""How words are tagged: what tags say, and the section `tagger` of a configuration.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from ..settings import Section

WITH_PREFIX = "[A-Z]-.*|[BIES]"
"""Tags that say which part of a span a word is, and then of which type it is."""
NO_TYPE = "_"
"""The type of a span whose tags name none."""


class TaggerSettings(Section):
    """How a model with the task `token_classifier` learns tags. The tag of a word is
    read at its last token, which has seen all of it in every family."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of what the last layer reads that a training step sets to zero."""


def span_types(tags: Iterable[str]) -> list[str]:
    """The types of the spans that words with such tags make, in order.

    `B-PER` begins a span of type PER and `I-PER` goes on with it; so do other letters,
    as seqeval has them (E ends one, S is one of a single word). `O` is of no span. A
    tag of another form is a span of a single word, of the type that it is.
    """
    found = set()
    for tag in tags:
        of_span = re.fullmatch(WITH_PREFIX, tag)
        if tag != "O":
            found.add(tag[2:] or NO_TYPE if of_span else tag)
    return sorted(found)
