"""KerasHub's GPT-2, Llama, BERT and BART models as models of the zoo, with weights."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import numpy as np

from ..backbone import require
from ..families.bert.backbone import BertBackbone
from ..families.bert.family import ARCHITECTURES as BERT_ARCHITECTURES
from ..families.encoder_decoder.backbone import TransformerEncoderDecoder
from ..families.encoder_decoder.family import ARCHITECTURES as PAIR_ARCHITECTURES
from ..families.transformer.backbone import TransformerBackbone
from ..families.transformer.block import DecoderBlock
from ..families.transformer.family import ARCHITECTURES
from ..tasks.causal_lm import CausalLM
from ..tasks.masked_lm import MaskedLM
from ..tasks.seq_to_seq_lm import SeqToSeqLM

_LLAMA_CONTEXT_LENGTH = 4096  # of Llama 2
# Of its BERT for masked words, whatever the backbone's.
_HEAD: dict[str, Any] = {"head_activation": "gelu", "head_norm_epsilon": 1e-5}


def from_keras_hub(
    model: keras_hub.models.Task,
    preprocessor: Any = None,
    context_length: int | None = None,
) -> CausalLM | MaskedLM | SeqToSeqLM:
    """A model of the zoo with the architecture and the weights of one of KerasHub's.

    Args:
        model: a `GPT2CausalLM`, `LlamaCausalLM`, `BertMaskedLM` or `BartSeq2SeqLM`.
        preprocessor: one for its task and vocabulary. Defaults to `None`.
        context_length: int or `None`. Longest input, in tokens, of a Llama; others' is
            the number of their positions. Defaults to `None`, which is 4096.

    Returns:
        A model of the task that gives the same logits; BERT's of texts of one segment.

    Raises:
        ValueError: if the architecture is another, or its rotary positions are
            rescaled, as in Llama 3.1 and later.

    Example:
    ```python
    theirs = keras_hub.models.GPT2CausalLM.from_preset("gpt2_base_en")
    ours = from_keras_hub(theirs)
    ```
    """
    name = type(model.backbone).__name__
    if name == "BartBackbone":
        return _of_bart(model.backbone, preprocessor)
    require(
        name in _CONVERTERS,
        f"The backbone must be one of {sorted([*_CONVERTERS, 'BartBackbone'])}.",
        backbone=name,
    )
    theirs = model.backbone
    length = {"max_sequence_length": context_length or _LLAMA_CONTEXT_LENGTH}
    kind: Any = BertBackbone if name == "BertBackbone" else TransformerBackbone
    ours = kind(
        vocabulary_size=theirs.vocabulary_size,
        num_layers=theirs.num_layers,
        hidden_dim=theirs.hidden_dim,
        intermediate_dim=theirs.intermediate_dim,
        dtype=theirs.dtype_policy,
        **{**length, **_CONVERTERS[name](theirs), "dropout": theirs.dropout},
    )
    _copy(theirs.token_embedding, ours.token_embedding)
    if ours.position_embedding is not None:
        _copy(theirs.position_embedding, ours.position_embedding)
    for layer, block in zip(theirs.transformer_layers, ours.blocks, strict=True):
        _copy_block(layer, block)
    if kind is TransformerBackbone:
        _copy(theirs.layer_norm, ours.final_norm)
        return CausalLM(ours, preprocessor)
    # The first segment is everywhere.
    segment = theirs.segment_embedding.get_weights()[0][0]
    ours.position_embedding.position_embeddings.assign_add(segment[None])
    _copy(theirs.embeddings_layer_norm, ours.embeddings_norm)
    masked = MaskedLM(ours, preprocessor, **_HEAD)
    _copy(model.masked_lm_head, masked.masked_lm_head)
    return masked


def _gpt2(backbone: Any) -> dict[str, Any]:
    return {
        **ARCHITECTURES["gpt2"],
        "num_heads": backbone.num_heads,
        "max_sequence_length": backbone.max_sequence_length,
    }


def _llama(backbone: Any) -> dict[str, Any]:
    require(
        backbone.rope_position_scaling_factor == 1
        and backbone.rope_frequency_adjustment_factor is None,
        "Rotary positions must not be rescaled.",
        rope_position_scaling_factor=backbone.rope_position_scaling_factor,
        rope_frequency_adjustment_factor=backbone.rope_frequency_adjustment_factor,
    )
    return {
        **ARCHITECTURES["llama"],
        "num_heads": backbone.num_query_heads,
        "num_key_value_heads": backbone.num_key_value_heads,
        "rope_base": float(backbone.rope_max_wavelength),
        "norm_epsilon": backbone.layer_norm_epsilon,
        "tie_embeddings": backbone.tie_word_embeddings,
    }


def _bert(backbone: Any) -> dict[str, Any]:
    return {
        **BERT_ARCHITECTURES["bert"],
        "activation": "gelu_approximate",
        "num_heads": backbone.num_heads,
        "max_sequence_length": backbone.max_sequence_length,
    }


_CONVERTERS = {"GPT2Backbone": _gpt2, "LlamaBackbone": _llama, "BertBackbone": _bert}


def _of_bart(theirs: Any, preprocessor: Any) -> SeqToSeqLM:
    ours = TransformerEncoderDecoder(
        vocabulary_size=theirs.vocabulary_size,
        num_layers=theirs.num_layers,
        num_heads=theirs.num_heads,
        hidden_dim=theirs.hidden_dim,
        intermediate_dim=theirs.intermediate_dim,
        max_sequence_length=theirs.max_sequence_length,
        dtype=theirs.dtype_policy,
        **{**PAIR_ARCHITECTURES["bart"], "dropout": theirs.dropout},
    )
    _copy(theirs.token_embedding, ours.token_embedding)
    for side in ("encoder", "decoder"):
        own = getattr(ours, side)
        _copy(getattr(theirs, f"{side}_position_embedding"), own.places.embedding)
        _copy(getattr(theirs, f"{side}_embeddings_layer_norm"), own.embeddings_norm)
        layers = getattr(theirs, f"{side}_transformer_layers")
        for layer, block in zip(layers, own.blocks, strict=True):
            _copy_block(layer, block)
    layers = zip(theirs.decoder_transformer_layers, ours.decoder.blocks, strict=True)
    for layer, block in layers:
        attention, own = layer._cross_attention_layer, block.cross_attention
        _join([attention._query_dense], own.query)
        _join([attention._key_dense, attention._value_dense], own.key_value)
        _join([attention._output_dense], own.attention_output)
        _copy(layer._cross_attention_layer_norm, block.cross_norm)
    return SeqToSeqLM(ours, preprocessor)


def _copy_block(theirs: Any, ours: DecoderBlock) -> None:
    attention = theirs._self_attention_layer
    gate = getattr(theirs, "_feedforward_gate_dense", None)
    gates = [] if gate is None else [gate]
    norm = "layer_norm" if hasattr(theirs, "_feedforward_layer_norm") else "layernorm"
    _copy(getattr(theirs, f"_self_attention_{norm}"), ours.attention_norm)
    _join(
        [attention._query_dense, attention._key_dense, attention._value_dense],
        ours.attention.query_key_value,
    )
    _join([attention._output_dense], ours.attention.attention_output)
    _copy(getattr(theirs, f"_feedforward_{norm}"), ours.feedforward_norm)
    _join(
        [*gates, theirs._feedforward_intermediate_dense],
        ours.feedforward.intermediate,
    )
    _copy(theirs._feedforward_output_dense, ours.feedforward.feedforward_output)


def _copy(theirs: Any, ours: keras.layers.Layer) -> None:
    ours.set_weights(theirs.get_weights())


def _join(theirs: list[Any], ours: keras.layers.Layer) -> None:
    """Puts dense layers with the same input beside each other, as one."""
    rows = ours.kernel.shape[0]
    kernels = [np.reshape(layer.kernel, (rows, -1)) for layer in theirs]
    ours.kernel.assign(np.concatenate(kernels, axis=-1))
    if ours.bias is not None:
        biases = [np.reshape(layer.bias, -1) for layer in theirs]
        ours.bias.assign(np.concatenate(biases))
