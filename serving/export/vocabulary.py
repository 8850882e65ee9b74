"""What a tokenizer's ids stand for, as constants and functions of a served graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from ...models.tasks.scoring import framed, framed_ids, joined
from ...models.tokenizers.base import SPECIAL_ATTRIBUTES
from ...models.tokenizers.display import display_strings
from .contract import ALTERNATIVES, MAX_ALTERNATIVES
from .stop_strings import NO_CUT

# Of blocks of so many logits the highest is found first, where there are many.
_BLOCK = 64


class Alternatives(NamedTuple):
    """The likeliest tokens at some places, the likeliest first: `[..., k]`."""

    log_probability: tf.Tensor
    ids: tf.Tensor


class Vocabulary:
    """A langzoo tokenizer as an exported graph needs it.

    Args:
        tokenizer: a tokenizer with `tokenize`, `token_bytes`, `vocabulary_size` and
            the ids `pad_token_id`, `unk_token_id`, `start_token_id`, `end_token_id`.
        size: int. The model's number of logits; ids that the tokenizer does not have
            stand for nothing and are never proposed.
        mask_id: int or `None`. The id that stands for hidden tokens, never proposed.

    Attributes:
        proposable: bool `[size]`. The ids that a reader can be shown as the next
            token: all but `<pad>`, `<unk>` and `<s>`.
        most_alternatives: int. How many tokens can be shown as likely at a place.
        special_ids: for padding, unknown, start and end.
        special_tokens: their names in the vocabulary.
    """

    def __init__(self, tokenizer: Any, size: int, mask_id: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.pad_id = int(tokenizer.pad_token_id)
        self.start_id = int(tokenizer.start_token_id)
        self.end_id = int(tokenizer.end_token_id)
        surface = tokenizer.token_bytes()
        display = display_strings(tokenizer)
        unnamed = size - len(surface)
        never = {self.pad_id, self.start_id, int(tokenizer.unk_token_id)}
        never.update(range(len(surface), size))
        never.update(() if mask_id is None else [mask_id])
        never.discard(self.end_id)  # which some models start and pad with, too
        self.proposable = [token not in never for token in range(size)]
        self.most_alternatives = min(MAX_ALTERNATIVES, sum(self.proposable))
        self.special_ids = [
            int(getattr(tokenizer, f"{name}_id")) for name in SPECIAL_ATTRIBUTES
        ]
        names = tokenizer.get_vocabulary()
        self.special_tokens = [names[index] for index in self.special_ids]
        self._size = len(surface)
        self._surface = tf.constant(surface + [b""] * unnamed)
        self._surface_length = tf.constant([*map(len, surface)] + [0] * unnamed)
        self._display = tf.constant(display + [""] * unnamed)
        named = [*surface]
        for index, name in zip(self.special_ids, self.special_tokens, strict=True):
            named[index] = name.encode()
        self._named = tf.constant(named + [b""] * unnamed)
        # Signatures share these graphs, which may hold the tokenizer's whole model.
        spec = tf.TensorSpec([None], tf.string)
        self._documents = tf.function(
            lambda text: framed(tokenizer, text),
            input_signature=[spec],
            autograph=False,
        )
        self._prompts = tf.function(
            self._texts_or_ids, input_signature=[spec, spec], autograph=False
        )

    def sequences(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Ids of `text`, string `[b]`, after `<s>`: int32 `[b, (t + 1)]`."""
        return self.documents(text)[:, :-1]

    def prompts(self, text: tf.Tensor, ids: tf.Tensor) -> tf.RaggedTensor:
        """Where `ids`, string `[b]`, have any, these alone, else `sequences(text)`."""
        return self._prompts(text, ids)

    def _texts_or_ids(self, text: tf.Tensor, ids: tf.Tensor) -> tf.RaggedTensor:
        given = self.written_ids(ids)
        is_given = given.row_lengths() > 0
        text = tf.where(is_given, "", text)
        texts = tf.cast(self.tokenizer.tokenize(text), tf.int32)
        both = joined(texts.with_row_splits_dtype(tf.int64), given)
        kept = both.row_lengths() + tf.cast(~is_given, tf.int64)
        return last_tokens(framed_ids(self.tokenizer, both)[:, :-1], kept)

    def closed(self, prompts: tf.RaggedTensor, ids: tf.Tensor) -> tf.RaggedTensor:
        """`prompts()` of these ids, with `</s>` behind a text."""
        is_text = tf.cast(tf.strings.length(ids) == 0, tf.int64)
        ends = tf.fill([tf.reduce_sum(is_text)], self.end_id)
        ends = tf.RaggedTensor.from_row_lengths(ends, is_text, validate=False)
        return joined(prompts, ends)

    def said(self, prompts: tf.RaggedTensor, ids: tf.Tensor) -> tf.Tensor:
        """How long `prompts()` of these ids are, without `<s>` before a text."""
        is_text = tf.cast(tf.strings.length(ids) == 0, tf.int32)
        return tf.cast(prompts.row_lengths(), tf.int32) - is_text

    def id_documents(self, ids: tf.Tensor) -> tf.RaggedTensor:
        """`ids`, string `[b]`, or `<s>` where there are none, and then `</s>`."""
        given = self.written_ids(ids)
        kept = tf.maximum(given.row_lengths(), 1) + 1
        return last_tokens(framed_ids(self.tokenizer, given), kept)

    def written_ids(self, ids: tf.Tensor) -> tf.RaggedTensor:
        """What is written in decimal, string `[b]`, as ids: int32 `[b, (t)]`.

        White space and what is no digit stands between them; a number that is no id is
        `<unk>`.
        """
        digits = tf.strings.split(tf.strings.regex_replace(ids, "[^0-9]+", " "))
        numbers = tf.strings.to_number(digits.flat_values, tf.float64)
        values = tf.cast(tf.minimum(numbers, self._size), tf.int32)
        unknown = int(self.tokenizer.unk_token_id)
        return digits.with_flat_values(tf.where(values < self._size, values, unknown))

    def named(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """The texts of ids `[b, (t)]`, valid UTF-8, with special tokens' names."""
        pieces = tf.ragged.map_flat_values(lambda i: tf.gather(self._named, i), ids)
        text = tf.strings.reduce_join(pieces, axis=-1)
        return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")

    def documents(self, text: tf.Tensor) -> tf.RaggedTensor:
        """`<s>`, the ids of `text`, string `[b]`, and `</s>`: int32 `[b, (t + 2)]`."""
        return self._documents(text)

    def surface(self, ids: tf.Tensor) -> tf.Tensor:
        """The bytes that ids of any shape stand for; specials stand for nothing."""
        return tf.gather(self._surface, ids)

    def written(
        self, ids: tf.Tensor, room: tf.Tensor, cut: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The texts of new ids up to a cut, and how many tokens they have a part of.

        Args:
            ids: int32 `[..., n]`, each row ended by `</s>`, by padding or by its room.
            room: int32 `[...]`. The most tokens of each row.
            cut: int32 `[...]`. Bytes of the text, or `NO_CUT` for all of them.

        Returns:
            string `[...]`, valid UTF-8 (bytes that are not become U+FFFD), and int32
            `[...]`.
        """
        is_text = tf.range(tf.shape(ids)[-1]) < room[..., tf.newaxis]
        is_text &= (ids != self.end_id) & (ids != self.pad_id)
        sizes = tf.where(is_text, tf.gather(self._surface_length, ids), 0)
        begin = tf.cumsum(sizes, axis=-1, exclusive=True)
        is_whole = cut == NO_CUT
        is_text &= is_whole[..., tf.newaxis] | (begin < cut[..., tf.newaxis])
        pieces = tf.where(is_text, self.surface(ids), "")
        text = tf.strings.reduce_join(pieces, axis=-1)
        size = tf.where(is_whole, tf.strings.length(text), cut)
        text = tf.strings.substr(text, tf.zeros_like(size), size)
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        return text, tf.reduce_sum(tf.cast(is_text, tf.int32), axis=-1)

    def display(self, ids: tf.Tensor) -> tf.Tensor:
        """The display strings (see `display_strings`) of ids of any shape."""
        return tf.gather(self._display, ids)

    def likeliest(
        self, logits: tf.Tensor, count: int | tf.Tensor
    ) -> tuple[Alternatives, tf.Tensor]:
        """The likeliest tokens that may be proposed, among these.

        Args:
            logits: float32 `[b, size]`.
            count: how many, from 1; a tensor is `most_alternatives` at most.

        Returns:
            The tokens with their log-probabilities in nats, and float32 `[b]`: what
            to take from any proposable token's logit to have its log-probability.
        """
        masked = self.mask_unproposable(logits)
        values, ids = _top_k(masked, count)
        highest = values[..., :1]
        total = tf.reduce_sum(tf.exp(masked - highest), axis=-1, keepdims=True)
        normalizer = highest + tf.math.log(total)
        return Alternatives(values - normalizer, ids), normalizer[..., 0]

    def shown(
        self,
        top: Alternatives,
        is_there: tf.Tensor,
        count: int | tf.Tensor = ALTERNATIVES,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Names and log-probabilities `[..., count]` of the likeliest tokens.

        Where `is_there`, bool `[...]`, is false they are "" and 0; a vocabulary of
        fewer tokens is filled up with "" and -inf.
        """
        there = is_there[..., tf.newaxis]
        ids = top.ids[..., :count]
        names = tf.where(there, self.display(ids), "")
        values = tf.where(there, top.log_probability[..., :count], 0.0)
        missing: list[Any] = [[0, 0]] * (ids.shape.rank - 1)
        missing += [[0, count - tf.shape(ids)[-1]]]
        return (
            tf.pad(names, missing, constant_values=""),
            tf.pad(values, missing, constant_values=float("-inf")),
        )

    def mask_unproposable(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits `[..., size]` with the lowest float where nothing may be proposed."""
        return tf.where(self.proposable, logits, logits.dtype.min)


def _top_k(logits: tf.Tensor, count: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`tf.math.top_k` of logits `[b, size]`, faster where a few of many are wanted.

    The `count` blocks with the highest logits hold them all: of equals, blocks and
    logits alike, those of the lowest index come first.
    """
    size = logits.shape[-1]
    blocks = -(-size // _BLOCK)
    if blocks < 2 * (MAX_ALTERNATIVES if tf.is_tensor(count) else count):
        return tf.math.top_k(logits, count)
    filling = [[0, 0], [0, blocks * _BLOCK - size]]
    logits = tf.pad(logits, filling, constant_values=logits.dtype.min)
    logits = tf.reshape(logits, [-1, blocks, _BLOCK])
    _, block = tf.math.top_k(tf.reduce_max(logits, axis=-1), count)
    block = tf.sort(block)
    few = tf.reshape(tf.gather(logits, block, batch_dims=1), [-1, count * _BLOCK])
    values, index = tf.math.top_k(few, count)
    index = tf.gather(block, index // _BLOCK, batch_dims=1) * _BLOCK + index % _BLOCK
    return values, tf.minimum(index, size - 1)  # where logits are not numbers


def asked_alternatives(alternatives: tf.Tensor) -> tf.Tensor:
    """How many of the likeliest tokens a row of int32 `[b]` asks for, int32 scalar."""
    most = tf.reduce_max(tf.concat([alternatives, [0]], axis=0))
    return tf.minimum(most, MAX_ALTERNATIVES)


def last_tokens(sequences: tf.RaggedTensor, count: tf.Tensor) -> tf.RaggedTensor:
    """The last `count` (a scalar, or int64 `[b]`) ids of each row, int32 `[b, (t)]`."""
    lengths = sequences.row_lengths()
    kept = tf.minimum(lengths, tf.cast(count, tf.int64))
    # By hand: ragged slices and ranges are graphs of a hundred ops.
    first = tf.gather(sequences.row_limits() - kept, sequences.value_rowids())
    place = tf.range(tf.size(sequences.flat_values, tf.int64))
    return tf.RaggedTensor.from_row_lengths(
        sequences.flat_values[place >= first], kept, validate=False
    )
