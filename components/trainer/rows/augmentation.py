"""Augmentation: noise on what a model reads in training, not on what it predicts."""

from __future__ import annotations

import keras_hub
import numpy as np
import tensorflow as tf

from ....models.tasks.classifying import ClassifierSettings
from ...errors import InputError
from .settings import AugmentationSettings
from .windows import PADDING, TokenStream

_Batch = tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]


def hidden(
    augmentation: AugmentationSettings, shape: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Draws which places of an array `[b, t]` are hidden.

    Args:
        augmentation: What to hide.
        shape: int32 `[2]`, b and t.
        seed: int64 `[2]`; it decides the draw.

    Returns:
        bool `[b, t]`.
    """
    seeds = tf.random.split(seed, 2)
    alone = tf.random.stateless_uniform(shape, seeds[0]) < augmentation.token_dropout
    # A place is in as many spans as can begin at it or just before it, each with
    # the same probability; of none it is with that of `1 - span_masking`.
    length = augmentation.span_length
    rate = 1 - (1 - augmentation.span_masking) ** (1 / length)
    wider = (shape[0], shape[1] + length - 1)
    begins = tf.random.stateless_uniform(wider, seeds[1]) < rate
    begun = tf.cumsum(tf.cast(begins, tf.int32), axis=1)
    begun = tf.pad(begun, [[0, 0], [1, 0]])
    return alone | (begun[:, length:] > begun[:, :-length])


def augmented(
    batches: tf.data.Dataset,
    stream: TokenStream,
    augmentation: AugmentationSettings,
    *,
    seed: int,
    first_step: int,
) -> tf.data.Dataset:
    """Hides input tokens of batches; which of a step's is decided by seed and step.

    Args:
        batches: Of `stream`, from `first_step` on.
        stream: It knows the special tokens.
        augmentation: What to hide.
        seed: Of the noise.
        first_step: Step of the first batch.

    Raises:
        InputError: If something shall be hidden and the tokenizer has no token for it.
    """
    if not (augmentation.token_dropout or augmentation.span_masking):
        return batches
    if stream.unk_id in (None, stream.start_id, stream.end_id):
        raise InputError(
            "trainer.augmentation needs a tokenizer with an <unk> token of its own: "
            "set token_dropout and span_masking to 0, or take another tokenizer.type"
        )

    # Of an encoder and a decoder, each has tokens.
    sides = [
        name.removesuffix("token_ids")
        for name in batches.element_spec[0]
        if name.endswith("token_ids")
    ]

    def hide(step: tf.Tensor, batch: _Batch) -> _Batch:
        features, targets, weights = batch
        noisy = {}
        for number, side in enumerate(sides):
            ids = features[f"{side}token_ids"]
            draw = tf.stack([tf.constant(seed + number, tf.int64), step])
            places = hidden(augmentation, tf.shape(ids), draw)
            places &= features[f"{side}padding_mask"]
            places &= (ids != stream.start_id) & (ids != stream.end_id)
            by = tf.constant(stream.unk_id, ids.dtype)
            noisy[f"{side}token_ids"] = tf.where(places, by, ids)
        return {**features, **noisy}, targets, weights

    return batches.enumerate(first_step).map(hide).prefetch(tf.data.AUTOTUNE)


def edited(
    batches: tf.data.Dataset,
    stream: TokenStream,
    own: ClassifierSettings,
    *,
    seed: int,
    first_step: int,
) -> tf.data.Dataset:
    """Swaps and leaves out tokens of texts, of which each is a row of its own.

    `<s>` and `</s>` stay. What becomes of a step's batch is decided by seed and step.

    Args:
        batches: Of `stream`, from `first_step` on.
        stream: It knows the special tokens.
        own: How many tokens.
        seed: Of the draw.
        first_step: Step of the first batch.

    References:
        - [Wei and Zou, 2019](https://arxiv.org/abs/1901.11196) (EDA)
    """
    layers = [
        layer(rate)
        for layer, rate in (
            (keras_hub.layers.RandomSwap, own.random_swap),
            (keras_hub.layers.RandomDeletion, own.random_deletion),
        )
        if rate
    ]
    if not layers:
        return batches

    def edit(step: np.int64, ids: np.ndarray, inside: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng((seed, int(step)))
        rows = [row[is_in].tolist() for row, is_in in zip(ids, inside, strict=True)]
        texts = [row[1:-1] for row in rows]
        for layer in layers:
            changed = layer(texts, rng=generator)
            texts = [new or old[:1] for new, old in zip(changed, texts, strict=True)]
        edited_ids = np.full_like(ids, PADDING)
        for into, row, text in zip(edited_ids, rows, texts, strict=True):
            framed = [*row[:1], *text, *row[1:][-1:]]
            into[: len(framed)] = framed
        return edited_ids

    def change(step: tf.Tensor, batch: _Batch) -> _Batch:
        features, targets, weights = batch
        ids, inside = features["token_ids"], features["padding_mask"]
        new = tf.numpy_function(edit, [step, ids, inside], ids.dtype, stateful=False)
        new = tf.ensure_shape(new, ids.shape)
        there = new != PADDING
        new = tf.where(there, new, stream.pad_id)
        return {"token_ids": new, "padding_mask": there}, targets, weights

    return batches.enumerate(first_step).map(change).prefetch(tf.data.AUTOTUNE)
