"""A language model of targets alone, than which one that reads must be better.

In shapes: B sources of S tokens; N targets of T; V `vocabulary_size`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ...backbone import Cache, Tensor
from ...encoder_decoder import TARGET, Memory, pair_inputs
from ...tasks.seq_to_seq_lm import SeqToSeqLM, SeqToSeqLMPreprocessor
from .causal_lm import Counts, NgramBackbone


@keras.saving.register_keras_serializable(package="langzoo")
class NgramTargetBackbone(NgramBackbone):
    """An `NgramBackbone` of targets.

    A class of its own, for KerasHub's `CausalLM` counts those that read a source, too,
    and finds a preset's task by the class of its backbone.
    """


@keras.saving.register_keras_serializable(package="langzoo")
class NgramSeqToSeqLM(Counts, SeqToSeqLM):
    """Writes targets by their n-grams, whatever the source.

    It is a `SeqToSeqLM` like any other, but `fit` goes over the targets once, and
    counts, as that of a `NgramCausalLM`: no other model is worth its cost that is no
    better.

    Args:
        backbone: an `NgramTargetBackbone`.
        preprocessor: a `SeqToSeqLMPreprocessor`, or `None` if inputs are always token
            ids. Defaults to `None`.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: as those of `SeqToSeqLM`. The logits are log-probabilities.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = NgramSeqToSeqLM(
        backbone=NgramTargetBackbone(tokenizer.vocabulary_size(), order=4),
        preprocessor=SeqToSeqLMPreprocessor(tokenizer, 64, 64),
    )
    model.fit(["ein Hund", "eine Katze"])
    model.score("a dog", "ein Hund")
    ```
    """

    backbone_cls = NgramTargetBackbone
    preprocessor_cls = SeqToSeqLMPreprocessor

    def __init__(
        self,
        backbone: NgramTargetBackbone,
        preprocessor: SeqToSeqLMPreprocessor | None = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor

        # === Functional Model ===
        inputs = pair_inputs()
        outputs = backbone(of_target(inputs))  # (B, T, V)
        super(SeqToSeqLM, self).__init__(inputs=inputs, outputs=outputs, **kwargs)

    @property
    def source_context_length(self) -> int:
        """As long a source as a target; it is not read."""
        return self.context_length

    def encode(self, token_ids: Tensor, padding_mask: Tensor) -> Memory:
        """See `SeqToSeqLM.encode`; there is nothing to remember."""
        return ()

    def prefill(self, token_ids: Tensor, length: Tensor, memory: Memory) -> Cache:
        """See `SeqToSeqLM.prefill`."""
        return self.backbone.prefill(token_ids, length)

    def call_with_cache(
        self,
        token_ids: Tensor,
        cache: Cache,
        cache_update_index: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Tensor, Cache]:
        """See `SeqToSeqLM.call_with_cache`."""
        states, cache = self.backbone.call_with_cache(
            token_ids, cache, cache_update_index
        )
        return self.backbone.logits(states), states, cache

    def token_log_probabilities(
        self, inputs: dict[str, Tensor], target_ids: Tensor
    ) -> Tensor:
        """What the logits say of given tokens, at a cost without the vocabulary.

        Args:
            inputs: the inputs of the model.
            target_ids: integer tensor of shape `(N, T)`.

        Returns:
            A float32 tensor of that shape, in nats.
        """
        token_ids = tf.convert_to_tensor(inputs[f"{TARGET}_token_ids"])
        target_ids = tf.convert_to_tensor(target_ids)
        log_probabilities = self.backbone.token_log_probabilities(token_ids, target_ids)
        return ops.cast(log_probabilities, "float32")

    def hidden_states(self, inputs: dict[str, Tensor]) -> Tensor:
        """See `SeqToSeqLM.hidden_states`."""
        return self.backbone(of_target(inputs))


def of_target(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of a model of the targets alone, of those of one of pairs."""
    names = ("token_ids", "padding_mask")
    return {name: inputs[f"{TARGET}_{name}"] for name in names}
