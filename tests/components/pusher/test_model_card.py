"""The model card: what the Hugging Face Hub reads of it, and what people do."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard
from langzoo.components.evaluator.records import Evaluation, Slice, Verdict
from langzoo.components.pusher.model_card import model_card
from langzoo.components.pusher.settings import Card

SETTINGS = Card(
    name="news",
    model={"family": "gru", "context_length": 64, "hidden_dim": 256},
    tokenizer="bpe",
    sources=["hf://stanfordnlp/imdb:plain_text@train", "texts/*.txt"],
    language=["en"],
    license="apache-2.0",
)


def measures(value):
    return {
        "bits_per_byte": {"value": value, "low": value - 0.1, "high": value + 0.1},
        "perplexity": {"value": "NaN"},
    }


@pytest.fixture(scope="module")
def evaluation():
    return Evaluation.model_validate(
        {
            "documents": 40,
            "models": {
                "candidate": {
                    "slices": {
                        "overall": {"documents": 40, "metrics": measures(2.5)},
                        "length=0-255": {"documents": 9, "metrics": measures(3.25)},
                        "length=256-1023": {"documents": 31, "metrics": measures(2.25)},
                    }
                }
            },
            "definitions": {
                "noise_ratio": {"name": "noise_ratio", "definition": "with | without"}
            },
            "probes": {"noise_ratio": 1.75},
        }
    )


@pytest.fixture(scope="module")
def card(evaluation):
    rule = {"rule": "bits_per_byte <= 3", "value": 2.5, "bound": 3, "passed": True}
    verdict = Verdict.model_validate({"blessed": True, "rules": [rule]})
    return model_card(SETTINGS, evaluation, verdict, None, None)


def test_the_hub_reads_its_metadata(card):
    found = ModelCard(card).data
    assert (found.language, found.license) == (["en"], "apache-2.0")
    assert found.datasets == ["stanfordnlp/imdb"]
    assert found.pipeline_tag == "text-generation"
    assert "gru" in found.tags


def test_the_hub_reads_its_measures_that_are_numbers(card):
    found = ModelCard(card).data
    assert found.model_name == "news"
    (result,) = found.eval_results
    assert (result.metric_type, result.metric_value) == ("bits_per_byte", 2.5)
    assert result.metric_name == "bits per byte (95 % interval 2.400 to 2.600)"
    assert result.dataset_split == "eval"


def test_what_was_selected_on_stands_beside_what_it_is_judged_by(evaluation):
    selected_on = Slice.model_validate({"documents": 9, "metrics": measures(2.25)})
    changes = {"split": "test", "selected_on": selected_on}
    verdict = Verdict.model_validate(
        {"blessed": True, "accepted": True, "rules": [{"rule": "a", "passed": True}]}
    )
    judged = evaluation.model_copy(update=changes)
    card = model_card(SETTINGS, judged, verdict, None, None)
    (result,) = ModelCard(card).data.eval_results
    assert result.dataset_split == "test"
    assert "They are of the split `test`" in card
    assert "| bits per byte | 2.500 | 2.400 to 2.600 |  | 2.250 |\n|" in card
    assert "accepted on purpose in the place of the last blessed model" in card


def test_it_tells_measures_gate_and_limits(card):
    assert "| bits per byte | 2.500 | 2.400 to 2.600 |" in card
    assert "| bits_per_byte <= 3 | 2.500 | 3 | yes |" in card
    assert "weakest where `length=0-255`: 3.250 bits per byte" in card
    assert "noise ratio: 1.750 (with \\| without)" in card


def test_without_figures_it_is_a_card_that_says_so():
    card = model_card(SETTINGS, None, None, None, None)
    assert ModelCard(card).data.eval_results is None
    assert "No figures were recorded." in card
    assert "were not measured" in card


def test_hyperparameters_are_those_that_were_trained():
    preset = '{"class_name": "GRUBackbone", "config": {"hidden_dim": 96, "name": "x"}}'
    trained = SETTINGS.with_trained(preset).model
    assert trained == {"family": "gru", "context_length": 64, "hidden_dim": 96}
