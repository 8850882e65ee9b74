"""What models share that say which token follows: the loss, scores, where to stop."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..backbone import Tensor


class NextToken:
    """What goes before a task of KerasHub's among the base classes of one of ours."""

    backbone: Any

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        weighted_metrics: Any = "auto",
        sampler: Any = "top_k",
        jit_compile: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configures training and generation, as KerasHub does, but without XLA.

        Args:
            optimizer: see `keras_hub.models.CausalLM.compile`.
            loss: see `keras.Model.compile`. Defaults to the mean cross-entropy of the
                real tokens, in nats; KerasHub counts padding as tokens without a loss.
            weighted_metrics: see `keras_hub.models.CausalLM.compile`.
            sampler: a name, or a `keras_hub.samplers.Sampler`. Defaults to `"top_k"`.
            jit_compile: bool. Whether XLA compiles training and generation. XLA
                compiles again for every new shape. Defaults to `False`.
            **kwargs: arguments of `keras.Model.compile`.
        """
        if isinstance(loss, str) and loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        super().compile(  # type: ignore[misc]
            optimizer=optimizer,
            loss=loss,
            weighted_metrics=weighted_metrics,
            sampler=sampler,
            jit_compile=jit_compile,
            **kwargs,
        )

    @property
    def context_length(self) -> int:
        """The longest input, in tokens, that the model is made for."""
        return self.backbone.max_sequence_length

    def token_log_probabilities(
        self, inputs: dict[str, Tensor], target_ids: Tensor
    ) -> Tensor:
        """What the model says of given tokens.

        A family overrides this where it need not compute all logits for it.

        Args:
            inputs: the inputs of the model.
            target_ids: integer tensor of shape `(batch_size, sequence_length)`, the
                token that follows each position.

        Returns:
            A float32 tensor of that shape: log-probabilities, in nats.
        """
        logits = self(inputs, training=False)  # type: ignore[operator]
        return log_softmax_of(logits, target_ids)


def log_softmax_of(logits: Tensor, target_ids: Tensor) -> Tensor:
    """The logarithm of the softmax of logits, at given tokens.

    Args:
        logits: float tensor of shape `(..., vocabulary_size)`.
        target_ids: integer tensor of shape `(...)`.

    Returns:
        A float32 tensor of shape `(...)`.
    """
    logits = ops.cast(logits, "float32")
    return -ops.sparse_categorical_crossentropy(target_ids, logits, from_logits=True)


def until_stop(
    token_ids: Tensor,
    prompt_mask: Tensor,
    stop_token_ids: list[int] | tuple[int, ...] | None,
) -> Tensor:
    """True up to and including the first stop token behind the prompt."""
    if stop_token_ids is None:
        return ops.ones_like(prompt_mask)
    is_stop = ops.any(
        ops.equal(token_ids[..., None], ops.convert_to_tensor(stop_token_ids)), axis=-1
    )
    stops = ops.cast(ops.logical_and(is_stop, ~prompt_mask), "int32")
    return ops.equal(ops.cumsum(stops, axis=-1) - stops, 0)
