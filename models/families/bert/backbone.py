"""The Transformer encoder.

In shapes: B rows, T positions, E `hidden_dim`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...backbone import Tensor
from ..transformer.attention import PaddingMask
from ..transformer.block import DecoderBlock
from ..transformer.family import TransformerSettings
from ..transformer.stack import TransformerStack
from .family import BERT


@keras.saving.register_keras_serializable(package="langzoo")
class BertBackbone(TransformerStack):
    """A Transformer encoder: each position sees all others but padding.

    The layers and their defaults are those of `TransformerBackbone`;
    `family.ARCHITECTURES` holds the options that make it BERT.

    Args:
        vocabulary_size: int. Number of token ids, that of hidden tokens among them.
        **settings: see `BertSettings`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, hidden_dim)`.

    Example:
    ```python
    backbone = BertBackbone(vocabulary_size=261, num_layers=2)
    hidden_states = backbone(
        {
            "token_ids": np.ones((1, 12), "int32"),
            "padding_mask": np.ones((1, 12), "bool"),
        }
    )
    ```

    References:
        - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805)
    """

    family = BERT

    def make_layers(self, settings: TransformerSettings, dtype: Any) -> None:
        super().make_layers(settings, dtype)
        self.hide_padding = PaddingMask(dtype=dtype, name="hide_padding")

    def run_inputs(self, inputs: dict[str, Tensor]) -> Tensor:
        token_ids = inputs["token_ids"]  # (B, T)
        x = self.embeddings_dropout(self._embed(token_ids))  # (B, T, E)
        mask = self.hide_padding(inputs["padding_mask"])  # (B, 1, 1, T)
        rotation = self.rotation(x)  # two of (T, D / 2)

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            return block(x, mask, rotation, added)

        return self._through_blocks(token_ids, x, run)  # (B, T, E)

    def _everywhere(self, x: Tensor) -> Tensor:
        return ops.zeros((1, ops.shape(x)[1]), self.compute_dtype)
