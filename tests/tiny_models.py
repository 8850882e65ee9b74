"""Tiny models: the sizes that all tests build families with."""

from __future__ import annotations

from typing import Any

from langzoo.models.families import FAMILIES
from langzoo.models.families.transformer.family import ARCHITECTURES

_STACK = {"num_layers": 2, "hidden_dim": 16}

TINY: dict[str, dict[str, Any]] = {
    "transformer": {**_STACK, "num_heads": 2},
    "rnn": _STACK,
    "gru": _STACK,
    "lstm": _STACK,
    "gated_conv": {**_STACK, "kernel_size": 3},
    "tcn": {**_STACK, "kernel_size": 3},
    "ngram": {"order": 4},
    "mixture": {
        "members": FAMILIES["mixture"]
        .settings_of(
            members=[
                {"family": "gated_conv", **_STACK, "kernel_size": 3},
                {"family": "ngram", "order": 4},
            ]
        )
        .members
    },
}
"""Hyperparameters of each family of the zoo."""

GRADIENTS = [family for family in TINY if FAMILIES[family].learns_by_gradient]
"""Those that learn by gradient."""

_OPTIONS = {"ngram_embeddings": 3, "ngram_buckets": 64, "logit_softcap": 10.0}

KINDS = ["tcn", "transformer", "lstm", "ngram"]
"""A family of each kind, for what is written once; the others are behind them."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, TINY[family]) for family in [*KINDS, *TINY]},
    "awd_lstm": (
        "lstm",
        {
            "num_layers": 2,
            "hidden_dim": 24,
            "embedding_dim": 16,
            "recurrent_dropout": 0.1,
            "weight_dropout": 0.2,
            "variational_dropout": True,
        },
    ),
    "plain_gru": (
        "gru",
        {"hidden_dim": 16, "normalize": False, "tie_embeddings": False, **_OPTIONS},
    ),
    "gated_conv_bottleneck": (
        "gated_conv",
        {
            **TINY["gated_conv"],
            **_OPTIONS,
            "bottleneck_dim": 8,
            "residual_scales": True,
        },
    ),
    "tcn_filters": ("tcn", {**TINY["tcn"], "filters": 20}),
    "gpt2": ("transformer", {**TINY["transformer"], **ARCHITECTURES["gpt2"]}),
    "llama": (
        "transformer",
        {
            **TINY["transformer"],
            **ARCHITECTURES["llama"],
            "num_heads": 4,
            "num_key_value_heads": 2,
        },
    ),
    "mixture_of_networks": (
        "mixture",
        {
            "members": [
                {"family": family, **_STACK} for family in ("lstm", "gru", "rnn")
            ]
        },
    ),
    "transformer_sinusoidal": (
        "transformer",
        {**TINY["transformer"], "positions": "sinusoidal", "activation": "gelu"},
    ),
    "transformer_options": (
        "transformer",
        {
            **TINY["transformer"],
            **_OPTIONS,
            "num_heads": 4,
            "num_key_value_heads": 2,
            "qk_norm": True,
            "residual_scales": True,
            "value_embeddings": 1,
        },
    ),
}
"""Families and hyperparameters, with what they have of options."""


def tiny(family: str, **others: Any) -> dict[str, Any]:
    """Hyperparameters of a family, with others in place of the table's."""
    return {**TINY[family], **others}


def narrow(family: str, **others: Any) -> dict[str, Any]:
    """The same, half as wide, for weights that are drawn and not learned."""
    width = {"hidden_dim": 8} if family in GRADIENTS else {}
    return tiny(family, **width, **others)
