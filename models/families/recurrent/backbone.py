"""The recurrent backbones: embeddings, a stack of layers, a projection."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from ...backbone import (
    Cache,
    CausalBackbone,
    Tensor,
    normal_initializer,
    token_inputs,
)
from . import family as records
from . import layers
from .layers import EmbeddingDropout, RecurrentLayer

_EPSILON = 1e-6
# With no more tokens than this, the first layer's products of all of them take less
# time than those of a batch of windows.
_SMALL_VOCABULARY = 512


class RecurrentBackbone(CausalBackbone):
    """Base class of the recurrent families: a stack of recurrent layers.

    RMSNorm before every layer and after the last departs from the references: with
    embeddings that are tied, and so begin small, it makes the first steps count.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Recurrent layers. Defaults to 1.
        hidden_dim: int. Width of every layer. Defaults to 256.
        embedding_dim: int or `None`. Width of the embeddings, and of the output: a
            projection without bias follows the last layer. Defaults to `None`, which
            is `hidden_dim` and no projection.
        tie_embeddings: bool. Whether the output weights are the embeddings. Defaults
            to `True`.
        normalize: bool. Whether there are RMSNorms. Defaults to `True`.
        dropout: float. Dropout on the embeddings and on the output of every layer.
            Defaults to 0.
        embedding_dropout: float. Share of the vocabulary whose embeddings are zero in a
            call, before the other dropouts. Defaults to 0.
        input_dropout: float or `None`. In place of `dropout`, on the embeddings.
            Defaults to `None`, which is `dropout`.
        output_dropout: float or `None`. In place of `dropout`, on the output of the
            last layer. Defaults to `None`, which is `dropout`.
        recurrent_dropout: float. Dropout on what a layer sees of its last output; the
            same units at all time steps. Defaults to 0.
        weight_dropout: float. DropConnect on the recurrent kernels. Defaults to 0.
        variational_dropout: bool. Whether the first three dropouts, too, are of the
            same units at all time steps. Defaults to `False`.
        max_sequence_length: int. Longest input that the model is made for; no weight
            depends on it. Defaults to 128.
        use_cudnn: `"auto"` or bool. See `RecurrentLayer`. Defaults to `"auto"`.
        dtype: string or `keras.DTypePolicy`. Of computations and weights.

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

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 1,
        hidden_dim: int = 256,
        embedding_dim: int | None = None,
        tie_embeddings: bool = True,
        normalize: bool = True,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        input_dropout: float | None = None,
        output_dropout: float | None = None,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        variational_dropout: bool = False,
        max_sequence_length: int = 128,
        use_cudnn: str | bool = "auto",
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        # SpatialDropout1D is what Keras calls one mask for all positions.
        dropout_cls = (
            keras.layers.SpatialDropout1D
            if variational_dropout
            else keras.layers.Dropout
        )
        input_rate = dropout if input_dropout is None else input_dropout
        output_rate = dropout if output_dropout is None else output_dropout

        def norm(name: str) -> keras.layers.Layer:
            if not normalize:
                return keras.layers.Identity(dtype=dtype, name=name)
            return keras.layers.RMSNormalization(
                epsilon=_EPSILON, dtype=dtype, name=name
            )

        # === Layers ===
        self.token_embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size,
            embedding_dim or hidden_dim,
            tie_weights=tie_embeddings,
            embeddings_initializer=normal_initializer(),
            dtype=dtype,
            name="token_embedding",
        )
        self.embedding_dropout_layer = EmbeddingDropout(
            vocabulary_size, embedding_dropout, dtype=dtype, name="embedding_dropout"
        )
        self.input_dropout_layer = dropout_cls(
            input_rate, dtype=dtype, name="input_dropout"
        )
        self.norms = [norm(f"norm_{i}") for i in range(num_layers)]
        self.recurrent_layers = [
            self.layer_cls(
                hidden_dim,
                recurrent_dropout=recurrent_dropout,
                weight_dropout=weight_dropout,
                use_cudnn=use_cudnn,
                dtype=dtype,
                name=f"recurrent_{i}",
            )
            for i in range(num_layers)
        ]
        self.dropout_layers = [
            dropout_cls(rate, dtype=dtype, name=f"dropout_{i}")
            for i, rate in enumerate([dropout] * (num_layers - 1) + [output_rate])
        ]
        self.projection = (
            keras.layers.Identity(dtype=dtype, name="projection")
            if embedding_dim is None
            else keras.layers.Dense(
                embedding_dim, use_bias=False, dtype=dtype, name="projection"
            )
        )
        self.final_norm = norm("final_norm")

        # === Functional Model ===
        # It builds the layers; `call()` is the same function.
        inputs = token_inputs()
        token_ids = inputs["token_ids"]
        x = self.embedding_dropout_layer(self.token_embedding(token_ids), token_ids)
        x = self.input_dropout_layer(x)
        for norm_layer, layer, dropout_after in self._blocks():
            x = dropout_after(layer(norm_layer(x)))
        outputs = self.final_norm(self.projection(x))
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.embedding_dim = embedding_dim
        self.tie_embeddings = tie_embeddings
        self.normalize = normalize
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.input_dropout = input_dropout
        self.output_dropout = output_dropout
        self.recurrent_dropout = recurrent_dropout
        self.weight_dropout = weight_dropout
        self.variational_dropout = variational_dropout
        self.max_sequence_length = max_sequence_length
        self.use_cudnn = use_cudnn

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
            `(batch_size, hidden_dim)`, the output first.
        """
        return tuple(layer.empty_state(batch_size) for layer in self.recurrent_layers)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        x = self.token_embedding(token_ids[:, 0])
        states = []
        for (norm, layer, _), state in zip(self._blocks(), cache, strict=True):
            x, state = layer.step(norm(x), state)
            states.append(state)
        return self.final_norm(self.projection(x))[:, None], tuple(states)

    def call_packed(
        self, token_ids: Tensor, positions: Tensor, training: bool | None = None
    ) -> Tensor:
        """See `langzoo.models.tasks.packed`."""
        state = self.empty_cache(ops.shape(token_ids)[0])
        keep = ops.cast(ops.swapaxes(positions, 0, 1) > 0, self.compute_dtype)
        return self.call_with_state(token_ids, state, training, keep[..., None])[0]

    def call_with_state(
        self,
        token_ids: Tensor,
        state: Cache,
        training: bool | None = None,
        keep: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """Goes on from a state over any number of positions.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
            state: what `empty_cache()`, `prefill()` or this method returned.
            training: bool. Whether to drop out.
            keep: see `RecurrentLayer.run_projected`.

        Returns:
            The hidden states `(batch_size, sequence_length, embedding_dim)` and the
            next state.
        """
        is_looked_up = self._is_looked_up(training, keep)
        x = None if is_looked_up else self._embedded(token_ids, training)
        states = []
        blocks = zip(self._blocks(), state, strict=True)
        for (norm, layer, dropout_after), layer_state in blocks:
            if x is None:
                projected = self._looked_up_projection(token_ids)
                x, layer_state = layer.run_projected(
                    projected, layer_state, training, keep
                )
            else:
                x, layer_state = layer.run(norm(x), layer_state, training, keep)
            x = dropout_after(x, training=training)
            states.append(layer_state)
        return self.final_norm(self.projection(x)), tuple(states)

    def _is_looked_up(self, training: bool | None, keep: Tensor | None) -> bool:
        """Whether the first layer's projection is computed once for each token.

        It depends on the token alone, unless units are dropped out.
        """
        drops_out = training and (
            self.embedding_dropout or self.input_dropout_layer.rate
        )
        return (
            self.vocabulary_size <= _SMALL_VOCABULARY
            and not drops_out
            and not self.recurrent_layers[0].calls_cudnn(training, keep)
        )

    def _looked_up_projection(self, token_ids: Tensor) -> Tensor:
        """What the first layer makes of token ids `(B, T)`: `(T, B, G * U)`."""
        every_token = self.token_embedding(ops.arange(self.vocabulary_size))
        projected = self.recurrent_layers[0].project(self.norms[0](every_token))
        return ops.take(projected, ops.swapaxes(token_ids, 0, 1), axis=0)

    def _embedded(self, token_ids: Tensor, training: bool | None) -> Tensor:
        """Token ids `(B, T)` after the first dropouts: `(B, T, embedding_dim)`."""
        x = self.token_embedding(token_ids)
        x = self.embedding_dropout_layer(x, token_ids, training=training)
        return self.input_dropout_layer(x, training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "embedding_dim": self.embedding_dim,
            "tie_embeddings": self.tie_embeddings,
            "normalize": self.normalize,
            "dropout": self.dropout,
            "embedding_dropout": self.embedding_dropout,
            "input_dropout": self.input_dropout,
            "output_dropout": self.output_dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "weight_dropout": self.weight_dropout,
            "variational_dropout": self.variational_dropout,
            "max_sequence_length": self.max_sequence_length,
            "use_cudnn": self.use_cudnn,
        }


@keras.saving.register_keras_serializable(package="langzoo")
class SimpleRNNBackbone(RecurrentBackbone):
    """A stack of simple recurrent layers over tied embeddings.

    Arguments and shapes: see `RecurrentBackbone`.

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

    Arguments and shapes: see `RecurrentBackbone`.

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

    Arguments and shapes: see `RecurrentBackbone`.

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
