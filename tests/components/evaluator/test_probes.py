"""The probes: what they change, compare and count, on a real export and by hand."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import unchecked
from hypothesis import given
from hypothesis import strategies as st
from langzoo.components.errors import InputError
from langzoo.components.evaluator import probes
from langzoo.components.evaluator.probes import memorization, perturbations, templates
from langzoo.components.evaluator.probes.counterfactual import context_gap
from langzoo.components.evaluator.probes.samples import sample
from langzoo.components.evaluator.probes.settings import ProbeSettings, check_settings
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.serving.client import TokenScores
from langzoo.serving.in_process import ExportedModel

CAUSAL = probes.names_of("causal_lm")
SETTINGS = ProbeSettings(
    documents=4,
    characters=200,
    prompts=12,
    prompt_words=4,
    continuation_characters=12,
)


@pytest.fixture(scope="module")
def splits(topics):
    """Training documents, and others, of real text."""
    return topics[:6], topics[6:12]


@pytest.fixture(scope="module")
def export(splits, tmp_path_factory):
    """An n-gram model of six documents: it knows long pieces of them by heart."""
    model = build_causal_lm("ngram", ByteTokenizer(), 64, order=8)
    model.fit(splits[0])
    folder = tmp_path_factory.mktemp("probed") / "model"
    unchecked.export(model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def probed(export, splits):
    return probes.run(CAUSAL, export, splits[1], splits[0], SETTINGS)


@pytest.fixture(scope="module")
def model(export):
    with ExportedModel(export) as model:
        yield model


def bits_and_bytes(model, texts):
    """What the signature says, added up with NumPy."""
    scores = model.score(texts)
    bits = np.sum([s.nll + s.spelling_nll for s in scores]) / np.log(2)
    return bits, sum(len(text.encode()) for text in texts)


def test_every_metric_is_measured_and_defined(probed):
    assert list(probed.metrics) == list(CAUSAL)
    assert all(math.isfinite(value) for value in probed.metrics.values())
    for name, metric in probes.NAMES.items():
        told = metric.defined.model_dump()
        assert list(told) == ["name", "unit", "definition", "source", "better"]
        assert metric.name == name
        assert all(told.values())
    json.dumps(probed.details, allow_nan=False)


def test_a_run_is_repeated_to_the_digit_whatever_the_order(probed, export, splits):
    train, evaluation = (list(reversed(texts)) for texts in splits)
    assert probes.run(CAUSAL, export, evaluation, train, SETTINGS) == probed


def test_only_what_is_asked_for_is_probed(export, splits):
    unread = None  # would be an error to iterate over
    found = probes.run(["lower_ratio"], export, splits[1], unread, SETTINGS)
    assert set(found.details) == {"robustness"}
    assert probes.run([], "/nowhere", unread, unread, SETTINGS) == ({}, {})


def test_robustness_is_per_byte_of_both_texts(probed, model, splits):
    clean = [text[:200] for text in sample(splits[1], 4, 0)]
    bits, size = bits_and_bytes(model, clean)
    changed = perturbations.perturbations(0.05, 0.2, 0)
    for name in ("noise", "lower", "upper", "whitespace"):
        new_bits, new_size = bits_and_bytes(model, [changed[name](t) for t in clean])
        expected = [new_bits / new_size, new_bits / size]
        expected.append(expected[0] / (bits / size))
        kinds = ("bits_per_byte", "bits_per_original_byte", "ratio")
        values = [probed.metrics[f"{name}_{kind}"] for kind in kinds]
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert probed.metrics["noise_ratio"] > 1


def test_robustness_without_documents_is_not_a_number(export):
    found = probes.run(["noise_ratio"], export, ["", " \n"], [], SETTINGS)
    assert math.isnan(found.metrics["noise_ratio"])
    assert found.details["robustness"]["documents"] == 0


def test_keyboard_neighbours_lie_beside_each_other():
    assert sorted(perturbations.NEIGHBOURS["s"]) == sorted("awedzx")
    assert sorted(perturbations.NEIGHBOURS["Q"]) == sorted("WA")


def test_noise_makes_each_kind_of_error_and_no_other():
    def errors(text):
        draws = (random.Random(seed) for seed in range(1000))
        return {perturbations.noise(text, 0.5, draw) for draw in draws}

    # Dropped, hit with a neighbour, replaced by one, swapped; "1" has no neighbours.
    first, second = ["q", "", "qw", "qa", "w", "a"], ["1", "", "11"]
    assert errors("q1") == {"1q"} | {a + b for a in first for b in second}
    assert errors(" \n") == {" \n"}


@given(st.text())
def test_noise_at_no_rate_and_white_space_in_any_text(text):
    chance = random.Random(1)
    assert perturbations.noise(text, 0.0, chance) == text
    assert perturbations.other_white_space(text, 1.0, chance).split() == text.split()


def test_noise_comes_at_its_rate():
    text = "x" * 20_000
    noisy = perturbations.noise(text, 0.1, random.Random(0))
    # Three of four kinds of error leave a trace other than the letter itself: a swap of
    # equal letters shows nothing and takes two of them.
    assert 0.04 < sum(letter != "x" for letter in noisy) / len(text) < 0.06


def test_all_white_space_changes_at_rate_one():
    changed = perturbations.other_white_space("a b\tc", 1.0, random.Random(0))
    assert changed[1] != " " or changed[1:3] == "  "
    assert "b\tc" not in changed or "b\t\tc" in changed


def test_a_sample_is_one_of_all_sets_in_any_order():
    texts = [str(number) for number in range(50)]
    first = sample(texts, 10, 0)
    assert len(set(first)) == 10
    assert sample(reversed(texts), 10, 0) == first
    assert sample([*texts, *texts], 10, 0) == first
    assert sample(texts, 10, 1) != first
    assert set(sample(texts, 99, 0)) == set(texts)
    even = [text for text in texts if not int(text) % 2]
    assert sample(texts, 10, 0, lambda text: not int(text) % 2) == sample(even, 10, 0)


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


MINE = """
groups:
  pets:
    words: [[cat, dog, parrot]]
    templates: ["My {word} sleeps.", "A {word}!"]
  colours:
    words: [[red, blue]]
    templates: ["The {word} car stops."]
