"""What all tokenizers share: tensors in, tensors out; strings in, lists out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras_hub.src.utils.tensor_utils import no_convert_scope

from ..backbone import AnyOf, FamilyBackbone

Tensor = Any
_CONFIG_FILE = "config.json"
SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>")
"""Padding, unknown, start and end of the tokenizers made here; a place is an id."""

MASK_TOKENS = ("[MASK]", "<mask>")
"""What stands for hidden tokens in vocabularies that have it, BERT's or RoBERTa's."""

SPECIAL_ATTRIBUTES = ("pad_token", "unk_token", "start_token", "end_token")
BYTES = [bytes([value]) for value in range(256)]


class TextTokenizer(keras_hub.tokenizers.Tokenizer):
    """What both tokenizers share: tensors in, tensors out; strings in, lists out."""

    backbone_cls = AnyOf(FamilyBackbone, keras_hub.tokenizers.Tokenizer)

    def __init__(self, **kwargs: Any) -> None:
        # KerasHub's pure Python path decodes strictly, so that malformed text raises,
        # and gives lists even for tensors. Both worlds go through the same ops here.
        kwargs["_allow_python_workflow"] = False
        super().__init__(**kwargs)
        # It has nothing to build, and without this no model with it can be quantized.
        self.built = True

    @property
    def mask_token(self) -> str:
        """What stands in a text for a token that is hidden: a piece, or `[MASK]`."""
        named = set(MASK_TOKENS).intersection(self.get_vocabulary())
        return max(named, default=MASK_TOKENS[0])

    @property
    def mask_token_id(self) -> int:
        """The id of a hidden token: that of the piece, or one behind all others.

        So no vocabulary changes by it; a model that fills gaps has an id more.
        """
        pieces = self.get_vocabulary()
        known = self.mask_token in pieces
        return pieces.index(self.mask_token) if known else self.vocabulary_size()

    @property
    def special_token_ids(self) -> list[int]:
        return sorted({getattr(self, f"{name}_id") for name in SPECIAL_ATTRIBUTES})

    def tokenize(self, inputs: Tensor) -> Tensor:
        """Turns text into token ids.

        Args:
            inputs: string tensor of shape `(batch_size,)` or `()`, a string, or a list
                of strings.

        Returns:
            For a batch of strings an int32 RaggedTensor of shape
            `(batch_size, None)`, for one string an int32 tensor of shape `(None,)`.
            Python strings give lists of lists instead of a RaggedTensor.
        """
        with _conversion_of(inputs):
            return self._tokenize_tf(inputs)

    def detokenize(self, inputs: Tensor) -> Tensor:
        """Turns token ids into text; special tokens become nothing.

        Args:
            inputs: int32 tensor or RaggedTensor of shape `(batch_size, length)` or
                `(length,)`, or lists of such shapes.

        Returns:
            A string tensor of shape `(batch_size,)` or `()`; for lists, Python
            strings. Always valid UTF-8: a character whose bytes are not all there
            becomes U+FFFD.
        """
        with _conversion_of(inputs):
            return self._detokenize_tf(inputs)

    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for in a text.

        Joined over the ids of a valid UTF-8 text, they are exactly that text. The
        special tokens stand for `b""`.
        """
        raise NotImplementedError

    def unknown_symbols(self, texts: Tensor) -> Tensor:
        """How many symbols spell what the tokens of texts leave out.

        An unknown piece is one token, whatever bytes it has. Those bytes and an end,
        257 symbols to choose from, make its token and its spelling say what it is; see
        `langzoo.models.tasks.scoring.spelling_nll`.

        Args:
            texts: string tensor of shape `(batch_size,)`.

        Returns:
            An int64 tensor of that shape; zeros where no piece can be unknown.
        """
        return tf.zeros(tf.shape(texts), tf.int64)

    @property
    def normalizes(self) -> bool:
        """Whether white space, signs or letters are changed before a text is cut.

        What is dropped so costs a model nothing: its bits per byte are too low.
        """
        return False

    def save_to_preset(self, preset_dir: str) -> None:
        """Saves the tokenizer, alone or beside a model, for `from_preset()`."""
        super().save_to_preset(preset_dir)
        path = os.path.join(preset_dir, _CONFIG_FILE)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                if "Tokenizer" not in json.load(file).get("registered_name", ""):
                    return
        # `from_preset()` reads the kind of preset from a model's config, and a
        # tokenizer alone has none.
        with open(path, "w", encoding="utf-8") as file:
            json.dump(keras.saving.serialize_keras_object(self), file, indent=4)


