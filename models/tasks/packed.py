"""Training on rows that hold several documents, each of them kept to itself.

A backbone can be trained so if it has a method

    call_packed(token_ids, positions, training=None)

that returns the hidden states `(batch_size, sequence_length, hidden_dim)` of int32
tokens `(batch_size, sequence_length)`, given each one's `positions` of that shape: its
distance from the beginning of its document. They are as if every document were alone in
its row.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ..backbone import CausalBackbone, Tensor, require


class PackedNetwork(keras.Model):
    """A language model that sees nothing of the other documents in a row.

    A document begins wherever `<s>` stands; what comes before the first is one, too.
    Attention, filters and states do not reach over that, and positions begin anew. The
    weights are the backbone's, so training this network trains every model with that
    backbone, and costs what training on single documents of that length does.

    Args:
        backbone: a `CausalBackbone` of the zoo.
        start_token_id: int. The id of `<s>`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and, not read, `padding_mask` (bool),
            both `(batch_size, sequence_length)`. The output is float32 logits
            `(batch_size, sequence_length, vocabulary_size)`.
        training: bool. Whether to drop out.

    Raises:
        ValueError: if the backbone has no `call_packed()`.

    Example:
    ```python
    network = PackedNetwork(model.backbone, start_token_id=2)
    token_ids = np.array([[2, 104, 105, 2, 105]])
    logits = network({"token_ids": token_ids, "padding_mask": token_ids > 0})
    ```

    References:
        - [Krell et al., 2021](https://arxiv.org/abs/2107.02027) (packing without
          contamination between sequences)
    """

    def __init__(
        self, backbone: CausalBackbone, start_token_id: int, **kwargs: Any
    ) -> None:
        require(
            hasattr(backbone, "call_packed"),
            "`backbone` must be able to keep documents of a row apart.",
            backbone=type(backbone).__name__,
        )
        super().__init__(dtype=backbone.dtype_policy, **kwargs)
        self.backbone = backbone
        self.start_token_id = start_token_id
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        token_ids = inputs["token_ids"]  # (B, T)
        positions = document_positions(token_ids, self.start_token_id)  # (B, T)
        # (B, T, D)
        hidden_states = self.backbone.call_packed(token_ids, positions, training)
        return self.backbone.logits(hidden_states)  # (B, T, V)


def document_positions(token_ids: Tensor, start_token_id: int) -> Tensor:
    """Each token's distance from the beginning of its document.

    Args:
        token_ids: integer tensor of shape `(batch_size, sequence_length)`.
        start_token_id: int. The token with which a document begins.

    Returns:
        An int32 tensor of that shape: 0 where a document, or the row, begins.

    Example:
    ```python
    positions = document_positions(np.array([[7, 7, 2, 7, 2, 2]]), 2)
    assert positions.numpy().tolist() == [[0, 1, 0, 1, 0, 0]]
    ```
    """
    rows, length = tf.shape(token_ids)[0], tf.shape(token_ids)[1]
    places = tf.broadcast_to(tf.range(length), tf.shape(token_ids))  # (B, T)
    begins = tf.cast(tf.equal(token_ids, start_token_id), tf.int32)  # (B, T)
    # Numbered from 0 to T in each row.
    documents = tf.cumsum(begins, axis=1) + tf.range(rows)[:, None] * (length + 1)
    # (B * (T + 1),)
    first_places = tf.math.unsorted_segment_min(places, documents, rows * (length + 1))
    return places - tf.gather(first_places, documents)  # (B, T)
