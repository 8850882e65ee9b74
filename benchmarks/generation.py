"""Generation speed: the zoo's cached generation beside Hugging Face's, same weights.

Each side runs in a process of its own, in turn, several times; what is printed is the
ratio of the medians, which says more than either on a machine that others use too. All
sides start from the weights and prompts of one file and must give the same tokens. The
sides "gRPC" are an export of ours, from text to text, asked through our server; the one
with a thread an operation is asked in requests of four rows, several at a time.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import functools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .apart import measure_apart, run_for
from .tables import show, table_of

_WARM_UP_RUNS = 2
_MEASURED_SECONDS = 8.0
_VOCABULARY, _LAYERS, _HEADS, _WIDTH = 8192, 6, 8, 256
_PROMPT, _NEW = 16, 128
_CONTEXT = _PROMPT + _NEW
# Of the tokenizer that an export needs: specials, bytes, and then a token a character.
_SPECIALS, _START_ID, _BYTES = 4, 2, 256
_CHARACTERS = _VOCABULARY - _SPECIALS - _BYTES
_FIRST_CHARACTER = 0x4E00


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is generated.

    Attributes:
        name: Shown in the table.
        batch: Prompts that are continued together.
        goal: Tokens a second, as a multiple of Hugging Face's.
    """

    name: str
    batch: int
    goal: float = 2.0


SETTINGS = [
    Setting(f"GPT-2 {_LAYERS} x {_WIDTH}, batch {batch}", batch) for batch in (1, 8)
]

# Two threads that wait for each other cost more than they bring where the steps are
# small or other programs run: Hugging Face and the server are given the better of both.
THEIRS = ("transformers", "transformers, 1 thread")
OURS = ("zoo", "zoo + XLA")
SERVED = ("zoo, gRPC", "zoo, gRPC, 1 thread")
SIDES = (*THEIRS, *OURS, *SERVED)
_ROWS = 4


def main(rounds: int, only: str) -> None:
    """Measures and prints the table.

    Raises:
        RuntimeError: if a side fails, or gives other tokens than Hugging Face.
    """
    title = f"greedy generation, {_NEW} new tokens, tokens a second"
    heads = ("model", *SIDES, "best / best", "gRPC / best", "goal")
    table = table_of(title, *heads, left="model")
    for setting in SETTINGS:
        if only.lower() not in setting.name.lower():
            continue
        medians = _medians(setting, rounds)
        theirs = max(medians[side] for side in THEIRS)
        ours = max(medians[side] for side in OURS)
        served = max(medians[side] for side in SERVED)
        table.add_row(
            setting.name,
            *(f"{medians[side]:,.0f}" for side in SIDES),
            f"{ours / theirs:.2f}",
            f"{served / theirs:.2f}",
            f"{setting.goal:.1f}",
        )
    show(table)


def _medians(setting: Setting, rounds: int) -> dict[str, float]:
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder, "shared.npz")
        np.savez(shared, **_weights(), prompt=_prompts(setting.batch))
        expected: list[list[int]] = []
        for _ in range(rounds):
            for side in SIDES:
                result = measure_apart(__name__, shared, side)
                speeds[side].append(result["speed"])
                expected = expected or result["token_ids"]
                if result["token_ids"] != expected:
                    raise RuntimeError(f"{side}: other tokens than {SIDES[0]}'s")
    return {side: statistics.median(values) for side, values in speeds.items()}


def _prompts(batch: int) -> np.ndarray:
    """Token ids `(batch, _PROMPT)`: `<s>`, then characters (see `_tokenizer`)."""
    rng = np.random.default_rng(1)
    shape = (batch, _PROMPT)
    prompts = rng.integers(_VOCABULARY - _CHARACTERS, _VOCABULARY, shape, np.int32)
    prompts[:, 0] = _START_ID
    return prompts


