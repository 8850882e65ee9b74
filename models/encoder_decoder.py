"""What every family shares that reads a source and writes a target.

In shapes: B sources of S tokens; N targets of T, N a multiple of B, each source's
targets in a row; E `hidden_dim`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from .backbone import Cache, FamilyBackbone, Tensor, read_in_turn

Memory = Any
"""What a decoder sees of sources: a nest of tensors with leading dimension B."""

SOURCE, TARGET = "encoder", "decoder"


class EncoderDecoderBackbone(FamilyBackbone):
    """Base class of backbones that read a source and write a target.

    As in KerasHub, a backbone maps `{"encoder_token_ids": int32 (B, S),
    "encoder_padding_mask": bool (B, S), "decoder_token_ids": int32 (B, T),
    "decoder_padding_mask": bool (B, T)}` to `{"encoder_sequence_output": (B, S, width),
    "decoder_sequence_output": (B, T, hidden_dim)}`. The encoder sees all of the source
    but padding; the decoder sees that, and of the target what is up to a position.
    Padding is on the right: `decoder_padding_mask` is not read.

    To write, a source is read once by `encode()`, and tokens of the target go through
    `prefill()` and `call_with_cache()`, which take what it gave besides. That is in
    none of their caches, and never copied: where a source has several targets, as in a
    beam search, there are as many rows of tokens for each row of it.

    A subclass implements, besides what `FamilyBackbone` asks for, `run_encoder()` and
    `run_decoder()` in place of `run_inputs()`, `memory_of()`, `empty_cache()` and
    `call_with_cache()`, and overrides `prefill()` if it can consume many tokens faster
    than one by one.

    Args:
        vocabulary_size: int. Number of token ids of the target.
        **settings: the hyperparameters of the family, `source_context_length` and
            `share_embeddings` among them.
        source_vocabulary_size: int or `None`. Number of token ids of the source, if its
            tokenizer is another. Defaults to `None`.

    Attributes:
        token_embedding: that of the target, and by default of the source.
        source_embedding: that of the source, perhaps the same layer.
    """

    source_vocabulary_size: int | None
    source_context_length: int | None
    share_embeddings: bool
    source_embedding: keras.layers.Layer

    @property
    def max_source_length(self) -> int:
        """The longest source, in tokens, that the model is made for."""
        return self.source_context_length or self.max_sequence_length

    @property
    def embedding_layers(self) -> list[keras.layers.Layer]:
        return list(dict.fromkeys([self.source_embedding, self.token_embedding]))

    def make_embeddings(self, width: int, dtype: Any, **options: Any) -> None:
        """Sets `token_embedding` and `source_embedding`.

        Args:
            width: int. Of both.
            dtype: string or `keras.DTypePolicy`.
            **options: of `keras.layers.ReversibleEmbedding`.
        """
        self.token_embedding = keras.layers.ReversibleEmbedding(
            self.vocabulary_size, width, dtype=dtype, name="token_embedding", **options
        )
        self.source_embedding = self.token_embedding
        if self.source_vocabulary_size or not self.share_embeddings:
            self.source_embedding = keras.layers.Embedding(
                self.source_vocabulary_size or self.vocabulary_size,
                width,
                embeddings_initializer=options["embeddings_initializer"],
                dtype=dtype,
                name="source_embedding",
            )

    def make_inputs(self) -> dict[str, keras.KerasTensor]:
        return pair_inputs()

    def run_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = inputs["encoder_padding_mask"]
        states = self.run_encoder(inputs["encoder_token_ids"], mask)  # (B, S, width)
        return {
            "encoder_sequence_output": states,
            "decoder_sequence_output": self.run_decoder(
                inputs["decoder_token_ids"], states, mask
            ),
        }

    def run_encoder(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        """Calls the encoder's layers, on symbolic tensors or others.

        Args:
            token_ids: int32 tensor of shape `(B, S)`.
            padding_mask: bool tensor of that shape, false where there is padding.

        Returns:
            Its states, `(B, S, width)`.
        """
        raise NotImplementedError

    def run_decoder(
        self, token_ids: Tensor, states: Tensor, padding_mask: Tensor
    ) -> Tensor:
        """Calls the decoder's layers on symbolic tensors.

        Args:
            token_ids: int32 tensor of shape `(B, T)`.
            states: what `run_encoder()` gave.
            padding_mask: bool tensor of shape `(B, S)`, that of the source.

        Returns:
            The hidden states, `(B, T, hidden_dim)`.
        """
        raise NotImplementedError

    def encode(self, token_ids: Tensor, padding_mask: Tensor) -> Memory:
        """Reads sources, once for all of their targets.

        Args:
            token_ids: int32 tensor of shape `(B, S)`.
            padding_mask: bool tensor of that shape, false where there is padding.

        Returns:
            What the decoder sees of them; of attention the keys and values of every
            layer.
        """
        padding_mask = ops.cast(padding_mask, "bool")
        states = self.run_encoder(token_ids, padding_mask)
        return self.memory_of(states, padding_mask)

    def memory_of(self, states: Tensor, padding_mask: Tensor) -> Memory:
        """What the decoder sees of sources, of the encoder's states of them."""
        raise NotImplementedError

    def empty_cache(
        self, batch_size: Tensor, max_length: Tensor, memory: Memory
    ) -> Cache:
        """The cache before any token of the targets.

        Args:
            batch_size: int, or int32 scalar tensor: N.
            max_length: int, or int32 scalar tensor. Positions to make room for.
            memory: what `encode()` returned.

        Returns:
            A nest of tensors, each with leading dimension N. Their shapes are the same
            after any number of tokens.
        """
        raise NotImplementedError

    def call_with_cache(
        self,
        token_ids: Tensor,
        cache: Cache,
        cache_update_index: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Cache]:
        """Consumes one token a row.

        Args:
            token_ids: int32 tensor of shape `(N, 1)`.
            cache: what `empty_cache()`, `prefill()` or this method returned.
            cache_update_index: int32 scalar tensor, the position of the tokens.
            memory: what `encode()` returned.

        Returns:
            The hidden states, of shape `(N, 1, hidden_dim)`, and the cache.
        """
        raise NotImplementedError

    def prefill(self, token_ids: Tensor, length: Tensor, memory: Memory) -> Cache:
        """The cache after the first `length` columns; later columns have no influence.

        Args:
            token_ids: int32 tensor of shape `(N, max_length)`.
            length: int32 scalar tensor, from 0 to `max_length`.
            memory: what `encode()` returned.

        Returns:
            A cache with room for `max_length` positions.
        """

        def step(
            token_ids: Tensor, cache: Cache, index: Tensor
        ) -> tuple[Tensor, Cache]:
            return self.call_with_cache(token_ids, cache, index, memory)

        shape = ops.shape(token_ids)
        cache = self.empty_cache(shape[0], shape[1], memory)
        return read_in_turn(step, token_ids, length, cache)


def pair_inputs() -> dict[str, keras.KerasTensor]:
    """The symbolic inputs: of each side token ids, and where they are no padding."""
    return {
        f"{side}_{name}": keras.Input((None,), dtype=dtype, name=f"{side}_{name}")
        for side in (SOURCE, TARGET)
        for name, dtype in (("token_ids", "int32"), ("padding_mask", "bool"))
    }


def by_source(x: Tensor, like: Tensor) -> Tensor:
    """`(N, T, E)` or `(N * T, E)` as `(B, N / B * T, E)`, with B rows as in `like`."""
    rows, width = ops.shape(like)[0], x.shape[-1]
    # Said in full, and one at least: of an empty batch nothing can be inferred.
    each = ops.maximum(ops.size(x) // (ops.maximum(rows, 1) * width), 1)
    return ops.reshape(x, (rows, each, width))


def by_target(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `by_source`, in all but the last dimension as `like`."""
    return ops.reshape(x, (*ops.shape(like)[:-1], x.shape[-1]))
