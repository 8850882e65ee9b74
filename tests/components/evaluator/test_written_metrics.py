"""Figures of what models write beside references are those of sacrebleu and others."""

from __future__ import annotations

import apache_beam as beam
import numpy as np
import pytest
import sacrebleu
import tensorflow as tf
import unchecked
from apache_beam.options.pipeline_options import PipelineOptions
from langzoo import models
from langzoo.components.documents import Documents
from langzoo.components.evaluator.judging import measure
from langzoo.components.evaluator.measures import written
from langzoo.components.evaluator.measures.sums import CorpusSums, row, seed_of
from langzoo.components.evaluator.settings import EvaluatorSettings, GateSettings
from langzoo.models import zoo
from langzoo.serving.export import saved_model
from langzoo.serving.in_process import ExportedModel
from rouge_score.rouge_scorer import RougeScorer
from serialized import example

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
TEXTS = [
    "A dog runs over the green grass.",
    "two men, in a boat",
    "",
    "The man on the bench reads a paper",
    "a girl sings",
    "one two three four five",
    *(f"the dog number {n} runs and sings" for n in range(8)),
]
TARGETS = [
    "A brown dog runs over the grass.",
    "Two men are in a boat.",
    "nothing",
    "A man on a bench reads the paper.",
    "a girl sings",
    "one two three four five six",
    *(f"a dog with the number {n * n} runs and sings a song" for n in range(8)),
]
VALUES = {metric.name: metric for metric in written.METRICS}


def corpus(texts, targets):
    pairs = zip(texts, targets, strict=True)
    return CorpusSums.of(
        (seed_of(t.encode() + s.encode()), row(written.statistics(s, t)))
        for s, t in pairs
    )


@pytest.fixture(scope="module")
def sums():
    return corpus(TEXTS, TARGETS)


def expected(texts, targets):
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rouge = [scorer.score(*pair) for pair in zip(targets, texts, strict=True)]
    bleu = sacrebleu.corpus_bleu(texts, [targets])
    return {
        "bleu": bleu.score,
        "chrf": sacrebleu.corpus_chrf(texts, [targets]).score,
        "rouge1": np.mean([one["rouge1"].fmeasure for one in rouge]),
        "rouge2": np.mean([one["rouge2"].fmeasure for one in rouge]),
        "rouge_l": np.mean([one["rougeL"].fmeasure for one in rouge]),
        "exact_match": np.mean(np.array(texts) == targets),
        "length_ratio": bleu.sys_len / bleu.ref_len,
    }


def test_figures_of_a_corpus_are_those_of_the_packages(sums):
    found = {name: metric.values(sums)[0] for name, metric in VALUES.items()}
    assert found == pytest.approx(expected(TEXTS, TARGETS))


@pytest.mark.parametrize("name", VALUES)
def test_without_a_document_they_are_those_of_the_others(sums, name):
    found = VALUES[name].values(sums)[1:]
    others = [
        expected(TEXTS[:n] + TEXTS[n + 1 :], TARGETS[:n] + TARGETS[n + 1 :])[name]
        for n in range(len(TEXTS))
    ]
    assert sorted(found) == pytest.approx(sorted(others))


@pytest.mark.parametrize("name", VALUES)
def test_where_nothing_is_written_there_is_no_figure(name):
    sums = CorpusSums.of([(1, row({"nll": 1.0}))])
    assert np.isnan(VALUES[name].values(sums)).all()


@pytest.mark.parametrize("kind", ["BLEU", "CHRF"])
def test_definitions_have_the_signature_of_sacrebleu(kind):
    metric = getattr(sacrebleu, kind)()
    metric.corpus_score(["a"], [["a"]])
    definition = VALUES[kind.lower()].definition
    assert f"`{metric.get_signature()}`" in definition


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """What is measured of n-grams of targets that write, and all that they write."""
    folder = tmp_path_factory.mktemp("evaluated")
    model = zoo.build("ngram", models.ByteTokenizer(), 32, task="seq_to_seq_lm")
    model.fit(TARGETS)
    with unchecked.exports():
        saved_model.export(model, folder / "model", task="seq_to_seq_lm")
    with tf.io.TFRecordWriter(str(folder / "pairs")) as writer:
        for text, target in zip(TEXTS, TARGETS, strict=True):
            writer.write(example(text=[text], target=[target]))
    rules = [{"metric": "bleu", "min": 1.0}, {"metric": "chrf", "against": "ngram"}]
    gate = GateSettings(rules=rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "langzoo.components.evaluator.judging.missing_signatures",
            lambda path, task: [],
        )
        path = str(folder / "model")
        measured = measure(
            {"candidate": path, "ngram": path},
            Documents([str(folder / "pairs")]),
            gate.asked([], "seq_to_seq_lm"),
            str(folder / "tfma"),
            lambda: beam.Pipeline(options=PipelineOptions([RUNNER])),
        )
    with ExportedModel(path) as served:
        texts = [one.text for one in served.generate(TEXTS, temperature=0.0)]
    return measured, texts


def test_a_rule_has_texts_written_and_measured(evaluated):
    measured, texts = evaluated
    slices = measured.record.models["candidate"].slices
    found = {name: one.value for name, one in slices["overall"].metrics.items()}
    for name, value in expected(texts, TARGETS).items():
        assert found[name] == pytest.approx(value), name
    assert slices["overall"].sums["written"] == len(TEXTS)
    assert measured.values("ngram", "overall", "bleu")[0] == found["bleu"]


def test_samples_stand_beside_their_references(evaluated):
    measured, texts = evaluated
    samples = measured.record.samples
    assert [(one.prompt, one.reference) for one in samples] == [
        *zip(TEXTS[:3], TARGETS[:3], strict=True)
    ]
    assert [one.text for one in samples] == texts[:3]


def test_nothing_is_written_where_nobody_asks():
    assert GateSettings().asked([], "seq_to_seq_lm").generate is None
    asked = GateSettings(generate={"num_beams": 2}).asked([], "seq_to_seq_lm")
    assert EvaluatorSettings.parse(asked.dump()).generate.num_beams == 2


def test_other_tasks_have_no_such_figures():
    with pytest.raises(ValueError, match=r"gate\.generate is not for models of task"):
        GateSettings(generate={}).require_measurable([], "causal_lm")
    rules = [{"metric": "bleu", "min": 1}]
    with pytest.raises(ValueError, match="bleu is not measured of models of task"):
        GateSettings(rules=rules).require_measurable([], "causal_lm")
