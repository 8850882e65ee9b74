"""The recurrent backbones: embeddings, a stack of layers, a projection.

In shapes: B rows, T positions, E `embedding_dim`, U `hidden_dim`, G gates.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from ...backbone import (
    Cache,
    Tensor,
)
from ..network import NetworkBackbone
from . import family as records
from . import layers
from .family import RecurrentSettings
from .layers import RecurrentLayer

_EPSILON = 1e-6
# With no more tokens than this, the first layer's products of all of them take less
# time than those of a batch of windows.
_SMALL_VOCABULARY = 512


class RecurrentBackbone(NetworkBackbone):
    """Base class of the recurrent families: a stack of recurrent layers.

    RMSNorm before every layer and after the last departs from the references: with
    embeddings that are tied, and so begin small, it makes the first steps count.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, embedding_dim)`.

    References:
        - [Zaremba et al., 2014](https://arxiv.org/abs/1409.2329) (where to drop out)
        - [Gal and Ghahramani, 2016](https://arxiv.org/abs/1512.05287) (variational
          dropout)
        - [Press and Wolf, 2016](https://arxiv.org/abs/1608.05859) (tied embeddings)
        - [Merity et al., 2017](https://arxiv.org/abs/1708.02182) (AWD-LSTM: all of it)
    """

    layer_cls: ClassVar[type[RecurrentLayer]]

    def make_layers(self, settings: RecurrentSettings, dtype: Any) -> None:
        width = settings.embedding_dim or settings.hidden_dim
        self.make_embeddings(settings, width, dtype, tie=settings.tie_embeddings)
        self.input_dropout_layer = self._dropout(
            settings.input_dropout, "input_dropout", dtype
        )
        numbers = range(settings.num_layers)
        self.norms = [self._norm(f"norm_{i}", dtype) for i in numbers]
        self.recurrent_layers = [
            self.layer_cls(
                settings.hidden_dim,
                recurrent_dropout=settings.recurrent_dropout,
                weight_dropout=settings.weight_dropout,
                use_cudnn=settings.use_cudnn,
                dtype=dtype,
                name=f"recurrent_{i}",
            )
            for i in numbers
        ]
        rates = [None] * (settings.num_layers - 1) + [settings.output_dropout]
        self.dropout_layers = [
            self._dropout(rate, f"dropout_{i}", dtype) for i, rate in enumerate(rates)
        ]
        self.projection = (
            keras.layers.Identity(dtype=dtype, name="projection")
            if settings.embedding_dim is None
            else keras.layers.Dense(
                settings.embedding_dim, use_bias=False, dtype=dtype, name="projection"
            )
        )
        self.final_norm = self._norm("final_norm", dtype)

    def _norm(self, name: str, dtype: Any) -> keras.layers.Layer:
        if not self.normalize:
            return keras.layers.Identity(dtype=dtype, name=name)
        return keras.layers.RMSNormalization(epsilon=_EPSILON, dtype=dtype, name=name)

    def _dropout(self, rate: float | None, name: str, dtype: Any) -> keras.layers.Layer:
        # SpatialDropout1D is what Keras calls one mask for all positions.
        dropout_cls = (
            keras.layers.SpatialDropout1D
            if self.variational_dropout
            else keras.layers.Dropout
        )
        return dropout_cls(
            self.dropout if rate is None else rate, dtype=dtype, name=name
        )

    def run_layers(self, token_ids: Tensor) -> Tensor:
        x = self.input_dropout_layer(self.embed(token_ids))  # (B, T, E)
        for norm, layer, dropout_after in self._blocks():
            x = dropout_after(layer(norm(x)))  # (B, T, U)
        return self.final_norm(self.projection(x))  # (B, T, E)

    @property
    def trains_on_cudnn(self) -> bool:
        return any(layer.trains_on_cudnn for layer in self.recurrent_layers)

    def call(
        self,
        inputs: dict[str, Tensor],
        training: bool | None = None,
        mask: Any = None,
    ) -> Tensor:
        token_ids = inputs["token_ids"]
        state = self.empty_cache(ops.shape(token_ids)[0])
        return self.call_with_state(token_ids, state, training)[0]

    def _blocks(self) -> Any:
        return zip(self.norms, self.recurrent_layers, self.dropout_layers, strict=True)

    def empty_cache(self, batch_size: Tensor, max_length: Tensor = 0) -> Cache:
        """The state of each layer.

        Returns:
            A tuple of the layers' states, each a tuple of tensors
            `(batch_size, hidden_dim)`, the output first; with n-grams the last tokens
            behind them.
        """
        states = [layer.empty_state(batch_size) for layer in self.recurrent_layers]
        return self.joined(states, self.no_recent(batch_size))

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        before, recent = self.parted(cache)
        x = self.embed(token_ids, recent)[:, 0]  # (B, E)
        states = []
        for (norm, layer, _), state in zip(self._blocks(), before, strict=True):
            x, state = layer.step(norm(x), state)  # (B, U)
            states.append(state)
        x = self.final_norm(self.projection(x))  # (B, E)
        recent = self.next_recent(recent, token_ids, 1)
        return x[:, None], self.joined(states, recent)  # (B, 1, E)

    def call_packed(
        self, token_ids: Tensor, positions: Tensor, training: bool | None = None
    ) -> Tensor:
        """See `langzoo.models.tasks.packed`."""
        state = self.empty_cache(ops.shape(token_ids)[0])
        keep = ops.swapaxes(positions, 0, 1)[..., None] > 0  # (T, B, 1)
        keep = ops.cast(keep, self.compute_dtype)
        # (B, T, E)
        return self._run(token_ids, state, training, keep, positions)[0]

    def call_with_state(
        self,
        token_ids: Tensor,
        state: Cache,
        training: bool | None = None,
    ) -> tuple[Tensor, Cache]:
        """Goes on from a state over any number of positions.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
            state: what `empty_cache()`, `prefill()` or this method returned.
            training: bool. Whether to drop out.

        Returns:
            The hidden states `(batch_size, sequence_length, embedding_dim)` and the
            next state.
        """
        return self._run(token_ids, state, training)

    def _run(
        self,
        token_ids: Tensor,
        state: Cache,
        training: bool | None,
        keep: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """As `call_with_state()`; `keep` is that of `RecurrentLayer.run_projected`."""
        before, recent = self.parted(state)
        is_looked_up = self._is_looked_up(training, keep)
        x = None
        if not is_looked_up:
            x = self.embed(token_ids, recent, positions, training)  # (B, T, E)
            x = self.input_dropout_layer(x, training=training)
        states = []
        blocks = zip(self._blocks(), before, strict=True)
        for (norm, layer, dropout_after), layer_state in blocks:
            if x is None:
                projected = self._looked_up_projection(token_ids)  # (T, B, G * U)
                x, layer_state = layer.run_projected(
                    projected, layer_state, training, keep
                )
            else:
                x, layer_state = layer.run(norm(x), layer_state, training, keep)
            x = dropout_after(x, training=training)  # (B, T, U)
            states.append(layer_state)
        recent = self.next_recent(recent, token_ids, ops.shape(token_ids)[1])
        # (B, T, E)
        return self.final_norm(self.projection(x)), self.joined(states, recent)

    def _is_looked_up(self, training: bool | None, keep: Tensor | None) -> bool:
        """Whether the first layer's projection is computed once for each token.

        It depends on the token alone, without n-grams and where no unit drops out.
        """
        drops_out = training and (
            self.embedding_dropout or self.input_dropout_layer.rate
        )
        return (
            self.vocabulary_size <= _SMALL_VOCABULARY
            and not drops_out
            and not self.past
            and not self.recurrent_layers[0].calls_cudnn(training, keep)
        )

    def _looked_up_projection(self, token_ids: Tensor) -> Tensor:
        """What the first layer makes of token ids `(B, T)`: `(T, B, G * U)`."""
        every_token = self.token_embedding(ops.arange(self.vocabulary_size))  # (V, E)
        # (V, G * U)
        projected = self.recurrent_layers[0].project(self.norms[0](every_token))
        return ops.take(projected, ops.swapaxes(token_ids, 0, 1), axis=0)


@keras.saving.register_keras_serializable(package="langzoo")
class SimpleRNNBackbone(RecurrentBackbone):
    """A stack of simple recurrent layers over tied embeddings.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `RNNSettings`.

    Call arguments:
        inputs: see `RecurrentBackbone`.

    Example:
    ```python
    backbone = SimpleRNNBackbone(vocabulary_size=260, num_layers=2)
    ```

    References:
        - [Mikolov et al., 2010](https://doi.org/10.21437/Interspeech.2010-343)
    """

    family = records.RNN
    layer_cls = layers.SimpleRNN


@keras.saving.register_keras_serializable(package="langzoo")
class GRUBackbone(RecurrentBackbone):
    """A stack of GRU layers over tied embeddings.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `GRUSettings`.

    Call arguments:
        inputs: see `RecurrentBackbone`.

    Example:
    ```python
    backbone = GRUBackbone(vocabulary_size=260, num_layers=2)
    ```

    References:
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078v1)
        - [Chung et al., 2014](https://arxiv.org/abs/1412.3555) (against the LSTM)
    """

    family = records.GRU
    layer_cls = layers.GRU


@keras.saving.register_keras_serializable(package="langzoo")
class LSTMBackbone(RecurrentBackbone):
    """A stack of LSTM layers over tied embeddings.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `LSTMSettings`.

    Call arguments:
        inputs: see `RecurrentBackbone`.

    Example:
    ```python
    backbone = LSTMBackbone(vocabulary_size=260, num_layers=2)
    hidden_states = backbone(
        {
            "token_ids": np.ones((1, 12), "int32"),
            "padding_mask": np.ones((1, 12), "bool"),
        }
    )
    ```

    References:
        - [Sundermeyer et al., 2012](https://doi.org/10.21437/Interspeech.2012-65)
    """

    family = records.LSTM
    layer_cls = layers.LSTM
