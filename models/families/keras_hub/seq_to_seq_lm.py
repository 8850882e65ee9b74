"""KerasHub's models that read a source, where one of the zoo is expected.

In shapes: B sources of S tokens; N targets of M, N a multiple of B.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from ...backbone import Cache, Tensor, require
from ...encoder_decoder import Memory, pair_inputs
from ...tasks.seq_to_seq_lm import SeqToSeqLM, SeqToSeqLMPreprocessor
from ...tokenizers.keras_hub import preset_tokenizer
from .adapter import core_ops
from .around import Around, length_of, require_ids
from .presets import task_model

# What stands before a source and before a target, by names of a tokenizer's ids.
_FRAMES = {
    "BartSeq2SeqLM": (("start",), ("end", "start")),
    "T5Seq2SeqLM": ((), ("pad",)),
}


@keras.saving.register_keras_serializable(package="langzoo")
class KerasHubSeqToSeqLM(Around, SeqToSeqLM):
    """A KerasHub model as the export, the scoring and the training take it.

    It has the model's layers and weights, and what `langzoo.models.SeqToSeqLM` has
    besides. Sources and targets are framed as the model's authors do. A preset that it
    saves is the model's.

    Args:
        model: a `keras_hub.models.BartSeq2SeqLM` or `T5Seq2SeqLM`.
        tokenizer: a tokenizer of `langzoo.models` for the model's vocabulary.
        context_length: int or `None`. Longest source, and longest target, in tokens.
            Defaults to `None`, the `max_sequence_length` of the model's backbone.
        compile: bool. Whether to compile it as KerasHub does, with the sampler of the
            model. Defaults to `True`.
        **kwargs: `name`, by default the model's.

    Call arguments:
        inputs: as those of `langzoo.models.SeqToSeqLM`.

    Attributes:
        model: the model.

    Raises:
        ValueError: if the model is another, the tokenizer has more token ids than the
            model, or there is no context length, or one that is longer than the model's
            positions.
    """

    backbone_cls = None  # Its presets are KerasHub's.

    def __init__(
        self,
        model: keras_hub.models.Seq2SeqLM,
        tokenizer: Any,
        context_length: int | None = None,
        compile: bool = True,
        **kwargs: Any,
    ) -> None:
        name = type(model).__name__
        require(
            name in _FRAMES,
            f"The model must be one of {sorted(_FRAMES)}.",
            model=name,
        )
        length = length_of(model, context_length)
        require_ids(model, tokenizer)
        # === Layers ===
        source, target = (
            [int(getattr(tokenizer, f"{token}_token_id")) for token in tokens]
            for tokens in _FRAMES[name]
        )
        self.backbone = model.backbone
        self.preprocessor = SeqToSeqLMPreprocessor(
            *(tokenizer, length, length),
            source_start_ids=source,
            target_start_ids=target,
        )
        if model.preprocessor is None:
            model.preprocessor = self.preprocessor

        # === Functional Model ===
        inputs = pair_inputs()
        outputs = ops.cast(model(_whole(inputs)), "float32")
        keras_hub.models.Seq2SeqLM.__init__(
            self,
            inputs=inputs,
            outputs=outputs,
            compile=False,
            **{"name": model.name, **kwargs},
        )
        self._keep(model, tokenizer, length)
        if compile:
            self.compile(sampler=getattr(model, "sampler", "top_k"))

    @property
    def source_context_length(self) -> int:
        """The longest source, in tokens, that the model is made for."""
        return self._length

    @classmethod
    def from_preset(
        cls,
        preset: str,
        load_weights: bool = True,
        context_length: int | None = None,
        **kwargs: Any,
    ) -> KerasHubSeqToSeqLM:
        """A model of KerasHub's preset, with the tokenizer of the preset.

        Args:
            preset: a folder, or a name or handle that KerasHub's `from_preset` knows.
            load_weights: bool. Whether to load the weights. Defaults to `True`.
            context_length: int or `None`. As of the class.
            **kwargs: arguments of `keras_hub.models.Seq2SeqLM.from_preset`.
        """
        model = keras_hub.models.Seq2SeqLM.from_preset(
            preset, load_weights=load_weights, preprocessor=None, **kwargs
        )
        return cls(model, preset_tokenizer(preset), context_length)

    def encode(self, token_ids: Tensor, padding_mask: Tensor) -> Memory:
        """See `SeqToSeqLM.encode`.

        Returns:
            The encoder's states `(B, S, hidden_dim)`, int32 `(B, S)`, 0 where there is
            padding, and the keys and values of all layers,
            `(B, num_layers, 2, S, num_heads, head_dim)`.
        """
        mask = ops.cast(padding_mask, "int32")
        first = token_ids[:, :1]
        with core_ops():
            states = self.model.call_encoder(token_ids, mask)
            own, cross = self.model._initialize_cache(token_ids, first)
            # KerasHub computes the latter on the way through the decoder only.
            *_, cross = self.model.call_decoder_with_cache(
                *(states, mask, first, own, 0, cross, 0)
            )
        return states, mask, cross

    def prefill(self, token_ids: Tensor, length: Tensor, memory: Memory) -> Cache:
        """See `SeqToSeqLM.prefill`.

        The cache covers columns from `length` on as well; each is written again before
        any position sees it.
        """
        own, _ = self.model._initialize_cache(token_ids, token_ids)
        return self._call(token_ids, own, 0, memory)[2]

    def call_with_cache(
        self,
        token_ids: Tensor,
        cache: Cache,
        cache_update_index: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Tensor, Cache]:
        """See `SeqToSeqLM.call_with_cache`."""
        return self._call(token_ids, cache, cache_update_index, memory)

    def _call(
        self, token_ids: Tensor, cache: Cache, index: Tensor | int, memory: Memory
    ) -> tuple[Tensor, Tensor, Cache]:
        # KerasHub's layers want a source for each target.
        each = tf.shape(token_ids)[0] // tf.maximum(tf.shape(memory[0])[0], 1)
        states, mask, cross = (tf.repeat(part, each, axis=0) for part in memory)
        with core_ops():
            logits, hidden_states, cache, _ = self.model.call_decoder_with_cache(
                *(states, mask, token_ids, cache, index, cross, None)
            )
        return ops.cast(logits, "float32"), hidden_states, cache


def build_seq_to_seq_lm(
    preset: str,
    tokenizer: Any,
    context_length: int | None = None,
    pretrained: bool = False,
) -> KerasHubSeqToSeqLM:
    """A model of KerasHub that reads a source, as `build_from_preset` makes others.

    Args:
        preset: as there; likewise `tokenizer`, `context_length` and `pretrained`.

    Raises:
        ValueError: as there.
    """
    model = task_model(
        keras_hub.models.Seq2SeqLM,
        "sequence-to-sequence",
        preset,
        tokenizer,
        context_length,
        pretrained,
    )
    return KerasHubSeqToSeqLM(model, tokenizer, context_length)


def _whole(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs as the model has them."""
    return {
        name: ops.cast(tensor, "int32") if name.endswith("mask") else tensor
        for name, tensor in inputs.items()
    }
