"""How text becomes tokens: a section of the configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic
from pydantic import Field

from ...models.settings import PathText, Section
from ...models.tokenizers.table import TOKENIZERS

if TYPE_CHECKING:
    Type = str
else:
    Type = Literal[tuple(TOKENIZERS)]

# The special tokens, and the bytes at the start of a word and within it.
_WORD_PIECE_BYTES = 4 + 2 * 256


class TokenizerSettings(Section):
    """How text becomes tokens."""

    type: Type = "bpe"
    """All give back any text exactly, but `words`, which loses words that it does not
    know: spelling them is counted in bits per byte, as uniform bytes, and not in the
    perplexity of a token. `preset` takes the tokenizer of `model.preset` or
    `model.initial_weights`, and `file` that of `path`, instead of learning one."""
    words: Literal["letters", "white_space"] = "letters"
    """What a word of type `words` is: `letters` and digits in a row, or any other
    character; or what stands between `white_space`, with the end of a line as a word of
    its own, as published perplexities of words count: other white space is lost."""
    vocabulary_size: Annotated[int, Field(ge=300, le=1_000_000)] = 8192
    """Tokens at most. With `bpe`, `unigram` and `characters` 256 of them are bytes, and
    with `word_piece` 512, so any text is covered."""
    sample_bytes: Annotated[int, Field(ge=1000)] = 10_000_000
    """Largest sample of the corpus that `bpe` and `unigram` are learned from; words and
    characters are counted in the whole corpus, and `word_piece` learns from counts."""
    seed: int = 0
    """Chooses the sample."""
    path: PathText | None = None
    """For `file`: a SentencePiece model, a `tokenizer.json` of Hugging Face with byte
    pairs of GPT-2's, Llama 2's or Llama 3's kind, Unigram of T5's or WordPiece of
    BERT's, a `vocab.txt` of BERT's, or the folder of a KerasHub preset. What a
    vocabulary lacks is spelled in bits per byte; what one normalizes before it cuts a
    text (case, white space) is not counted, and the run warns of it."""

    @pydantic.model_validator(mode="after")
    def _a_path_goes_with_a_file(self) -> TokenizerSettings:
        if (self.type == "file") != (self.path is not None):
            raise ValueError(
                "tokenizer.path and tokenizer.type file need each other: type is "
                f"{self.type}, path is {self.path}"
            )
        if self.path is not None and not Path(self.path).exists():
            raise ValueError(f"tokenizer.path {self.path!r} does not exist")
        return self

    @pydantic.model_validator(mode="after")
    def _words_are_of_words(self) -> TokenizerSettings:
        if self.words != "letters" and self.type != "words":
            raise ValueError(
                f"tokenizer.words {self.words} is of type words, and type is "
                f"{self.type}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _the_bytes_fit(self) -> TokenizerSettings:
        if self.type == "word_piece" and self.vocabulary_size < _WORD_PIECE_BYTES:
            raise ValueError(
                f"tokenizer.vocabulary_size {self.vocabulary_size} must be at least "
                f"{_WORD_PIECE_BYTES} with type word_piece"
            )
        return self
