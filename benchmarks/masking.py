"""A BERT of 4 x 128 from scratch: the zoo's beside transformers' BertForMaskedLM.

Both learn from the same rows of the demo's corpus with the same tokens hidden, in the
same order, by AdamW with the same learning rates, and say the same hidden tokens at the
end. The weights are drawn by each.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

_STEPS, _ROWS, _LENGTH = 2000, 16, 128
_SIZES = {"num_layers": 4, "num_heads": 4, "hidden_dim": 128}
_VOCABULARY, _HIDDEN = 4096, 19  # tokens of a row, 15 %
_RATE, _WARM_UP, _DECAY = 1e-3, 100, 0.01
_BETAS, _CLIP = (0.9, 0.99), 1.0
_JUDGED = 256  # rows


def prepare(path: Path, steps: int) -> None:
    """Writes what both sides learn from and are judged by."""
    from langzoo.components.text_example_gen.demo_corpus import documents
    from langzoo.models import train_sentencepiece

    found = [document.text for document in documents()]
    tokenizer = train_sentencepiece(
        found, vocabulary_size=_VOCABULARY, model_type="bpe", seed=0
    )
    ends = [tokenizer.end_token_id]
    ids = np.concatenate([[*row, *ends] for row in tokenizer(found)]).astype("int32")
    rows = ids[: len(ids) // _LENGTH * _LENGTH].reshape(-1, _LENGTH)
    draw = np.random.default_rng(0)
    rows = draw.permutation(rows)
    judged, learned = rows[:_JUDGED], rows[_JUDGED:]
    order = np.concatenate(
        [
            draw.permutation(len(learned))
            for _ in range(steps * _ROWS // len(learned) + 1)
        ]
    )
    taken = learned[order[: steps * _ROWS]]
    mask = tokenizer.mask_token_id
    np.savez(
        path,
        **_hidden(taken, draw, mask, shares=(0.8, 0.1)),
        **{f"judged_{k}": v for k, v in _hidden(judged, draw, mask).items()},
        size=max(tokenizer.vocabulary_size(), mask + 1),
        rates=[_rate(step, steps) for step in range(steps)],
    )


def _hidden(
    rows: np.ndarray,
    draw: np.random.Generator,
    mask: int,
    shares: tuple[float, float] = (1.0, 0.0),
) -> dict[str, np.ndarray]:
    """Rows with tokens hidden, their places, and what they were."""
    places = np.sort(np.argsort(draw.random(rows.shape))[:, :_HIDDEN]).astype("int32")
    targets = np.take_along_axis(rows, places, 1)
    kind = draw.random(targets.shape)
    any_token = draw.integers(4, mask, targets.shape, "int32")
    random = np.where(kind < sum(shares), any_token, targets)
    ids = rows.copy()
    np.put_along_axis(ids, places, np.where(kind < shares[0], mask, random), 1)
    return {"ids": ids, "places": places, "targets": targets}


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, cosine decay to a fiftieth."""
    if step < _WARM_UP:
        return _RATE * (step + 1) / _WARM_UP
    part = (step - _WARM_UP) / max(steps - _WARM_UP, 1)
    return _RATE * (0.02 + 0.98 * (1 + math.cos(math.pi * part)) / 2)


def theirs(data: Any, seed: int) -> float:
    """Nats of a hidden token of transformers' model."""
    import torch
    from torch.nn import functional
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=int(data["size"]),
        hidden_size=_SIZES["hidden_dim"],
        num_hidden_layers=_SIZES["num_layers"],
        num_attention_heads=_SIZES["num_heads"],
        intermediate_size=4 * _SIZES["hidden_dim"],
        max_position_embeddings=_LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    weights = [*model.parameters()]
    groups = [
        {"params": [it for it in weights if it.dim() > 1], "weight_decay": _DECAY},
        {"params": [it for it in weights if it.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=_BETAS, eps=1e-7)

    def loss_of(ids: np.ndarray, places: np.ndarray, targets: np.ndarray) -> Any:
        states = model.bert(torch.from_numpy(ids).long()).last_hidden_state
        index = (
            torch.from_numpy(places).long()[..., None].expand(-1, -1, states.shape[-1])
        )
        logits = model.cls(states.gather(1, index))
        wanted = torch.from_numpy(targets).long().flatten()
        return functional.cross_entropy(logits.flatten(0, 1), wanted)

    for rate, batch in zip(data["rates"], _batches(data, ""), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        optimizer.zero_grad(set_to_none=True)
        loss_of(*batch).backward()
        torch.nn.utils.clip_grad_norm_(weights, _CLIP)
        optimizer.step()
    with torch.no_grad():
        return float(np.mean([float(loss_of(*it)) for it in _batches(data, "judged_")]))


def ours(data: Any, seed: int) -> float:
    """Nats of a hidden token of the zoo's model."""
    import keras
    import tensorflow as tf
    from langzoo.models import BertBackbone, MaskedLM
    from langzoo.models.families.bert.family import ARCHITECTURES

    keras.utils.set_random_seed(seed)
    options = {**ARCHITECTURES["bert"], **_SIZES, "dropout": 0.0}
    backbone = BertBackbone(int(data["size"]), max_sequence_length=_LENGTH, **options)
    model = MaskedLM(backbone)
    optimizer = keras.optimizers.AdamW(
        0.0,
        weight_decay=_DECAY,
        beta_1=_BETAS[0],
        beta_2=_BETAS[1],
        global_clipnorm=_CLIP,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[weight for weight in model.trainable_weights if len(weight.shape) < 2]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, weighted_metrics=[], jit_compile=True)

    def rows(prefix: str) -> tf.data.Dataset:
        ids, places, targets = (
            data[f"{prefix}{name}"] for name in ("ids", "places", "targets")
        )
        there = np.ones_like(ids, bool)
        inputs = {"token_ids": ids, "padding_mask": there, "mask_positions": places}
        return tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(_ROWS)

    rates = [float(rate) for rate in data["rates"]]

    class _Rate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            optimizer.learning_rate = rates[batch]

    model.fit(rows(""), shuffle=False, verbose=0, callbacks=[_Rate()])
    return float(model.evaluate(rows("judged_"), verbose=0))


def _batches(data: Any, prefix: str) -> Any:
    names = [f"{prefix}{name}" for name in ("ids", "places", "targets")]
    parts = [data[name] for name in names]
    for begin in range(0, len(parts[0]), _ROWS):
        yield [part[begin : begin + _ROWS] for part in parts]


if __name__ == "__main__":
    file, side, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if side == "data":
        prepare(file, number or _STEPS)
        print(json.dumps(None))
    else:
        measured = {"transformers": theirs, "zoo": ours}[side]
        print(json.dumps(measured(np.load(file), number)))
