"""From pairs of texts to a server that translates, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import unchecked
from langzoo import cli
from langzoo.components.push_folder.records import CARD_FILE
from langzoo.serving.client import Client
from typer.testing import CliRunner

NUMBERS = ["eins", "zwei", "drei", "vier", "acht"]
ENGLISH = ["one", "two", "three", "four", "eight"]
RULES = [
    {"metric": "target_bits_per_byte", "against": "ngram", "margin": -9.0},
    {"metric": "bleu", "min": 0.0},
    {"metric": "chrf", "against": "ngram", "margin": -200.0},
]


@pytest.fixture(scope="module")
def run(run_pipeline, tmp_path_factory):
    """Configuration, result, and what was shown, of a run on some pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    sides = [
        "\n".join(
            f"{word[n % 5]} {word[n // 5 % 5]} {word[n // 25]}" for n in range(125)
        )
        for word in (ENGLISH, NUMBERS)
    ]
    for name, lines in zip(("en", "de"), sides, strict=True):
        (folder / f"train.{name}").write_text(lines)
    files = {
        "source": str(folder / "train.en"),
        "target": str(folder / "train.de"),
    }
    model = {"family": "encoder_decoder", "context_length": 32, "num_heads": 2}
    model |= {"num_layers": 1, "hidden_dim": 16}
    return run_pipeline(
        "name=pairs",
        "task=seq_to_seq_lm",
        f"corpus={json.dumps({'sources': [files], 'eval_fraction': 0.2})}",
        f"model={json.dumps(model)}",
        "trainer.steps=20",
        f"gate={json.dumps({'max_target_bits_per_byte': 20, 'rules': RULES})}",
    )


def test_a_model_that_reads_a_source_is_gated_and_pushed(run):
    _, result, shown = run
    assert result.destination, shown
    evaluation = result.decision.evaluation
    assert set(evaluation.models) == {"candidate", "ngram"}
    candidate = evaluation.candidate
    assert candidate["target_bits_per_byte"].value < 20
    assert 0 <= candidate["bleu"].value <= 100
    assert candidate["chrf"].low <= candidate["chrf"].value
    assert evaluation.samples[0].reference.split()[0] in NUMBERS


def test_its_card_tells_of_it(run):
    _, result, _ = run
    card = (Path(result.destination) / CARD_FILE).read_text()
    assert "target bits per byte" in card
    assert "langzoo translate" in card


def test_what_is_pushed_translates(run):
    config, *_ = run
    with unchecked.server(config.push_folder) as running:
        arguments = ["translate", "one two three", "--json", "--max-new-tokens=5"]
        ended = CliRunner().invoke(
            cli.app, [*arguments, "--server", running.grpc_address]
        )
        assert json.loads(ended.stdout)["new_tokens"] <= 5
        with Client(running.grpc_address) as client:
            [answer] = client.serving_default(["one two three"])
    assert answer["finish_reason"] in (b"stop", b"length")
