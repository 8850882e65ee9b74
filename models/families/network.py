"""What the networks of the zoo have in common: embeddings before, logits behind.

In shapes: B rows, T positions, P tokens of the past, E width of the embeddings.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..backbone import (
    Cache,
    CausalBackbone,
    Tensor,
    learns_by_rows,
    normal_initializer,
    require,
)
from .family import NetworkSettings

# Of the tokens of an n-gram, one a distance: a prime, and its powers modulo another.
_FACTOR, _MODULUS = 1_000_003, 2**31 - 1


class NetworkBackbone(CausalBackbone):
    """Base class of the networks: embeddings of tokens, n-grams and the stream of both.

    A network makes its embeddings by `make_embeddings()` and reads them by `embed()`.
    With n-grams its cache ends in the last tokens, `recent`, of which 0 stands for
    none and 1 for token 0.
    """

    ngram_embeddings: int
    ngram_buckets: int
    ngram_dropout: float
    embedding_dropout: float
    num_layers: int
    residual_scales: bool = False
    """Where a family has no such setting."""

    def make_embeddings(
        self,
        settings: NetworkSettings,
        width: int,
        dtype: Any,
        *,
        tie: bool = True,
        stddev: float = 0.02,
    ) -> None:
        """Sets the embeddings as attributes.

        Args:
            settings: the family's, resolved.
            width: int. Of the embeddings.
            dtype: string or `keras.DTypePolicy`, for each layer.
            tie: bool. Whether they are the output weights, too.
            stddev: float. Standard deviation of the weights when they are drawn.
        """
        self.token_embedding = keras.layers.ReversibleEmbedding(
            self.vocabulary_size,
            width,
            tie_weights=tie,
            embeddings_initializer=normal_initializer(stddev),
            dtype=dtype,
            name="token_embedding",
        )
        self.embedding_dropout_layer = EmbeddingDropout(
            self.vocabulary_size,
            settings.embedding_dropout,
            dtype=dtype,
            name="embedding_dropout",
        )
        self.past = settings.ngram_embeddings - 1
        self.ngram_embedding = None
        if self.past:
            self.ngram_embedding = NgramEmbedding(
                settings.ngram_embeddings,
                settings.ngram_buckets,
                width,
                rate=settings.ngram_dropout,
                stddev=stddev,
                dtype=dtype,
                name="ngram_embedding",
            )

    def make_residual_scales(self, dtype: Any) -> None:
        """Sets the scales of all blocks as an attribute: none, where there are none."""
        numbers = range(self.num_layers if self.residual_scales else 0)
        self.scale_layers = [
            ResidualScale(dtype=dtype, name=f"residual_scale_{i}") for i in numbers
        ]

    @property
    def embedding_layers(self) -> list[keras.layers.Layer]:
        return [self.token_embedding] + ([self.ngram_embedding] if self.past else [])

    def embed(
        self,
        token_ids: Tensor,
        recent: Tensor | None = None,
        positions: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """What the first layer reads, before dropout of its units.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
            recent: the tokens before; `None`, if the rows begin with the first ones.
            positions: int32 tensor of the shape of `token_ids`, each one's distance
                from the beginning of its document; `None`, if a row is one.
            training: bool. Whether to drop out.

        Returns:
            A tensor of shape `(batch_size, sequence_length, width)`.
        """
        x = self.token_embedding(token_ids)  # (B, T, E)
        x = self.embedding_dropout_layer(x, token_ids, training=training)
        if self.ngram_embedding is None:
            return x
        ngrams = self.ngram_embedding(token_ids, recent, positions, training=training)
        return x + ngrams

    def scaled(self, number: int, x: Tensor, first: Tensor) -> Tensor:
        """What block `number` reads of the stream and of what the first one read."""
        return self.scale_layers[number](x, first) if self.scale_layers else x

    def no_recent(self, batch_size: Tensor) -> Tensor | None:
        """`recent` before any token."""
        return ops.zeros((batch_size, self.past), "int32") if self.past else None

    def next_recent(
        self, recent: Tensor | None, token_ids: Tensor, length: Tensor | int
    ) -> Tensor | None:
        """`recent` after `length` of the tokens `(B, T)`."""
        if recent is None:
            return None
        known = ops.concatenate([recent, token_ids + 1], axis=1)  # (B, P + T)
        shape = (ops.shape(token_ids)[0], self.past)
        return ops.slice(known, (0, length), shape)  # (B, P)

    def joined(self, caches: Any, recent: Tensor | None) -> Cache:
        """The cache: that of each layer, and at the end `recent`, if it is one."""
        return (*caches, recent) if self.past else tuple(caches)

    def parted(self, cache: Cache) -> tuple[Cache, Tensor | None]:
        """The inverse of `joined`."""
        return (cache[:-1], cache[-1]) if self.past else (cache, None)


class NgramEmbedding(keras.layers.Layer):
    """Embeddings of the n-grams that end at each token, from pairs on, summed.

    The n-grams of a length share a table of a few rows, in which a hash finds them.

    Args:
        length: int. Tokens of the longest n-gram.
        buckets: int. Rows for each length.
        width: int. Width of the embeddings.
        rate: float. Share of the n-grams that a call in training does without; the
            others' embeddings grow to make up for it. Defaults to 0.
        stddev: float. Standard deviation of the weights when they are drawn. Defaults
            to 0.02.
        seed: int or `None`. Of what is dropped. Defaults to `None`.

    Call arguments:
        token_ids: int32 tensor of shape `(batch_size, sequence_length)`; the output is
            `(batch_size, sequence_length, width)`.
        recent: int32 tensor of shape `(batch_size, length - 1)`, the tokens before,
            plus one, where 0 stands for none; or `None`, if there are none.
        positions: int32 tensor of the shape of `token_ids`, each one's distance from
            the beginning of its document, which no n-gram reaches across; or `None`.

    References:
        - [Svenstrup et al., 2017](https://arxiv.org/abs/1709.03933) (hash embeddings)
        - [Clark et al., 2021](https://arxiv.org/abs/2103.06874) (of n-grams)
    """

    def __init__(
        self,
        length: int,
        buckets: int,
        width: int,
        *,
        rate: float = 0.0,
        stddev: float = 0.02,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.length = length
        self.buckets = buckets
        self.width = width
        self.rate = rate
        self.stddev = stddev
        self.seed = seed
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.table = keras.layers.Embedding(
            (length - 1) * buckets,
            width,
            embeddings_initializer=normal_initializer(stddev),
            dtype=self.dtype_policy,
            name="table",
        )

    def build(self, *_: Any) -> None:
        self.table.build()
        learns_by_rows(self.table.embeddings)
        self.built = True

    def call(
        self,
        token_ids: Tensor,
        recent: Tensor | None = None,
        positions: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        rows = self.rows(token_ids, recent, positions)
        embeddings = [self.table(row) for row in rows]  # (B, T, E) each
        if training and self.rate:
            ones = ops.ones((len(rows), *ops.shape(token_ids), 1), self.compute_dtype)
            kept = keras.random.dropout(ones, self.rate, seed=self.seed_generator)
            embeddings = [x * kept[i] for i, x in enumerate(embeddings)]
        # In turn: a sum over an axis of length one costs as much as the rest.
        return sum(embeddings)  # (B, T, E)

    def rows(
        self, token_ids: Tensor, recent: Tensor | None, positions: Tensor | None
    ) -> list[Tensor]:
        """Which row of the table each n-gram has: of each length int32 `(B, T)`."""
        past, count = self.length - 1, ops.shape(token_ids)[1]
        tokens = ops.cast(token_ids, "int32") + 1
        known = (
            ops.pad(tokens, ((0, 0), (past, 0)))
            if recent is None
            else ops.concatenate([recent, tokens], axis=1)
        )  # (B, P + T)
        # Products of 32 bits would be too long.
        code = ops.cast(tokens, "int64")  # (B, T)
        rows = []
        for distance in range(1, self.length):
            start = past - distance
            earlier = known[:, start : start + count]  # (B, T)
            if positions is not None:
                earlier = ops.where(positions >= distance, earlier, 0)
            code += ops.cast(earlier, "int64") * pow(_FACTOR, distance, _MODULUS)
            row = ops.cast(ops.mod(code, self.buckets), "int32")
            rows.append(row + (distance - 1) * self.buckets)
        return rows

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return (*input_shape, self.width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "length": self.length,
            "buckets": self.buckets,
            "width": self.width,
            "rate": self.rate,
            "stddev": self.stddev,
            "seed": self.seed,
        }


class ResidualScale(keras.layers.Layer):
    """`a * x + b * x0` with two factors that are learned, at first 1 and 0.

    Call arguments:
        x: tensor of any shape, the residual stream.
        first: tensor of that shape, the embeddings that it began with.

    References:
        - [Bachlechner et al., 2020](https://arxiv.org/abs/2003.04887) (a factor)
        - [Jordan et al., 2024](https://github.com/KellerJordan/modded-nanogpt) (two)
    """

    def build(self, *_: Any) -> None:
        # By this name no optimizer lets it decay.
        self.scale = self.add_weight(
            shape=(2,), initializer=self._at_first, name="scale"
        )

    def call(self, x: Tensor, first: Tensor) -> Tensor:
        return self.scale[0] * x + self.scale[1] * first

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape

    def _at_first(self, shape: Any, dtype: Any = None) -> Tensor:
        return ops.convert_to_tensor([1.0, 0.0], dtype)


@keras.saving.register_keras_serializable(package="langzoo")
class EmbeddingDropout(keras.layers.Layer):
    """Zeroes the embeddings of whole tokens, wherever they stand in a batch.

    Args:
        vocabulary_size: int. Number of token ids.
        rate: float. Share of the vocabulary that a call in training does without; the
            other embeddings grow to make up for it.
        seed: int or `None`. Defaults to `None`.

    Call arguments:
        embeddings: tensor of shape `(batch_size, sequence_length, dim)`.
        token_ids: int32 tensor of shape `(batch_size, sequence_length)`.

    References:
        - [Gal and Ghahramani, 2016](https://arxiv.org/abs/1512.05287)
        - [Merity et al., 2017](https://arxiv.org/abs/1708.02182)
    """

    def __init__(
        self, vocabulary_size: int, rate: float, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require(
            0 <= rate < 1, "`embedding_dropout` must be at least 0, below 1.", rate=rate
        )
        self.vocabulary_size = vocabulary_size
        self.rate = rate
        self.seed = seed
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(
        self, embeddings: Tensor, token_ids: Tensor, training: bool | None = None
    ) -> Tensor:
        if not training or not self.rate:
            return embeddings
        ones = ops.ones((self.vocabulary_size, 1), self.compute_dtype)
        kept = keras.random.dropout(ones, self.rate, seed=self.seed_generator)  # (V, 1)
        return embeddings * ops.take(kept, token_ids, axis=0)  # (B, T, E), by (B, T, 1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "rate": self.rate,
            "seed": self.seed,
        }
