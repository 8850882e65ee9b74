"""The search in the configuration, and in a pipeline whose training takes the best."""

from __future__ import annotations

import json

import pytest
from langzoo.models import CausalLM
from langzoo.models.families import FAMILIES, family_of
from langzoo.models.tasks import TASKS
from langzoo.pipelines.configuration import loading


def load(family="transformer", **search):
    model = {"family": family}
    if family == "keras_hub":
        model["preset"] = "gpt2_base_en"
    can = family_of(family).can
    task = next(name for name, task in TASKS.items() if can(task))
    settings = [f"model={json.dumps(model)}", f"search={json.dumps(search)}"]
    settings += ["gate={}", f"task={task}"]
    if TASKS[task].learns_from:
        settings.append("corpus.label_field=kind")
    return loading.load(settings=settings)


def test_without_the_section_nothing_is_searched():
    assert loading.load().search is None


# The members of a mixture have theirs, and sources are no pipeline's yet.
SEARCHED = [
    name
    for name, family in sorted(FAMILIES.items())
    if name != "mixture" and not family.reads_a_source
]


@pytest.mark.parametrize("family", SEARCHED)
def test_every_family_has_a_space(family, tmp_path):
    algorithm = "random" if family == "ngram" else "hyperband"
    loaded = load(family, algorithm=algorithm)
    assert loaded.search.space
    (tmp_path / "resolved.yaml").write_text(loaded.to_yaml())
    assert loading.load(tmp_path / "resolved.yaml") == loaded


def test_a_range_of_what_has_fractions_is_one_of_fractions():
    space = {
        "model.dropout": {"min": 0, "max": 0.5},
        "trainer.weight_decay": {"min": 0, "max": 1},
        "model.num_layers": {"min": 1, "max": 4},
        "trainer.label_smoothing": [0, 0.1],
    }
    settled = load(space=space).search_settings["space"]
    kinds = {
        key: type(domain["min"] if isinstance(domain, dict) else domain[0])
        for key, domain in settled.items()
    }
    assert list(kinds.values()) == [float, float, int, float]


WIDTHS = {"model.hidden_dim": [16, 24, 32]}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"trialz": 3}, "unknown key search.trialz: did you mean trials?"),
        ({"trials": 0}, "search.trials: 0 cannot be"),
        ({"algorithm": "newton"}, "search.algorithm: 'newton' cannot be"),
        ({"steps": 8}, "search.steps 8 must be at least 9"),
        ({"space": WIDTHS}, "search.space has 3 combination(s), and search.algorithm"),
        ({"space": {}}, "search.space is empty"),
        ({"space": {"dropout": [0.1]}}, "search.space.dropout: write model.KEY or"),
        (
            {"space": {"model.num_layer": [1, 2]}},
            "search.space.model.num_layer: unknown key model.num_layer: did you mean",
        ),
        (
            {"space": {**WIDTHS, "model.num_layers.x": [1]}},
            "search.space.model.num_layers.x: unknown key model.num_layers.x",
        ),
        (
            {"space": {"model.dropout": [0.1, 1.5]}},
            "search.space.model.dropout: model.dropout: 1.5 cannot be",
        ),
        (
            {"space": {"model.dropout": {"min": 0.1, "max": 2}}},
            "search.space.model.dropout: model.dropout: 2.0 cannot be",
        ),
        (
            {"space": {"model.hidden_dim": [16, "wide"]}},
            "search.space.model.hidden_dim: [16, 'wide'] must be numbers, or words",
        ),
        (
            {"space": {"model.hidden_dim": [True]}},
            "search.space.model.hidden_dim: model.hidden_dim: True cannot be",
        ),
        ({"space": {"model.dropout": []}}, "search.space.model.dropout: [] must be"),
        ({"space": {"model.dropout": [0.1, 0.1]}}, "has a value twice"),
        ({"space": {"model.dropout": 0.1}}, "0.1 is neither a list nor a range"),
        (
            {"space": {"model.dropout": {"min": 0.1}}},
            "search.space.model.dropout: a range has min, max",
        ),
        (
            {"space": {"model.dropout": {"min": 0.3, "max": 0.1}}},
            "search.space.model.dropout: min 0.3 must be below max 0.1",
        ),
        (
            {"space": {"model.dropout": {"min": 0, "max": 0.1, "sampling": "log"}}},
            "search.space.model.dropout: min 0 must be above 0 with sampling log",
        ),
        (
            {"space": {"model.dropout": {"min": 0, "max": 0.1, "step": -1}}},
            "search.space.model.dropout: step must be above 0",
        ),
        (
            {"space": {"trainer.steps": [1, 2]}},
            "search.space.trainer.steps: it cannot be searched",
        ),
        (
            {"space": {"model.num_heads": [3, 4]}},
            "search.space.model.num_heads: hidden_dim 128 must be a multiple of twice",
        ),
        ({"space": {"trainer.packing": ["best"]}}, "trainer.packing: 'best' cannot be"),
    ],
)
def test_a_wrong_search_is_refused_in_one_line_that_names_it(search, said):
    with pytest.raises(loading.ConfigError) as raised:
        load(**search)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_value_that_is_wrong_in_some_company_only_is_left_to_the_search():
    space = {"model.hidden_dim": [128, 96], "model.num_heads": [3, 4]}
    assert load(algorithm="random", space=space).search.space == space


def test_n_grams_have_no_first_steps():
    with pytest.raises(loading.ConfigError, match="an n-gram model only counts"):
        load("ngram")


def test_initial_weights_need_a_space_of_ones_own(tmp_path):
    saved = {"class_name": "LSTMBackbone", "config": {"max_sequence_length": 8}}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    settings = [
        f"model={{initial_weights: {tmp_path}}}",
        "tokenizer.type=preset",
        "search={}",
    ]
    with pytest.raises(
        loading.ConfigError, match=r"search\.space is needed with model"
    ):
        loading.load(settings=settings)


def test_another_optimizer_needs_a_space_of_ones_own():
    settings = ["trainer.optimizer=sgd", "search={}"]
    with pytest.raises(
        loading.ConfigError, match=r"is needed with trainer.optimizer s"
    ):
        loading.load(settings=settings)
    settings[1] = "search={space: {trainer.learning_rate: {min: 0.1, max: 9}}}"
    assert loading.load(settings=settings).search.algorithm == "hyperband"


def test_the_training_takes_what_was_found(run_pipeline, refused):
    space = {
        "model.hidden_dim": [16],
        "trainer.batch_size": [8],
        "trainer.learning_rate": [1e-2, 1e-4],
    }
    search = {"algorithm": "random", "trials": 2, "steps": 20, "space": space}
    changes = [*refused, f"search={json.dumps(search)}", "trainer.steps=40"]
    loaded, result, shown = run_pipeline(*changes)
    best, other = result.search
    assert (best.values["trainer.learning_rate"], best.steps) == (1e-2, 20)
    assert other.values == {**best.values, "trainer.learning_rate": 1e-4}
    saved = str(result.training_folder / "preset")
    assert CausalLM.from_preset(saved).backbone.hidden_dim == 16
    assert result.training.tokens_seen == 40 * 8 * loaded.model.context_length
    # A trial is measured as the model is gated, and 40 steps are better than 20.
    assert best.figure - 1 < result.decision.value < best.figure
    assert f"best: {best}" in shown
    assert "bits per byte  steps  seconds" in shown
    _, again, _ = run_pipeline(*changes)
    assert again.executed == []
    assert again.search == result.search
