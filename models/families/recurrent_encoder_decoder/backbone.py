"""The recurrent encoder-decoder with attention.

In shapes: B sources of S tokens; N targets of T, N a multiple of B; E width of the
embeddings, U `hidden_dim`.
"""

from __future__ import annotations

from typing import Any

import keras

from ...backbone import Cache, Tensor, normal_initializer
from ...encoder_decoder import EncoderDecoderBackbone
from .family import RECURRENT_ENCODER_DECODER, RecurrentEncoderDecoderSettings
from .layers import CELLS, AttentiveDecoder, BothWays, Memory, make_norm


@keras.saving.register_keras_serializable(package="langzoo")
class RecurrentEncoderDecoder(EncoderDecoderBackbone):
    """A recurrent encoder that reads both ways, and a decoder that attends to it.

    The decoder begins with what the way back through the source knows, as Bahdanau et
    al. have it, and its last outputs attend, as Luong et al. have it; `input_feeding`
    lets what was seen into the recurrence, as both do. It departs from them in
    RMSNorms before every layer and at the end, and in output weights that are the
    target's embeddings, without a maxout layer before.

    Args:
        vocabulary_size: int. Number of token ids of the target.
        **settings: see `RecurrentEncoderDecoderSettings`.

    Call arguments:
        inputs: see `EncoderDecoderBackbone`.

    Example:
    ```python
    backbone = RecurrentEncoderDecoder(vocabulary_size=260, cell="lstm")
    ```

    References:
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078)
        - [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473)
        - [Luong et al., 2015](https://arxiv.org/abs/1508.04025)
        - [Press and Wolf, 2016](https://arxiv.org/abs/1608.05859) (tied embeddings)
    """

    family = RECURRENT_ENCODER_DECODER

    def make_layers(
        self, settings: RecurrentEncoderDecoderSettings, dtype: Any
    ) -> None:
        self.make_embeddings(
            settings.width, dtype, embeddings_initializer=normal_initializer()
        )
        numbers, half = range(settings.depths[0]), settings.hidden_dim // 2
        self.norms = [make_norm(f"encoder_norm_{i}", dtype) for i in numbers]
        self.encoder_layers = [
            BothWays(
                *(
                    CELLS[settings.cell](half, dtype=dtype, name=name)
                    for name in ("forward", "backward")
                ),
                dtype=dtype,
                name=f"encoder_{i}",
            )
            for i in numbers
        ]
        self.dropout_layers = [
            keras.layers.Dropout(
                settings.dropout, dtype=dtype, name=f"encoder_dropout_{i}"
            )
            for i in range(len(numbers) + 1)
        ]
        self.decoder = AttentiveDecoder(settings, dtype=dtype, name="decoder")

    @property
    def trains_on_cudnn(self) -> bool:
        return any(layer.forward.trains_on_cudnn for layer in self.encoder_layers)

    def run_encoder(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        x = self.dropout_layers[0](self.source_embedding(token_ids))  # (B, S, E)
        layers = zip(
            self.norms, self.encoder_layers, self.dropout_layers[1:], strict=True
        )
        for norm, layer, dropout_after in layers:
            x = dropout_after(layer(norm(x), padding_mask))  # (B, S, U)
        return x

    def run_decoder(
        self, token_ids: Tensor, states: Tensor, padding_mask: Tensor
    ) -> Tensor:
        return self.decoder(self.token_embedding(token_ids), states, padding_mask)

    def memory_of(self, states: Tensor, padding_mask: Tensor) -> Memory:
        """What the decoder sees of sources; a tuple, see `layers.Memory`."""
        return self.decoder.memory_of(states, padding_mask)

    def empty_cache(
        self, batch_size: Tensor, max_length: Tensor, memory: Memory
    ) -> Cache:
        """The states of the decoder's layers, as the source has them begin.

        Returns:
            A tuple of tensors `(N, hidden_dim)`; with input feeding what was seen last
            behind them, `(N, width)`.
        """
        return tuple(self.decoder.first_states(batch_size, Memory(*memory)))

    def call_with_cache(
        self,
        token_ids: Tensor,
        cache: Cache,
        cache_update_index: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Cache]:
        x = self.token_embedding(token_ids)[:, 0]  # (N, E)
        x, states = self.decoder.step(x, list(cache), Memory(*memory))
        return x[:, None], tuple(states)  # (N, 1, E)