class LastingOp:
    """A TF Text tokenizer that outlives `keras.utils.set_random_seed`.

    TF Text's holds its model in a resource that TensorFlow's cache of eager kernels
    owns, and seeding empties that cache. So a graph gets an op of its own, and an
    eager call that finds its resource lost makes it anew.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._eager = make()

    def tokenize(self, inputs: Tensor) -> Tensor:
        return self._call("tokenize", inputs)

    def tokenize_with_offsets(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._call("tokenize_with_offsets", inputs)

    def detokenize(self, inputs: Tensor) -> Tensor:
        return self._call("detokenize", inputs)

    def string_to_id(self, inputs: Tensor) -> Tensor:
        return self._call("string_to_id", inputs)

    def _call(self, method: str, inputs: Tensor) -> Any:
        if not tf.executing_eagerly():
            return getattr(self._make(), method)(inputs)
        try:
            return getattr(self._eager, method)(inputs)
        except tf.errors.NotFoundError:
            self._eager = self._make()
            return getattr(self._eager, method)(inputs)


def bytes_of(texts: Tensor) -> tf.RaggedTensor:
    """The bytes of `texts`, string `(n,)`, as a uint8 RaggedTensor `(n, None)`."""
    values = tf.io.decode_raw(tf.strings.reduce_join(texts), tf.uint8)
    # Transform wants row splits to be int64.
    lengths = tf.cast(tf.strings.length(texts), tf.int64)
    return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)


def text_of(token_bytes: list[bytes], ids: Tensor) -> Tensor:
    """The texts of ids `(..., length)`, given each id's bytes: valid UTF-8 `(...)`."""
    if not isinstance(ids, tf.RaggedTensor):
        ids = tf.convert_to_tensor(ids)
    characters = tf.gather(tf.constant(token_bytes), tf.cast(ids, "int32"))
    texts = tf.strings.reduce_join(characters, axis=-1)
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")


def symbols_of(is_unknown: tf.RaggedTensor, lengths: tf.RaggedTensor) -> Tensor:
    """The bytes of unknown pieces and an end for each, int64 `(n,)`.

    Args:
        is_unknown: bool `(n, None)`, a piece each.
        lengths: integer `(n, None)`. The bytes of the pieces.
    """
    symbols = tf.cast(lengths, tf.int64) + 1
    return tf.reduce_sum(tf.cast(is_unknown, tf.int64) * symbols, axis=1)


def symbols_left_out(tokenizer: TextTokenizer, texts: Tensor) -> Tensor:
    """What `symbols_of` gives, where all but unknown pieces stand for their bytes.

    Args:
        tokenizer: its `token_bytes()`, joined, are a text without its unknown pieces.
        texts: string `(n,)`.
    """
    ids = tokenizer.tokenize(texts)
    lengths = tf.constant([len(piece) for piece in tokenizer.token_bytes()], tf.int64)
    said = tf.reduce_sum(tf.ragged.map_flat_values(tf.gather, lengths, ids), axis=1)
    left_out = tf.cast(tf.strings.length(texts), tf.int64) - said
    unknown = tf.cast(tf.equal(ids, tokenizer.unk_token_id), tf.int64)
    # A malformed byte is read as the three of U+FFFD.
    return tf.maximum(left_out, 0) + tf.reduce_sum(unknown, axis=1)


def _conversion_of(inputs: object) -> contextlib.AbstractContextManager:
    """Keeps tensors tensors; lets KerasHub turn Python values into Python values."""
    if isinstance(inputs, (tf.Tensor, tf.RaggedTensor)):
        return no_convert_scope()
    return contextlib.nullcontext()
