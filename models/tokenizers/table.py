"""The tokenizers by their names, each imported when it is first needed.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Any

from ..references import load

TOKENIZERS: dict[str, str] = {
    "bpe": "langzoo.models.tokenizers.sentence_piece:learn",
    "unigram": "langzoo.models.tokenizers.sentence_piece:learn",
    "word_piece": "langzoo.models.tokenizers.word_piece:learn",
    "words": "langzoo.models.tokenizers.words:learn",
    "characters": "langzoo.models.tokenizers.sentence_piece:learn_characters",
    "bytes": "langzoo.models.tokenizers.byte:learn",
    "preset": "langzoo.models.tokenizers.files:learn_preset",
    "file": "langzoo.models.tokenizers.files:learn",
}
"""The types of tokenizers by the name used in configurations, each a function.

From the section `tokenizer` and a `corpus.Corpus` it makes a tokenizer, or raises a
ValueError of one line."""


def restored(folder: str) -> Any:
    """The tokenizer of a preset that one of these has saved."""
    import keras_hub

    register()
    return keras_hub.tokenizers.Tokenizer.from_preset(folder)


def register() -> None:
    """Imports the modules of all types, so that Keras knows their classes."""
    for reference in TOKENIZERS.values():
        load(reference)