def _weights() -> dict[str, np.ndarray]:
    """Weights by the names of Hugging Face's GPT-2, kernels `(inputs, outputs)`.

    Larger than those of an untrained model, so that the likeliest token is not always
    the last one and stands out from the next by more than rounding.
    """
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (_VOCABULARY, _WIDTH),
        "wpe.weight": (_CONTEXT, _WIDTH),
        "ln_f.weight": (_WIDTH,),
        "ln_f.bias": (_WIDTH,),
    }
    for layer in range(_LAYERS):
        for name, inputs, outputs in (
            ("attn.c_attn", _WIDTH, 3 * _WIDTH),
            ("attn.c_proj", _WIDTH, _WIDTH),
            ("mlp.c_fc", _WIDTH, 4 * _WIDTH),
            ("mlp.c_proj", 4 * _WIDTH, _WIDTH),
        ):
            shapes[f"h.{layer}.{name}.weight"] = (inputs, outputs)
            shapes[f"h.{layer}.{name}.bias"] = (outputs,)
        for name in ("ln_1", "ln_2"):
            shapes[f"h.{layer}.{name}.weight"] = (_WIDTH,)
            shapes[f"h.{layer}.{name}.bias"] = (_WIDTH,)
    weights = {
        name: rng.normal(0.0, 0.1, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    for name in weights:
        if name.endswith(".weight") and "ln_" in name:
            weights[name] += 1.0
    # The likeliest token's logit is positive: these, with 0, are never in a text.
    weights["wte.weight"][: _SPECIALS + _BYTES] = 0.0
    return weights


def measure(shared: Path, side: str) -> dict[str, Any]:
    """Returns new tokens a second of one side, and the tokens themselves."""
    loaded = dict(np.load(shared))
    prompts = loaded.pop("prompt")
    generate = _GENERATORS[side](loaded, prompts)
    for _ in range(_WARM_UP_RUNS):
        token_ids = generate()
    seconds = run_for(generate, _MEASURED_SECONDS)
    return {
        "speed": len(prompts) * _NEW / statistics.median(seconds),
        "token_ids": token_ids.tolist(),
    }


def _transformers(
    weights: dict[str, np.ndarray], prompts: np.ndarray, threads: int | None = None
) -> Callable[[], np.ndarray]:
    import torch
    import transformers

    if threads:
        torch.set_num_threads(threads)
    config = transformers.GPT2Config(
        vocab_size=_VOCABULARY,
        n_positions=_CONTEXT,
        n_embd=_WIDTH,
        n_layer=_LAYERS,
        n_head=_HEADS,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    model.transformer.load_state_dict(state)
    token_ids = torch.from_numpy(prompts).long()
    options = {
        "attention_mask": torch.ones_like(token_ids),
        "max_new_tokens": _NEW,
        "do_sample": False,
        "use_cache": True,
    }
    return lambda: model.generate(token_ids, **options).numpy()


def _zoo_model(weights: dict[str, np.ndarray]) -> Any:
    from langzoo.models import CausalLM, TransformerBackbone
    from langzoo.models.families.transformer.family import ARCHITECTURES

    backbone = TransformerBackbone(
        vocabulary_size=_VOCABULARY,
        num_layers=_LAYERS,
        num_heads=_HEADS,
        hidden_dim=_WIDTH,
        max_sequence_length=_CONTEXT,
        **ARCHITECTURES["gpt2"],
    )
    layers = {
        "wte": backbone.token_embedding,
        "wpe": backbone.position_embedding,
        "ln_f": backbone.final_norm,
    }
    for i, block in enumerate(backbone.blocks):
        layers |= {
            f"h.{i}.ln_1": block.attention_norm,
            f"h.{i}.attn.c_attn": block.attention.query_key_value,
            f"h.{i}.attn.c_proj": block.attention.attention_output,
            f"h.{i}.ln_2": block.feedforward_norm,
            f"h.{i}.mlp.c_fc": block.feedforward.intermediate,
            f"h.{i}.mlp.c_proj": block.feedforward.feedforward_output,
        }
    for name, layer in layers.items():
        parts = (f"{name}.weight", f"{name}.bias")
        layer.set_weights([weights[part] for part in parts if part in weights])
    return CausalLM(backbone)


def _zoo(jit_compile: bool) -> Callable[..., Callable[[], np.ndarray]]:
    def make(
        weights: dict[str, np.ndarray], prompts: np.ndarray
    ) -> Callable[[], np.ndarray]:
        model = _zoo_model(weights)
        model.compile(sampler="greedy", jit_compile=jit_compile)
        inputs = _padded(prompts)

        def generate() -> np.ndarray:
            outputs = model.generate(inputs, stop_token_ids=None)
            return np.asarray(outputs["token_ids"])

        return generate

    return make


def _served(
    weights: dict[str, np.ndarray],
    prompts: np.ndarray,
    flags: tuple[str, ...] = (),
    rows: int = 64,
) -> Callable[[], np.ndarray]:
    """Asks a server of the export over gRPC; it ends with this process."""
    from langzoo.models import CausalLMPreprocessor, character_tokenizer
    from langzoo.serving.client import AsyncClient
    from langzoo.serving.export.saved_model import export_causal_lm
    from langzoo.serving.server.process import running_server

    tokenizer = character_tokenizer(
        [chr(_FIRST_CHARACTER + i) for i in range(_CHARACTERS)]
    )
    model = _zoo_model(weights)
    model.preprocessor = CausalLMPreprocessor(tokenizer, sequence_length=_CONTEXT)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    base_path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "model")
    base_path.mkdir()
    export_causal_lm(model, base_path / "1", max_new_tokens=_NEW)
    address = stack.enter_context(running_server(str(base_path), flags=flags))
    texts = [str(text) for text in tokenizer.detokenize(prompts.tolist())]

    runner = stack.enter_context(asyncio.Runner())

    async def connect() -> AsyncClient:
        return AsyncClient(address, batch_size=rows)

    client = runner.run(connect())
    stack.callback(lambda: runner.run(client.close()))

    def generate() -> np.ndarray:
        asked = client.generate(texts, max_new_tokens=_NEW, temperature=0.0)
        new = tokenizer.tokenize([answer.text for answer in runner.run(asked)])
        return np.concatenate([prompts, np.array(new)], axis=1)

    return generate


def _padded(prompts: np.ndarray) -> dict[str, np.ndarray]:
    """Prompts with room for what is generated, as `CausalLM.generate` takes them."""
    token_ids = np.pad(prompts, ((0, 0), (0, _NEW)))
    mask = np.arange(_CONTEXT) < _PROMPT
    return {
        "token_ids": token_ids,
        "padding_mask": np.broadcast_to(mask, token_ids.shape),
    }


_GENERATORS: dict[str, Callable[..., Callable[[], np.ndarray]]] = {
    "transformers": _transformers,
    "transformers, 1 thread": functools.partial(_transformers, threads=1),
    "zoo": _zoo(jit_compile=False),
    "zoo + XLA": _zoo(jit_compile=True),
    "zoo, gRPC": _served,
    "zoo, gRPC, 1 thread": functools.partial(
        _served, flags=("--tensorflow_intra_op_parallelism=1",), rows=_ROWS
    ),
}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
