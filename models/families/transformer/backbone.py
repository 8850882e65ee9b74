"""The Transformer decoder.

In shapes: B rows, T positions, E `hidden_dim`; K heads of keys and values of width D.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ...backbone import (
    Cache,
    Tensor,
    prompt_of,
)
from .attention import CachedTables, CausalMask, Filled, Place, Rotation
from .block import DecoderBlock
from .family import TRANSFORMER, TransformerSettings
from .stack import TransformerStack


@keras.saving.register_keras_serializable(package="langzoo")
class TransformerBackbone(TransformerStack):
    """A Transformer decoder, by default in today's small recipe.

    The defaults are RMSNorm, rotary positions, SwiGLU, no biases and tied embeddings;
    `family.ARCHITECTURES` holds the options that make it GPT-2 or Llama. Weights are
    drawn from a normal distribution; those that write into the residual stream are
    drawn smaller by `sqrt(2 num_layers)`, as in GPT-2.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `TransformerSettings`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, hidden_dim)`.

    Example:
    ```python
    backbone = TransformerBackbone(vocabulary_size=260, num_layers=2)
    hidden_states = backbone(
        {
            "token_ids": np.ones((1, 12), "int32"),
            "padding_mask": np.ones((1, 12), "bool"),
        }
    )
    ```

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - GPT-2: [Radford et al., 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)
        - Llama: [Touvron et al., 2023](https://arxiv.org/abs/2302.13971)
        - RMSNorm: [Zhang and Sennrich, 2019](https://arxiv.org/abs/1910.07467)
    """

    family = TRANSFORMER

    def make_layers(self, settings: TransformerSettings, dtype: Any) -> None:
        super().make_layers(settings, dtype)
        self.causal_mask = CausalMask(
            self.max_sequence_length, dtype=dtype, name="causal_mask"
        )

    def run_layers(self, token_ids: Tensor) -> Tensor:
        x = self.embeddings_dropout(self._embed(token_ids))  # (B, T, E)
        mask, rotation = self._tables(x)  # (T, T), two of (T, D / 2)

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            return block(x, mask, rotation, added)

        return self._through_blocks(token_ids, x, run)  # (B, T, E)

    def _tables(self, x: Tensor) -> tuple[Tensor, Rotation | None]:
        """Mask and rotation of a whole sequence, once for all blocks."""
        return self.causal_mask(x), self.rotation(x)

    def _everywhere(self, x: Tensor) -> Tensor:
        return self.causal_mask.dense(x)  # (T, T)

    def call_packed(
        self, token_ids: Tensor, positions: Tensor, training: bool | None = None
    ) -> Tensor:
        """See `langzoo.models.tasks.packed`."""
        # (B, T, E)
        x = self._embed(token_ids, positions=positions, training=training)
        x = self.embeddings_dropout(x, training=training)
        # Rotary positions are relative: counting on from document to document is no
        # difference to them.
        _, rotation = self._tables(x)
        mask = self.causal_mask.within_documents(positions)  # (B, 1, T, T)

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            return block(x, mask, rotation, added, training=training)

        return self._through_blocks(token_ids, x, run)  # (B, T, E)

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """For each block, keys and values of every position.

        Returns:
            A tuple of pairs of tensors, each of shape
            `(batch_size, num_key_value_heads, max_length, head_dim)`; with n-grams the
            tokens behind them, `(batch_size, 1, past + max_length, 1)`, of which 0
            stands for none.
        """
        shape = (
            batch_size,
            self.num_key_value_heads,
            max_length,
            self.hidden_dim // self.num_heads,
        )
        zeros = ops.zeros(shape, self.compute_dtype)
        tokens = ops.zeros((batch_size, 1, self.past + max_length, 1), "int32")
        return self.joined([(zeros, zeros) for _ in self.blocks], tokens)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        # Unlike those of other families, this cache can take several tokens at once,
        # and again those at positions that it has.
        index = ops.cast(cache_update_index, "int32")
        length = ops.shape(token_ids)[1]
        before, tokens = self.parted(cache)
        recent, tokens = self._recent(tokens, token_ids, index)
        x = self._embed(token_ids, index, recent)  # (B, T, E)
        x = ops.reshape(x, (-1, self.hidden_dim))  # (B * T, E)
        mask, rotation, place = CachedTables.of(
            before[0][0], index, length, self.causal_mask, self.rotary_positions
        )  # (T, M), two of (T, D / 2)
        caches: list[Cache] = []

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            x, block_cache = block.call_with_cache(
                x, mask, rotation, added, before[len(caches)], place
            )
            caches.append(block_cache)
            return x

        x = self._through_blocks(token_ids, x, run)
        x = ops.reshape(x, (-1, length, self.hidden_dim))  # (B, T, E)
        return x, self.joined(caches, tokens)

    def _recent(
        self, tokens: Tensor | None, token_ids: Tensor, index: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The last tokens before `index`, and all with `token_ids` written there."""
        if tokens is None:
            return None, None
        rows, length = ops.shape(token_ids)
        recent = ops.slice(tokens, (0, 0, index, 0), (rows, 1, self.past, 1))
        place = Place(tokens, index + self.past, length)
        tokens = place.put(tokens, token_ids[:, None, :, None] + 1)
        return ops.reshape(recent, (rows, self.past)), tokens  # (B, P)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        # All columns at once; what came from column `length` on is wiped, so that it
        # has no influence.
        length = ops.cast(length, "int32")
        prompt = prompt_of(token_ids, length)  # (B, T)
        x = self._embed(prompt)  # (B, T, E)
        mask, rotation = self._tables(x)
        columns = ops.shape(prompt)[1]
        kept = ops.arange(columns)[:, None] < length  # (T, 1)
        filled = Filled(
            ops.cast(kept, self.compute_dtype), ops.shape(token_ids)[1] - columns
        )
        caches = []

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            # Keys and values (B, K, T, D), with room (B, K, M, D).
            x, cache = block.prefill(x, mask, rotation, added)
            caches.append(filled.cache(cache))
            return x

        self._through_blocks(prompt, x, run)
        tokens = (prompt[:, None, :, None] + 1) * ops.cast(kept, "int32")
        room = [[0, 0], [0, 0], [self.past, filled.room], [0, 0]]
        return self.joined(caches, tf.pad(tokens, room))
