"""The hidden states of any backbone, of the zoo or of KerasHub."""

from __future__ import annotations

from typing import Any

import keras_hub
from keras import ops

from ..backbone import Tensor, require


def hidden_states(
    backbone: keras_hub.models.Backbone, inputs: Any, training: bool | None = None
) -> Tensor:
    """The hidden states of any backbone: `(batch_size, sequence_length, hidden_dim)`.

    Args:
        backbone: one of the zoo, or of KerasHub: of those that also ask for the segment
            of each token all are of the first; of those that have several outputs, the
            sequence's is meant.
        inputs: dictionary of `token_ids` and `padding_mask`.
        training: whether to drop out.

    Raises:
        ValueError: if the backbone reads other things than text.
    """
    return of_sequence(backbone(text_inputs(backbone, inputs), training=training))


def hidden_dim(backbone: keras_hub.models.Backbone) -> int:
    """The width of a backbone's hidden states."""
    return int(of_sequence(backbone.output).shape[-1])


def text_inputs(backbone: keras_hub.models.Backbone, inputs: Any) -> dict[str, Tensor]:
    """What a backbone reads of `token_ids` and `padding_mask`, see `hidden_states`.

    Raises:
        ValueError: as of `hidden_states`.
    """
    known = {**inputs, "segment_ids": ops.zeros_like(inputs["token_ids"])}
    asked = set(backbone.input)
    require(
        asked <= known.keys(),
        f"`{type(backbone).__name__}` must read text only.",
        inputs=sorted(asked),
    )
    return {name: known[name] for name in sorted(asked)}


def of_sequence(outputs: Any) -> Any:
    """The outputs of a backbone that are of its tokens."""
    return outputs["sequence_output"] if isinstance(outputs, dict) else outputs
