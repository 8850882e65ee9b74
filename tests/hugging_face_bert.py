"""BERT as its paper and Hugging Face's weights have it, in NumPy, and tiny folders."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from scipy import special

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
}
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIALS, *"abcdefghijklm", *(f"##{letter}" for letter in "abcdefghijklm")]
HEAD = "cls.predictions"

Tensors = Mapping[str, np.ndarray]


def tensors(config: Mapping[str, Any] = CONFIG, seed: int = 0) -> dict[str, np.ndarray]:
    """Drawn weights of a BertForMaskedLM, all far from zero."""
    draw = np.random.default_rng(seed)
    dim, width = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "pooler.dense.weight": (dim, dim),
        "embeddings.word_embeddings.weight": (config["vocab_size"], dim),
        "embeddings.position_embeddings.weight": (
            config["max_position_embeddings"],
            dim,
        ),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], dim),
    }
    norms = ["embeddings.LayerNorm"]
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        dense = {
            **{f"attention.self.{it}": (dim, dim) for it in ("query", "key", "value")},
            "attention.output.dense": (dim, dim),
            "intermediate.dense": (width, dim),
            "output.dense": (dim, width),
        }
        for name, shape in dense.items():
            shapes[f"{layer}.{name}.weight"] = shape
            shapes[f"{layer}.{name}.bias"] = shape[:1]
    for name in norms:
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    shapes = {f"bert.{name}": shape for name, shape in shapes.items()}
    shapes |= {
        f"{HEAD}.bias": (config["vocab_size"],),
        f"{HEAD}.transform.dense.weight": (dim, dim),
        **{f"{HEAD}.transform.{it}": (dim,) for it in ("dense.bias", "LayerNorm.bias")},
        f"{HEAD}.transform.LayerNorm.weight": (dim,),
    }
    return {
        name: draw.normal(0, 0.4, shape).astype("float32")
        for name, shape in shapes.items()
    }


def save(folder: Path, weights: Tensors, config: Mapping[str, Any] = CONFIG) -> Path:
    """Writes a folder as Hugging Face's `save_pretrained` does, with `vocab.txt`."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    save_file(dict(weights), folder / "model.safetensors")
    return folder


def states(
    weights: Tensors, ids: np.ndarray, config: Mapping[str, Any] = CONFIG
) -> np.ndarray:
    """The hidden states `(T, E)` of ids `(T,)`."""
    prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""

    def of(name: str) -> np.ndarray:
        return weights[prefix + name]

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ of(f"{name}.weight").T + of(f"{name}.bias")

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return _norm(x, of(f"{name}.weight"), of(f"{name}.bias"), config)

    heads = config["num_attention_heads"]
    table = "embeddings.{}_embeddings.weight"
    x = of(table.format("word"))[ids] + of(table.format("token_type"))[0]
    x = norm("embeddings.LayerNorm", x + of(table.format("position"))[: len(ids)])
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        query, key, value = (
            dense(f"{layer}.attention.self.{part}", x)
            .reshape(len(ids), heads, -1)
            .swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])  # (H, T, T)
        seen = (special.softmax(scores, axis=-1) @ value).swapaxes(0, 1)
        seen = dense(f"{layer}.attention.output.dense", seen.reshape(x.shape))
        x = norm(f"{layer}.attention.output.LayerNorm", x + seen)
        inner = gelu(dense(f"{layer}.intermediate.dense", x), config)
        inner = dense(f"{layer}.output.dense", inner)
        x = norm(f"{layer}.output.LayerNorm", x + inner)
    return x


def logits(
    weights: Tensors, hidden: np.ndarray, config: Mapping[str, Any] = CONFIG
) -> np.ndarray:
    """What the head says of hidden states `(T, E)`: `(T, vocab_size)`."""
    name = f"{HEAD}.transform"
    x = hidden @ weights[f"{name}.dense.weight"].T + weights[f"{name}.dense.bias"]
    parts = (weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
    x = _norm(gelu(x, config), *parts, config)
    table = weights["bert.embeddings.word_embeddings.weight"]
    return x @ table.T + weights[f"{HEAD}.bias"]


def gelu(x: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Hendrycks and Gimpel's, exact or by tanh."""
    if config["hidden_act"] == "gelu":
        return x * special.ndtr(x)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * (1 + np.tanh(inner)) / 2


def _norm(
    x: np.ndarray, gain: np.ndarray, center: np.ndarray, config: Mapping[str, Any]
) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + config["layer_norm_eps"]) * gain + center
