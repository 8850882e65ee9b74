"""What the configuration of a Hugging Face BERT says, as hyperparameters of `bert`.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .family import ARCHITECTURES

_SIZES = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "max_position_embeddings": "context_length",
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_approximate",
    "gelu_pytorch_tanh": "gelu_approximate",
}
# What the encoder has no other options for, with what it is where nothing is said.
_ALWAYS: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "pruned_heads": {},
    "quantization_config": None,
}


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of the same model, and its `context_length`.

    Args:
        config: `config.json`, of `model_type` `bert`.

    Raises:
        ValueError: in one line that names the key, if the model is another.
    """
    for key, value in _ALWAYS.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key} must be {value!r}, not {config[key]!r}")
    for key in ("vocab_size", *_SIZES):
        if type(config.get(key)) is not int or config[key] < 1:
            raise ValueError(f"{key} must be a positive number, not {config.get(key)}")
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"hidden_act must be one of {known}, not {activation!r}")
    dropout = config.get("hidden_dropout_prob", 0.1)
    return {
        **ARCHITECTURES["bert"],
        **{ours: config[theirs] for theirs, ours in _SIZES.items()},
        "activation": _ACTIVATIONS[activation],
        "norm_epsilon": float(config.get("layer_norm_eps", 1e-12)),
        "initializer_range": float(config.get("initializer_range", 0.02)),
        "dropout": dropout,
        "attention_dropout": config.get("attention_probs_dropout_prob", dropout),
    }
