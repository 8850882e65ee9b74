"""lm-evaluation-harness asks the gateway for a model that a pipeline has trained."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import unchecked
from asgi import running
from langzoo.serving.client import Client
from langzoo.serving.gateway.app import Gateway
from langzoo.serving.gateway.command import Upstream
from langzoo.serving.gateway.options import GatewayOptions

QUESTIONS = ["The value of", "", "Return the number"]
CHOICES = [" the object", " a list", " None"]
TEXTS = ["The value of the object.", "naïve — €", "Return a\nnew list", "x = 1  # two"]
STOPS = ["no such text", "nor this", "\n\n", "e", ".", "</s>"]
_SCRIPT = """
import gc, json, sys
gc.disable()
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
folder, url = sys.argv[1:]
answer = simple_evaluate(
    model="local-completions",
    model_args={
        "model": "langzoo", "base_url": url + "/v1/completions", "max_length": 32,
    },
    tasks=["choices", "texts", "whole_texts", "continued"],
    task_manager=TaskManager(include_path=folder, include_defaults=False),
    bootstrap_iters=0,
)
samples = {
    task: [sample["resps"] for sample in sorted(all_, key=lambda s: s["doc_id"])]
    for task, all_ in answer["samples"].items()
}
print("ANSWER", json.dumps({"results": answer["results"], "samples": samples}))
"""


def gateway(direct: Client) -> AbstractContextManager[str]:
    """A gateway in front of the server that a client asks."""
    clients = {"langzoo": Upstream(direct.target).client("langzoo")}
    return running(Gateway(clients, GatewayOptions()).app())


def task(folder: Path, name: str, rows: list[dict[str, Any]], **fields: Any) -> None:
    """Writes a task of the harness, on a file."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        **fields,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def direct(first: Any) -> Iterator[Client]:
    """A client of a server of the model that the pipeline pushed."""
    folder = first[1].pushed.parent
    with unchecked.server(folder) as server, Client(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def answer(direct: Client, tmp_path_factory: Any) -> dict[str, Any]:
    """What the harness finds out, of its own package in its own process."""
    folder = tmp_path_factory.mktemp("harness")
    rows = [
        {"question": question, "choices": CHOICES, "label": 0} for question in QUESTIONS
    ]
    asked = {"doc_to_text": "{{question}}", "doc_to_target": "label"}
    choices = {"doc_to_choice": "{{choices}}", "output_type": "multiple_choice"}
    choices["target_delimiter"] = ""
    task(folder, "choices", rows, **asked, **choices, metric_list=[{"metric": "acc"}])
    rolling = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }
    texts = [{"text": text} for text in TEXTS]
    task(folder, "texts", texts, **rolling, doc_to_target="{{text}}")
    # The end counts, as it does in `langzoo score`.
    task(folder, "whole_texts", texts, **rolling, doc_to_target="{{text}}</s>")
    task(
        folder,
        "continued",
        rows,
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="",
        generation_kwargs={"until": STOPS, "max_gen_toks": 12},
        metric_list=[{"metric": "exact_match"}],
    )
    with gateway(direct) as url:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _SCRIPT, folder, url],
            env={
                **os.environ,
                "HF_HOME": str(folder / "home"),
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    _, found, told = ended.stdout.partition("ANSWER ")
    assert found, ended.stderr
    return json.loads(told)


def test_choices_are_as_likely_as_the_model_says(
    answer: dict[str, Any], direct: Client
) -> None:
    for question, told in zip(QUESTIONS, answer["samples"]["choices"], strict=True):
        # The harness says the start of a text where there is no context, and else not.
        start = () if question else (2,)
        read = len(start) + len(direct.tokenize([question])[0])
        texts = [question + choice for choice in CHOICES]
        asked = [(*start, *ids) for ids in direct.tokenize(texts)]
        scores = direct.id_alternatives(asked, 1)
        for [[found, is_greedy]], ids, score in zip(told, asked, scores, strict=True):
            own = score.log_probabilities[read - 1 : -1]
            assert float(found) == pytest.approx(sum(own), abs=1e-4)
            likeliest = score.top_ids[read - 1 : len(ids) - 1]
            assert str(is_greedy) == str(likeliest.tolist() == [*ids[read:]])


def test_the_perplexity_is_that_of_langzoo_score(
    answer: dict[str, Any], direct: Client
) -> None:
    scores = direct.score(TEXTS)
    nats, words = sum(s.nll for s in scores), sum(s.words for s in scores)
    found = answer["results"]["whole_texts"]["word_perplexity,none"]
    assert found == pytest.approx(math.exp(nats / words), rel=1e-4)
    ends = direct.token_scores(TEXTS)
    nats += sum(score.log_probabilities[-1] for score in ends)
    bits = nats / math.log(2) / sum(score.bytes for score in scores)
    found = answer["results"]["texts"]["bits_per_byte,none"]
    assert found == pytest.approx(bits, rel=1e-4)


def test_a_text_ends_before_the_first_of_many_stop_strings(
    answer: dict[str, Any], direct: Client
) -> None:
    ids = [ids or (2,) for ids in direct.tokenize(QUESTIONS)]
    plain = direct.generate([""] * len(ids), 12, temperature=0.0, prompt_ids=ids)
    for text, [[found]] in zip(plain, answer["samples"]["continued"], strict=True):
        ends = [text.text.find(stop) for stop in STOPS if stop in text.text]
        assert found == text.text[: min(ends, default=None)]
