"""The rows of masked language models: windows of which some tokens are hidden."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from ....models.tasks import hiding
from ....models.tasks.hiding import Hidden
from ....models.tokenizers.base import TextTokenizer
from .packing import make_windows
from .settings import MaskingSettings
from .windows import TokenStream

_Batch = tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]


def read_windows(
    path: str,
    context_length: int,
    packing: str,
    tokenizer: TextTokenizer,
    own: MaskingSettings,
) -> TokenStream:
    """The windows of `masked_lm`, see `Rows.read`."""
    return MaskedWindows(path, context_length, packing, tokenizer, own)


def nats(loss: float, texts: Any) -> float:
    """What the gate makes of a mean loss of its own targets, see `Rows.figure`."""
    del texts
    return loss


class MaskedWindows(TokenStream):
    """Windows of a stream in any packing, with targets where tokens are hidden.

    A window has the inputs of one of a causal model, and the last target. What is
    hidden in a step of training is decided by seed and step; in an evaluation by a hash
    of the window, so that it is the same in any batch.

    Args:
        path: File that `write` has written.
        context_length: Tokens that a row has room for.
        packing: As of `make_windows`.
        tokenizer: What made the tokens.
        masking: What training hides.
    """

    def __init__(
        self,
        path: str,
        context_length: int,
        packing: str,
        tokenizer: TextTokenizer,
        masking: MaskingSettings,
    ) -> None:
        super().__init__(path, context_length)
        self._windows = make_windows(path, context_length - 1, packing)
        self._masking = masking
        self._mask_id = tokenizer.mask_token_id
        self._is_ordinary = hiding.ordinary(tokenizer)
        self._ordinary = [i for i, is_one in enumerate(self._is_ordinary) if is_one]
        surface = [*tokenizer.token_bytes(), b""]
        self._begins_word = [token[:1].isspace() for token in surface]
        self._ends_word = [token[-1:].isspace() for token in surface]

    def training_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        first_step: int,
        last_step: int,
        **options: Any,
    ) -> tf.data.Dataset:
        """As of `TokenStream`, with inputs `mask_positions`, int32 `[b, m]`.

        Targets and weights are `[b, m]`.
        """
        batches = self._windows.training_batches(
            batch_size, seed=seed, first_step=first_step, last_step=last_step, **options
        )
        hide = functools.partial(self._hide_by_chance, tf.constant(seed, tf.int64))
        return batches.enumerate(first_step).map(hide).prefetch(tf.data.AUTOTUNE)

    def evaluation_batches(
        self, batch_size: int, most: int | None = None
    ) -> tf.data.Dataset:
        batches = self._windows.evaluation_batches(batch_size, most)
        return batches.map(self._hide_by_hash).prefetch(tf.data.AUTOTUNE)

    def __len__(self) -> int:
        return len(self._windows)

    def steps_an_epoch(self, batch_size: int) -> int:
        return self._windows.steps_an_epoch(batch_size)

    def targets_a_step(self, batch_size: int) -> float:
        """Places for tokens that are read, hidden or not."""
        return self._windows.targets_a_step(batch_size)

    def _hide_by_chance(
        self, seed: tf.Tensor, step: tf.Tensor, batch: _Batch
    ) -> _Batch:
        ids, inside, is_ordinary = self._read_whole(batch)
        seeds = tf.random.split(tf.stack([seed, step]), 4)
        rows, length = tf.unstack(tf.shape(ids))
        numbers = tf.random.stateless_uniform([rows, length + 1], seeds[0])
        if self._masking.units == "tokens":
            units, numbers = None, numbers[:, :-1]
        else:
            begins = tf.cast(self._begins_units(ids, seeds[1]), tf.int32)
            units = tf.cumsum(begins, axis=1)
            numbers = tf.gather(numbers, units, batch_dims=1)
        hidden = hiding.fewest(numbers, is_ordinary, self._masking.share, units)
        by = self._replacement(ids, hidden, seeds[2:])
        return self._batch(ids, inside, hidden, by)

    def _hide_by_hash(self, *batch: Any) -> _Batch:
        ids, inside, _ = self._read_whole(batch)
        names = tf.strings.reduce_join(tf.strings.as_string(ids), axis=1, separator=" ")
        rows = tf.RaggedTensor.from_tensor(ids)
        hidden = hiding.of_evaluation(rows, names, self._is_ordinary)
        return self._batch(ids, inside, hidden, self._mask_id)

    def _read_whole(self, batch: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Ids, whether they are there, and whether they may be hidden, all `[b, t]`."""
        features, targets, weights = batch
        inputs, there = features["token_ids"], features["padding_mask"]
        # A target without a weight is `<s>`, or padding.
        begins = (targets == self.start_id) & (inputs == self.end_id)
        is_target = (weights > 0) | (begins & there)
        ids = tf.concat([inputs[:, :1], targets], axis=1)
        inside = tf.concat([there[:, :1], is_target], axis=1)
        return ids, inside, tf.gather(self._is_ordinary, ids) & inside

    def _begins_units(self, ids: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Where a word or a span begins, bool `[b, t]`."""
        if self._masking.units == "spans":
            drawn = tf.random.stateless_uniform(tf.shape(ids), seed)
            return drawn < 1 / self._masking.span_length
        before = tf.pad(ids[:, :-1], [[0, 0], [1, 0]], constant_values=self.start_id)
        begins = tf.gather(self._begins_word, ids) | ~tf.gather(self._is_ordinary, ids)
        ends = tf.gather(self._ends_word, before)
        return begins | ends | ~tf.gather(self._is_ordinary, before)

    def _replacement(
        self, ids: tf.Tensor, hidden: Hidden, seeds: tf.Tensor
    ) -> tf.Tensor:
        """What stands in the place of hidden tokens, int32 `[b, m]`."""
        shape = tf.shape(hidden.positions)
        others = tf.random.stateless_uniform(
            shape, seeds[0], maxval=len(self._ordinary), dtype=tf.int32
        )
        drawn = tf.random.stateless_uniform(shape, seeds[1])
        masked, random = self._masking.mask_share, self._masking.random_share
        own = tf.gather(ids, hidden.positions, batch_dims=1)
        stays = tf.where(
            drawn < masked + random, tf.gather(self._ordinary, others), own
        )
        return tf.where(drawn < masked, self._mask_id, stays)

    def _batch(
        self, ids: tf.Tensor, inside: tf.Tensor, hidden: Hidden, by: Any
    ) -> _Batch:
        features = {
            "token_ids": hiding.replaced(ids, hidden, by),
            "padding_mask": inside,
            "mask_positions": hidden.positions,
        }
        targets = tf.gather(ids, hidden.positions, batch_dims=1)
        return features, targets, tf.cast(hidden.is_there, tf.float32)
