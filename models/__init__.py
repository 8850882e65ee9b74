"""Language models and tokenizers: Keras, KerasHub and TensorFlow Text, nothing above.

The names below are imported when they are first used, so that importing the package
stays cheap. Taking any of them also registers every class of the zoo with Keras, which
`from_preset` needs to find them.
"""

from __future__ import annotations

import importlib

_EXPORTS = {
    "FAMILIES": "zoo",
    "DynamicEvaluation": "tasks.adaptation.settings",
    "NTASGD": "learning.optimizers",
    "NeuralCache": "tasks.adaptation.settings",
    "PRESETS": "families.presets",
    "RECIPES": "families",
    "Recipe": "learning.recipe",
    "SmoothedCrossEntropy": "learning.losses",
    "TriggerAveraging": "learning.optimizers",
    "build": "zoo",
    "build_causal_lm": "zoo",
    "CausalBackbone": "backbone",
    "EncoderDecoderBackbone": "encoder_decoder",
    "SeqToSeqLM": "tasks.seq_to_seq_lm",
    "SeqToSeqLMPreprocessor": "tasks.seq_to_seq_lm",
    "ConvolutionalEncoderDecoder": "families.convolutional_encoder_decoder.backbone",
    "RecurrentEncoderDecoder": "families.recurrent_encoder_decoder.backbone",
    "TransformerEncoderDecoder": "families.encoder_decoder.backbone",
    "attention_weights": "explanation.attribution",
    "attribute": "explanation.attribution",
    "CausalLM": "tasks.causal_lm",
    "CausalLMPreprocessor": "tasks.causal_lm",
    "TextClassifier": "tasks.text_classifier",
    "TextClassifierPreprocessor": "tasks.text_classifier",
    "TokenClassifier": "tasks.token_classifier",
    "TokenClassifierPreprocessor": "tasks.token_classifier",
    "MaskedLM": "tasks.masked_lm",
    "MaskedLMPreprocessor": "tasks.masked_lm",
    "BertBackbone": "families.bert.backbone",
    "TransformerBackbone": "families.transformer.backbone",
    "SimpleRNN": "families.recurrent.layers",
    "GRU": "families.recurrent.layers",
    "LSTM": "families.recurrent.layers",
    "SimpleRNNBackbone": "families.recurrent.backbone",
    "GRUBackbone": "families.recurrent.backbone",
    "LSTMBackbone": "families.recurrent.backbone",
    "SpeculativeSampler": "families.speculative",
    "StatefulNetwork": "tasks.stateful",
    "pages": "explanation",
    "surprisal": "explanation.attribution",
    "contiguous_windows": "tasks.stateful",
    "GatedConvBackbone": "families.convolutional.backbone",
    "TCNBackbone": "families.convolutional.backbone",
    "KerasHubCausalLM": "families.keras_hub.adapter",
    "KerasHubSeqToSeqLM": "families.keras_hub.seq_to_seq_lm",
    "preset_tokenizer": "tokenizers.keras_hub",
    "freeze": "learning.freezing",
    "from_hugging_face": "zoo",
    "from_keras_hub": "importing.keras_hub",
    "PackedNetwork": "tasks.packed",
    "in_precision": "learning.precision",
    "MixtureBackbone": "families.mixture.backbone",
    "MixtureCausalLM": "families.mixture.causal_lm",
    "NgramBackbone": "families.ngram.causal_lm",
    "NgramCausalLM": "families.ngram.causal_lm",
    "NgramTextClassifier": "families.ngram.text_classifier",
    "NgramTokenClassifier": "families.ngram.token_classifier",
    "BytePairTokenizer": "tokenizers.byte_pair",
    "ByteTokenizer": "tokenizers.byte",
    "SentencePieceTokenizer": "tokenizers.sentence_piece",
    "SpacedWordTokenizer": "tokenizers.words",
    "WordPieceTokenizer": "tokenizers.word_piece",
    "WordTokenizer": "tokenizers.words",
    "character_tokenizer": "tokenizers.sentence_piece",
    "load_tokenizer": "tokenizers.files",
    "train_sentencepiece": "tokenizers.sentence_piece",
    "train_word_piece": "tokenizers.word_piece",
    "word_tokenizer": "tokenizers.words",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module(".zoo", __name__)
    return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