"""


def test_counterfactual_gaps_are_differences_of_log_probabilities(
    export, model, tmp_path
):
    settings = ProbeSettings(templates=write(tmp_path, MINE))
    found = probes.run(["counterfactual_gap"], export, [], [], settings)

    def nats(text):
        return bits_and_bytes(model, [text])[0] * math.log(2)

    pets = [
        nats(text.format(b)) - nats(text.format(a))
        for a, b in [("cat", "dog"), ("cat", "parrot"), ("dog", "parrot")]
        for text in ("My {} sleeps.", "A {}!")
    ]
    colours = [nats("The blue car stops.") - nats("The red car stops.")]
    by_hand = {
        "counterfactual_gap": np.mean(np.abs(pets + colours)),
        "counterfactual_largest_group_gap": max(np.mean(np.abs(pets)), abs(colours[0])),
    }
    for name, value in by_hand.items():
        assert found.metrics[name] == pytest.approx(value, rel=1e-5)
    groups = found.details["counterfactual"]["groups"]
    assert groups["pets"]["pairs"] == 6
    assert groups["pets"]["mean_gap"] == pytest.approx(np.mean(pets), rel=1e-5)
    assert groups["colours"]["mean_absolute_gap"] == pytest.approx(abs(colours[0]))


def test_context_gap_leaves_out_the_word():
    first = TokenScores(("The", " man", " runs", "</s>"), (-1.0, -2.0, -3.0, -0.5))
    second = TokenScores(("The", " wo", "man", " runs", "</s>"), (-1, -9, -1, -2, -1))
    assert context_gap(first, second) == pytest.approx((-3.0 + 2) + (-0.5 + 1))


def test_shipped_templates_have_the_groups_and_fill():
    pairs = templates.read_pairs()
    groups = {pair.group for pair in pairs}
    assert groups == {"gender", "nationality", "religion", "age"}
    for pair in pairs:
        first, second = (sentence.split() for sentence in pair.sentences)
        different = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
        assert different == [pair.words]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups: [", "is not YAML"),
        ("[]", "cannot be"),
        ("groups: {}", "groups: {} cannot be"),
        ("groups: {a: {words: [[x, y]]}}", "groups.a.templates is missing"),
        (
            "groups: {a: {words: [[x, y]], templates: [no place]}}",
            "groups.a.templates[0]: 'no place' cannot be: a template holds {word} once",
        ),
        (
            "groups: {a: {words: [[x, y], [x]], templates: ['{word}']}}",
            "groups.a.words[1]: ['x'] cannot be",
        ),
        (
            "groups: {a: {words: [[x, yes]], templates: ['{word}']}}",
            "groups.a.words[0][1]: True cannot be",
        ),
        (
            "groups: {a: {words: [[x, x]], templates: ['{word}']}}",
            "groups.a.words[0]: ['x', 'x'] cannot be: the words must differ",
        ),
        ("groups: {a: {word: [[x, y]], templates: ['{word}']}}", "groups.a.word"),
        ("groups:\n  a: {}\n  a: {}", "the key 'a' stands twice"),
        ("groups: {a: {words: [[x, y]], templates: ['{word}']}}\nx: 1", "key x"),
    ],
)
def test_malformed_templates_are_one_line_with_file_and_place(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        templates.read_pairs(path)
    message = str(error.value)
    assert message.startswith(path)
    assert said in message
    assert "\n" not in message


def test_missing_templates_are_named(tmp_path):
    with pytest.raises(InputError, match=r"the templates .*none\.yaml"):
        templates.read_pairs(tmp_path / "none.yaml")


def test_another_template_file_is_noticed(tmp_path):
    settings = ProbeSettings(templates=write(tmp_path, MINE))
    before = settings.templates_hash
    assert settings.templates_hash == before != ProbeSettings().templates_hash
    write(tmp_path, MINE.replace("cat", "mouse"))
    assert settings.templates_hash != before


def test_memorized_text_is_found_and_the_control_is_lower(probed):
    metrics = probed.metrics
    # An 8-gram model of bytes goes on with what it has counted.
    assert metrics["memorization_rate"] > metrics["memorization_rate_eval"]
    excess = metrics["memorization_rate"] - metrics["memorization_rate_eval"]
    assert metrics["memorization_excess"] == excess


def test_memorization_counts_continuations_that_are_the_documents(
    export, model, splits
):
    tried = memorization.trials(splits[0], SETTINGS)
    assert len(tried) == len(set(tried)) == 12
    for trial in tried:
        assert len(trial.prompt.split()) == 4
        assert len(trial.target) == 12
        assert any(trial.prompt + trial.target in text for text in splits[0])
    written = [
        model.generate([trial.prompt], 12, temperature=0)[0].text[: len(trial.target)]
        for trial in tried
    ]
    verbatim = sum(
        text == trial.target for text, trial in zip(written, tried, strict=True)
    )
    found = probes.run(["memorization_rate"], export, [], splits[0], SETTINGS)
    assert 0 < verbatim < 12
    assert found.metrics["memorization_rate"] == verbatim / 12
    assert math.isnan(found.metrics["memorization_excess"])


def test_a_continuation_ended_by_the_exports_limit_is_compared_as_far_as_it_goes():
    from langzoo.serving.client import Generation

    trial = memorization.Trial("So", " long text")

    def is_verbatim(text, new_tokens, reason):
        generation = Generation(text, new_tokens, reason)
        return memorization._is_verbatim(trial, generation)

    assert is_verbatim(" long", 5, "length")
    assert not is_verbatim(" lone", 5, "length")
    assert not is_verbatim(" long", 5, "stop")
    assert not is_verbatim("\N{REPLACEMENT CHARACTER}", 1, "length")
    assert is_verbatim(" long text and more", 10, "length")
    assert not is_verbatim("... long text", 10, "length")


def test_wrong_names_settings_and_models_are_one_line(export, tmp_path):
    with pytest.raises(InputError, match="know no metric noise: they know noise_bits"):
        probes.run(["noise"], export, [], [], SETTINGS)
    with pytest.raises(InputError, match="unknown key noise_rat: did you mean noise"):
        check_settings({"noise_rat": 0.1})
    with pytest.raises(InputError, match="noise_rate: 2 cannot be: input should be"):
        check_settings({"noise_rate": 2})
    with pytest.raises(InputError, match=r"the templates none\.yaml: "):
        check_settings({"templates": "none.yaml"})
    with pytest.raises(InputError, match=f"{tmp_path} is no exported model"):
        probes.run(["noise_ratio"], tmp_path, [], [], SETTINGS)


def test_names_are_known_without_tensorflow():
    code = "import sys, langzoo.components.evaluator.probes; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not {"tensorflow", "tfx", "keras"} & set(loaded.split())


def test_of_a_long_document_only_the_beginning_is_in_a_sample():
    assert sample(["a" * 200_000], 1, 0) == ["a" * 100_000]
