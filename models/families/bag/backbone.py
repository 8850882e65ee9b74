"""The bag of words and n-grams."""

from __future__ import annotations

from typing import Any

import keras

from ...backbone import Tensor
from ..network import NetworkBackbone
from .family import BAG, BagSettings


@keras.saving.register_keras_serializable(package="langzoo")
class BagBackbone(NetworkBackbone):
    """Embeddings of tokens, and of the n-grams that end in them, as they are.

    A classifier that takes their mean is fastText's: it learns in seconds, of little
    text what larger networks learn. There is no norm, so that a token that says nothing
    can have little weight.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `BagSettings`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, hidden_dim)`.

    Example:
    ```python
    model = build("bag", ByteTokenizer(), 64, task="text_classifier", of_task=labels)
    ```

    References:
        - [Joulin et al., 2016](https://arxiv.org/abs/1607.01759) (fastText)
        - [Iyyer et al., 2015](https://aclanthology.org/P15-1162/) (dropout of words)
    """

    family = BAG

    def make_layers(self, settings: BagSettings, dtype: Any) -> None:
        self.make_embeddings(settings, settings.hidden_dim, dtype)
        self.dropout_layer = keras.layers.Dropout(
            settings.dropout, dtype=dtype, name="embeddings_dropout"
        )

    def run_layers(self, token_ids: Tensor) -> Tensor:
        return self.dropout_layer(self.embed(token_ids))  # (B, T, D)
