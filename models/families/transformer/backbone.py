"""The Transformer decoder.

In shapes: B rows, T positions, E `hidden_dim`; K heads of keys and values of width D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from ...backbone import (
    Cache,
    Tensor,
    normal_initializer,
    prompt_of,
)
from ..network import NetworkBackbone
from .attention import (
    CausalMask,
    Place,
    RotaryPositions,
    Rotation,
    SelfAttention,
    ValueEmbedding,
)
from .block import DecoderBlock, FeedForward
from .family import TRANSFORMER, TransformerSettings


@keras.saving.register_keras_serializable(package="langzoo")
class TransformerBackbone(NetworkBackbone):
    """A Transformer decoder: pre-norm blocks, by default in today's small recipe.

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
        self.make_embeddings(
            *(settings, settings.hidden_dim, dtype),
            tie=settings.tie_embeddings,
            stddev=settings.initializer_range,
        )
        self.position_embedding = self._position_embedding(dtype)
        self.embeddings_dropout = keras.layers.Dropout(
            settings.dropout, dtype=dtype, name="embeddings_dropout"
        )
        self.causal_mask = CausalMask(
            self.max_sequence_length, dtype=dtype, name="causal_mask"
        )
        self.rotary_positions = None
        if settings.positions == "rotary":
            self.rotary_positions = RotaryPositions(
                settings.hidden_dim // settings.num_heads,
                settings.rope_base,
                dtype=dtype,
                name="rotary_positions",
            )
        self.blocks = [
            self._block(f"block_{i}", dtype) for i in range(settings.num_layers)
        ]
        self.make_residual_scales(dtype)
        without = settings.num_layers - settings.value_embeddings
        self.value_embedding_layers = [
            self._value_embedding(f"value_embedding_{i}", dtype)
            for i in range(without, settings.num_layers)
        ]
        self.final_norm = self._norm("final_norm", dtype)

    def run_layers(self, token_ids: Tensor) -> Tensor:
        x = self.embeddings_dropout(self._embed(token_ids))  # (B, T, E)
        mask, rotation = self._tables(x)  # (T, T), two of (T, D / 2)

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            return block(x, mask, rotation, added)

        return self._through_blocks(token_ids, x, run)  # (B, T, E)

    def _through_blocks(
        self,
        token_ids: Tensor,
        x: Tensor,
        run: Callable[[DecoderBlock, Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        """The hidden states of what all blocks, run in turn, make of embeddings.

        `run` takes a block, the stream that it reads, and what is added to its values.
        """
        first = x  # (B, T, E), as all that follows
        without = len(self.blocks) - len(self.value_embedding_layers)
        for number, block in enumerate(self.blocks):
            added = None  # (B, T, K, D)
            if number >= without:
                added = self.value_embedding_layers[number - without](token_ids)
            x = run(block, self.scaled(number, x, first), added)
        return self.final_norm(x)

    @property
    def embedding_layers(self) -> list[keras.layers.Layer]:
        return super().embedding_layers + self.value_embedding_layers

    def _position_embedding(self, dtype: Any) -> keras.layers.Layer | None:
        if self.positions == "learned":
            return keras_hub.layers.PositionEmbedding(
                self.max_sequence_length,
                initializer=normal_initializer(self.initializer_range),
                dtype=dtype,
                name="position_embedding",
            )
        if self.positions == "sinusoidal":
            # In half precision, positions from 256 on would fall together.
            return keras_hub.layers.SinePositionEncoding(
                dtype="float32", name="position_embedding"
            )
        return None

    def _value_embedding(self, name: str, dtype: Any) -> ValueEmbedding:
        return ValueEmbedding(
            self.vocabulary_size,
            self.num_key_value_heads,
            self.hidden_dim // self.num_heads,
            stddev=self.initializer_range,
            dtype=dtype,
            name=name,
        )

    def _norm(self, name: str, dtype: Any) -> keras.layers.Layer:
        if self.normalization == "rms_norm":
            return keras.layers.RMSNormalization(
                epsilon=self.norm_epsilon, dtype=dtype, name=name
            )
        return keras.layers.LayerNormalization(
            epsilon=self.norm_epsilon, center=self.use_bias, dtype=dtype, name=name
        )

    def _block(self, name: str, dtype: Any) -> DecoderBlock:
        drawn: dict[str, Any] = {
            "use_bias": self.use_bias,
            "stddev": self.initializer_range,
            "residual_scale": (2 * self.num_layers) ** -0.5,
            "dtype": dtype,
        }
        return DecoderBlock(
            attention=SelfAttention(
                self.num_heads,
                self.num_key_value_heads,
                dropout=(
                    self.dropout
                    if self.attention_dropout is None
                    else self.attention_dropout
                ),
                qk_norm=self.norm_epsilon if self.qk_norm else None,
                name="attention",
                **drawn,
            ),
            feedforward=FeedForward(
                self.intermediate_dim, self.activation, name="feedforward", **drawn
            ),
            attention_norm=self._norm("attention_norm", dtype),
            feedforward_norm=self._norm("feedforward_norm", dtype),
            dropout=self.dropout,
            dtype=dtype,
            name=name,
        )

    def _embed(
        self,
        token_ids: Tensor,
        index: Tensor | int = 0,
        recent: Tensor | None = None,
        positions: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Embeddings `(B, T, E)` of tokens `(B, T)` from position `index` on.

        Or at positions, int32 `(B, T)`; `recent` are the tokens before.
        """
        x = self.embed(token_ids, recent, positions, training)  # (B, T, E)
        if self.position_embedding is None:
            return x
        if self.positions == "sinusoidal":
            x = x * self.hidden_dim**0.5
            if positions is not None:
                positions = ops.cast(positions, "float32")
        # (T, E) or (B, T, E)
        vectors = self.position_embedding(x, start_index=index, positions=positions)
        return x + ops.cast(vectors, x.dtype)

    def _tables(self, x: Tensor) -> tuple[Tensor, Rotation | None]:
        """Mask and rotation of a whole sequence, once for all blocks."""
        if self.rotary_positions is None:
            return self.causal_mask(x), None
        return self.causal_mask(x), self.rotary_positions(x)

    def attention_weights(self, token_ids: Tensor) -> Tensor:
        """How much each position attends to each other, in every layer and head.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.

        Returns:
            A tensor of shape `(batch_size, num_layers, num_heads, sequence_length,
            sequence_length)`; the last axis, the positions attended to, sums to one.
        """
        x = self._embed(token_ids)  # (B, T, E)
        _, rotation = self._tables(x)
        mask = self.causal_mask.dense(x)  # (T, T)
        weights = []

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            normed = block.attention_norm(x)
            attention = block.attention  # of which H heads look, at all T positions
            weights.append(attention.attention_weights(normed, mask, rotation))
            return block(x, mask, rotation, added)

        self._through_blocks(token_ids, x, run)
        return ops.stack(weights, axis=1)  # (B, layers, H, T, T)

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
        positions = index + ops.arange(length)  # (T,)
        others = ops.arange(ops.shape(before[0][0])[2])  # (M,)
        mask = self.causal_mask.between(positions[:, None], others)  # (T, M)
        rotation = None
        if self.rotary_positions is not None:
            rotation = self.rotary_positions.rotation(positions)  # two of (T, D / 2)
        place = Place(before[0][0], index, length)
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
        kept = ops.cast(kept, self.compute_dtype)
        room = [[0, 0], [0, 0], [0, ops.shape(token_ids)[1] - columns], [0, 0]]
        caches = []

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            # Keys and values (B, K, T, D), with room (B, K, M, D).
            x, cache = block.prefill(x, mask, rotation, added)
            caches.append(tuple(tf.pad(tensor * kept, room) for tensor in cache))
            return x

        self._through_blocks(prompt, x, run)
        tokens = (prompt[:, None, :, None] + 1) * ops.cast(kept, "int32")
        room = [*room[:2], [self.past, room[2][1]], room[3]]
        return self.joined(caches, tf.pad(tokens, room))

    def default_lora_layer_names(self) -> list[str]:
        return ["query_key_value"]
