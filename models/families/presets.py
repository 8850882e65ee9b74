"""Named architectures: families with their hyperparameters, and how large they are.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .sizes import Size, size

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "activation": "gelu_approximate",
        "positions": "learned",
        "normalization": "layer_norm",
        "norm_epsilon": 1e-5,
        "use_bias": True,
        "tie_embeddings": True,
    },
    "llama": {
        "activation": "swiglu",
        "positions": "rotary",
        "normalization": "rms_norm",
        "norm_epsilon": 1e-5,
        "use_bias": False,
        "tie_embeddings": False,
    },
}
"""What makes a `TransformerBackbone` GPT-2 or Llama, whatever its sizes.

References:
    - [Radford et al., 2019](https://github.com/openai/gpt-2/blob/master/src/model.py)
    - [Touvron et al., 2023](https://arxiv.org/abs/2307.09288) (Llama 2)
"""

KERAS_HUB = "keras_hub"
"""The family of KerasHub's models; its presets are KerasHub's, not those below."""

BACKBONES = {
    "TransformerBackbone": "transformer",
    "SimpleRNNBackbone": "rnn",
    "GRUBackbone": "gru",
    "LSTMBackbone": "lstm",
    "GatedConvBackbone": "gated_conv",
    "TCNBackbone": "tcn",
    "NgramBackbone": "ngram",
}
"""The family of each backbone class, as `zoo.FAMILIES` the other way round."""

_BYTES = 260  # tokens of the byte tokenizer
# What a saved backbone's configuration holds besides hyperparameters.
_NO_HYPERPARAMETERS = {"name", "trainable", "dtype", "vocabulary_size"}


class Preset(NamedTuple):
    """A family with its hyperparameters.

    Attributes:
        family: a name of `zoo.FAMILIES`.
        context_length: int. Longest input, in tokens, unless another is given.
        vocabulary_size: int. Token ids that `size` is for; a model that is built has
            those of its tokenizer.
        hyperparameters: arguments of the family's backbone, in place of its defaults.
        source: where the sizes come from, if from elsewhere.
    """

    family: str
    context_length: int
    vocabulary_size: int
    hyperparameters: Mapping[str, Any]
    source: str = ""

    @property
    def size(self) -> Size | None:
        """Weights and floating-point operations a token; `None` for n-grams."""
        return size(
            self.family,
            self.vocabulary_size,
            self.context_length,
            self.hyperparameters,
        )


def _tiny(family: str) -> Preset:
    """The defaults of a family: the recipe for small texts."""
    return Preset(family, 128, _BYTES, {})


def _gpt2(
    num_layers: int,
    num_heads: int,
    hidden_dim: int,
    context_length: int = 1024,
    vocabulary_size: int = 50257,
    source: str = "Radford et al., 2019",
) -> Preset:
    sizes = {
        "num_layers": num_layers,
        "num_heads": num_heads,
        "hidden_dim": hidden_dim,
        "intermediate_dim": 4 * hidden_dim,
    }
    hyperparameters = {**sizes, **ARCHITECTURES["gpt2"]}
    return Preset(
        "transformer", context_length, vocabulary_size, hyperparameters, source
    )


def _llama(
    context_length: int, vocabulary_size: int, source: str = "", **sizes: Any
) -> Preset:
    hyperparameters = {**ARCHITECTURES["llama"], **sizes}
    return Preset(
        "transformer", context_length, vocabulary_size, hyperparameters, source
    )


PRESETS: dict[str, Preset] = {
    # === n-gram ===
    "ngram_base": Preset("ngram", 128, 8192, {"order": 5}),
    # === Recurrent ===
    "rnn_tiny": _tiny("rnn"),
    "gru_tiny": _tiny("gru"),
    "gru_small": Preset("gru", 35, 10_000, {"num_layers": 2, "hidden_dim": 650}),
    "lstm_tiny": _tiny("lstm"),
    "lstm_small": Preset(
        "lstm",
        35,
        10_000,
        {"num_layers": 2, "hidden_dim": 650},
        "Zaremba et al., 2014, medium",
    ),
    "lstm_base": Preset(
        "lstm",
        70,
        32_000,
        {"num_layers": 3, "hidden_dim": 1152, "embedding_dim": 400},
        "Merity et al., 2017",
    ),
    # === Convolutional ===
    "gated_conv_tiny": _tiny("gated_conv"),
    "gated_conv_small": Preset(
        "gated_conv", 256, 8192, {"num_layers": 8, "hidden_dim": 384}
    ),
    "gated_conv_base": Preset(
        "gated_conv",
        512,
        32_000,
        {"num_layers": 8, "hidden_dim": 900, "kernel_size": 4},
        "Dauphin et al., 2017, GCNN-8",
    ),
    "tcn_tiny": _tiny("tcn"),
    "tcn_small": Preset(
        "tcn", 256, 8192, {"num_layers": 6, "hidden_dim": 384, "kernel_size": 3}
    ),
    "tcn_base": Preset(
        "tcn",
        80,
        10_000,
        {"num_layers": 4, "hidden_dim": 600, "kernel_size": 3},
        "Bai et al., 2018, Penn Treebank",
    ),
    # === Transformer ===
    "transformer_tiny": _tiny("transformer"),
    "transformer_small": Preset(
        "transformer", 256, 8192, {"num_layers": 6, "num_heads": 6, "hidden_dim": 384}
    ),
    "transformer_base": Preset(
        "transformer",
        1024,
        32_000,
        {"num_layers": 12, "num_heads": 12, "hidden_dim": 768},
    ),
    "gpt2_tiny": _gpt2(4, 4, 128, 128, _BYTES, source=""),
    "gpt2_base": _gpt2(12, 12, 768),
    "gpt2_medium": _gpt2(24, 16, 1024),
    "gpt2_large": _gpt2(36, 20, 1280),
    "gpt2_extra_large": _gpt2(48, 25, 1600),
    "llama_tiny": _llama(
        128, _BYTES, num_layers=4, num_heads=4, num_key_value_heads=2, hidden_dim=128
    ),
    "llama_small": _llama(
        256, 8192, num_layers=6, num_heads=6, num_key_value_heads=2, hidden_dim=384
    ),
    "tinyllama_1b": _llama(
        2048,
        32_000,
        "Zhang et al., 2024",
        num_layers=22,
        num_heads=32,
        num_key_value_heads=4,
        hidden_dim=2048,
        intermediate_dim=5632,
    ),
    "llama2_7b": _llama(
        4096,
        32_000,
        "Touvron et al., 2023",
        num_layers=32,
        num_heads=32,
        hidden_dim=4096,
        intermediate_dim=11_008,
    ),
    "llama3_8b": _llama(
        8192,
        128_256,
        "Grattafiori et al., 2024",
        num_layers=32,
        num_heads=32,
        num_key_value_heads=8,
        hidden_dim=4096,
        intermediate_dim=14_336,
        rope_base=500_000.0,
    ),
}
"""The presets by name; `zoo.build_causal_lm` and the configuration know them."""


def resolved(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration with `preset` replaced by what it stands for.

    Args:
        model: `family`, or `preset`, with `context_length` and hyperparameters. What
            is given beside a preset goes before what the preset says. Or
            `initial_weights`, a folder: see `saved_model`.

    Returns:
        `family`, `context_length` (if given, or from a preset) and hyperparameters;
        `initial_weights`, where it is given, as the folder of the preset itself.

    Raises:
        ValueError: if there is no such preset, or what stands beside it contradicts.
    """
    given = dict(model)
    if isinstance(given.get("initial_weights"), str):
        saved = saved_model(given["initial_weights"])
        if given.get("family", saved["family"]) != saved["family"]:
            raise ValueError(
                f"initial_weights {given['initial_weights']!r} are those of a model of "
                f"family {saved['family']!r}, not {given['family']!r}"
            )
        del given["initial_weights"]
        return {**saved, **given}
    if "preset" not in given or given.get("family") == KERAS_HUB:
        return given
    name = given.pop("preset")
    if "family" in given:
        raise ValueError(f"give either family {given['family']!r} or preset {name!r}")
    if name not in PRESETS:
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        known = f"did you mean {close[0]}?" if close else f"known: {', '.join(PRESETS)}"
        raise ValueError(f"there is no preset {name!r}: {known}")
    preset = PRESETS[name]
    return {
        "family": preset.family,
        "context_length": preset.context_length,
        **preset.hyperparameters,
        **given,
    }


def saved_model(folder: str) -> dict[str, Any]:
    """The configuration of a model of the zoo that was saved as a preset.

    Args:
        folder: of the preset; or of a pipeline's runs, which stands for the model that
            was trained last.

    Returns:
        `family`, `context_length`, hyperparameters, and `initial_weights`: the folder
        of the preset.

    Raises:
        ValueError: if there is no model that training could go on with.
    """
    preset = _preset_folder(Path(folder).expanduser())
    try:
        saved = json.loads((preset / "config.json").read_text(encoding="utf-8"))
        family, config = BACKBONES.get(saved["class_name"]), dict(saved["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"initial_weights {folder!r} is neither the folder of a preset nor of a "
            f"pipeline that has trained: {error}"
        ) from error
    if family is None or family == "ngram":
        raise ValueError(
            f"initial_weights {folder!r} must be of a family of the zoo that learns by "
            f"gradient, not {saved['class_name']} (KerasHub's: family {KERAS_HUB} with "
            "preset and pretrained)"
        )
    context_length = config.pop("max_sequence_length")
    hyperparameters = {
        name: value for name, value in config.items() if name not in _NO_HYPERPARAMETERS
    }
    return {
        "family": family,
        "context_length": context_length,
        **hyperparameters,
        "initial_weights": str(preset),
    }


def _preset_folder(folder: Path) -> Path:
    """The folder itself, or the newest preset in that of a pipeline."""
    presets = folder.glob("artifacts/Trainer/model_run/*/preset")
    numbered = [path for path in presets if path.parent.name.isdigit()]
    return max(numbered, key=lambda path: int(path.parent.name), default=folder)
