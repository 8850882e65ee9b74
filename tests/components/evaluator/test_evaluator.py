"""Evaluation of an export: TFMA's run, its slices, and what does not change it."""

from __future__ import annotations

import itertools
import json
import math
import shutil

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
import unchecked
from apache_beam.options.pipeline_options import PipelineOptions
from langzoo.components.documents import Documents
from langzoo.components.errors import InputError
from langzoo.components.evaluator import judging
from langzoo.components.evaluator.component import Evaluator
from langzoo.components.evaluator.gate import verdict
from langzoo.components.evaluator.measures.slices import length_bucket
from langzoo.components.evaluator.measures.sums import NAMES, row
from langzoo.components.evaluator.measures.tables import measures_of
from langzoo.components.evaluator.settings import EvaluatorSettings, RuleSettings
from langzoo.components.text_example_gen.records import Splitting
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    CorpusSettings,
)
from langzoo.models import zoo
from langzoo.models.tasks.adaptation.settings import (
    AdaptSettings,
    DynamicEvaluation,
    NeuralCache,
)
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.zoo import build_causal_lm
from langzoo.serving.export.contract import EVALUATE
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
THREADS = ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]
SETTINGS = EvaluatorSettings.model_validate(
    {
        "rules": [
            {"metric": "bits_per_byte", "against": "ngram", "significant": True},
            {"metric": "token_accuracy", "min": 0.2, "slice": "source=even"},
            {"metric": "latency_ms", "max": 10_000.0},
            {"metric": "size_mb", "against": "ngram", "margin": -1000.0},
            {"metric": "counterfactual_gap", "max": 100.0},
        ],
        "slices": ["length", "author"],
        "slice_values": 2,
        "features": ["source", "author"],
        "probes": None,
    }
)


@pytest.fixture(scope="module")
def texts(topics):
    """Paragraphs of several lengths, some of them with characters of several bytes."""
    parts = [part.strip() for text in topics for part in text.split("\n\n")]
    return [f"{part}, naïve €" for part in parts if len(part) > 20][:300]


@pytest.fixture(scope="module")
def models(topics, tmp_path_factory):
    """A neural model with drawn weights, and an n-gram model."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = ByteTokenizer()
    drawn = build_causal_lm("gated_conv", tokenizer, 32, num_layers=1, hidden_dim=8)
    counted = build_causal_lm("ngram", tokenizer, 32, order=3)
    counted.fit(topics)
    paths = {"candidate": str(folder / "drawn"), "ngram": str(folder / "counted")}
    unchecked.export(drawn, paths["candidate"])
    drawn.save_to_preset(f"{paths['candidate']}-preset")
    asked = ["evaluate", "serving_default", "cache_scores"]
    unchecked.export(counted, paths["ngram"], asked)
    return paths


def author_of(index):
    """Two that are frequent, one that is new each time, or none."""
    names = {0: b"ann", 1: b"bob", 2: f"{index}".encode()}
    return {"author": names[index % 4]} if index % 4 in names else {}


def write_examples(texts, folder, shards):
    """TFRecord files of examples whose `source` alternates; some have an `author`."""
    folder.mkdir()
    sources = itertools.cycle([b"even", b"odd"])
    examples = [
        {"text": text.encode(), "source": source, **author_of(index)}
        for index, (text, source) in enumerate(zip(texts, sources, strict=False))
    ]
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"{shard}.gz"), options) as writer:
            for example in examples[shard::shards]:
                feature = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                    for name, value in example.items()
                }
                features = tf.train.Features(feature=feature)
                writer.write(tf.train.Example(features=features).SerializeToString())
    return Documents([str(folder / "*")])


def run(models, documents, output, *options, of=judging.EVAL, settings=SETTINGS):
    pipeline = PipelineOptions([RUNNER, *options])
    return judging.measure(
        models,
        documents,
        settings,
        str(output),
        lambda: beam.Pipeline(options=pipeline),
        of=of,
    )


@pytest.fixture(scope="module")
def evaluated(models, texts, tmp_path_factory):
    """What is found with one worker and one file, and the folder of TFMA's."""
    folder = tmp_path_factory.mktemp("evaluated")
    documents = write_examples(texts, folder / "examples", shards=1)
    return run(models, documents, folder / "analysis"), folder


@pytest.fixture(scope="module")
def outputs(evaluated, models):
    """What the signature says of each document, by model."""
    _, folder = evaluated
    (file,) = (folder / "examples").iterdir()
    records = list(tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator())
    signed = {}
    for name, path in models.items():
        signature = tf.saved_model.load(path).signatures["evaluate"]
        columns = signature(examples=tf.constant(records))
        signed[name] = [
            {key: value[index].numpy() for key, value in columns.items()}
            for index in range(len(records))
        ]
    return signed


def test_the_sums_are_those_of_the_signature(evaluated, outputs, texts):
    found, _ = evaluated
    for name, documents in outputs.items():
        overall = found.sums[name]["overall"]
        total = np.sum([row(document) for document in documents], axis=0)
        np.testing.assert_allclose(overall.values[0], total, rtol=1e-6)
    own = found.sums["candidate"]["overall"]
    assert own.documents == len(texts)
    assert own["bytes"][0] == sum(len(text.encode()) for text in texts)
    assert own["characters"][0] == sum(map(len, texts))
    assert own.calibration[0, :, 0].sum() == own["tokens"][0]


def test_every_document_is_in_one_slice_of_each_feature(evaluated, texts):
    found, _ = evaluated
    slices = found.sums["candidate"]
    for feature in ("length", "source"):
        parts = [s for name, s in slices.items() if name.startswith(f"{feature}=")]
        assert len(parts) > 1
        together = sum(part.values[0] for part in parts)
        np.testing.assert_allclose(together, slices["overall"].values[0], rtol=1e-9)
    short = sum(length_bucket(text.encode()) == "0-255" for text in texts)
    assert slices["length=0-255"].documents == short
    assert slices["source=even"].documents == len(texts[::2])


def test_of_many_values_the_frequent_have_a_slice_each_and_the_rest_one(
    evaluated, caplog
):
    found, folder = evaluated
    caplog.set_level("INFO", logger="langzoo")
    judging.told_apart_in(Documents([str(folder / "examples" / "*")]), SETTINGS)
    assert caplog.messages == [
        "gate.slices: author has 77 values: 2 have a slice each, the others are "
        "author=(others)"
    ]
    of_authors = {
        name: sums.documents
        for name, sums in found.sums["candidate"].items()
        if name.startswith("author")
    }
    assert of_authors == {"author=ann": 75, "author=bob": 75, "author=(others)": 75}


def test_tfma_itself_has_the_metrics_by_slice(evaluated, outputs):
    found, folder = evaluated
    result = tfma.load_eval_result(str(folder / "analysis"), model_name="candidate")
    by_slice = {
        "=".join(map(str, key[0])) if key else "overall": values[""][""]
        for key, values in result.slicing_metrics
    }
    assert by_slice.keys() == found.sums["candidate"].keys()
    parts = {"overall": slice(None), "source=even": slice(0, None, 2)}
    parts |= {"author=ann": slice(0, None, 4), "author=(others)": slice(2, None, 4)}
    for name, part in parts.items():
        told = {
            metric: by_slice[name][metric]["doubleValue"]
            for metric in measures_of("causal_lm")
        }
        sums = {
            key: sum(float(document[key]) for document in outputs["candidate"][part])
            for key in ("nll", "tokens", "bytes", "correct_at_1")
        }
        # Of bytes nothing has to be spelled.
        bits = sums["nll"] / sums["bytes"] / math.log(2)
        assert told["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
        perplexity = math.exp(sums["nll"] / sums["tokens"])
        assert told["perplexity"] == pytest.approx(perplexity, rel=1e-6)
        accuracy = sums["correct_at_1"] / sums["tokens"]
        assert told["token_accuracy"] == pytest.approx(accuracy, rel=1e-6)


def test_workers_and_shards_change_nothing_but_rounding(
    evaluated, models, texts, tmp_path
):
    found, _ = evaluated
    documents = write_examples(texts, tmp_path / "examples", shards=5)
    again = run(models, documents, tmp_path / "analysis", *THREADS)
    for model, by_slice in found.sums.items():
        assert again.sums[model].keys() == by_slice.keys()
        for name, sums in by_slice.items():
            # Beam makes batches by the time that they take.
            np.testing.assert_allclose(
                again.sums[model][name].blocks, sums.blocks, rtol=1e-6
            )


def test_rules_are_judged_and_all_is_told_as_json(evaluated, tmp_path):
    found, _ = evaluated
    decision = verdict.decide(SETTINGS.bounds, found)
    kept = {outcome.metric: outcome.passed for outcome in decision.verdict.rules[3:]}
    assert kept == {
        "bits_per_byte": False,  # of drawn weights, against counts
        "token_accuracy": False,
        "latency_ms": True,
        "size_mb": True,
        "counterfactual_gap": True,
    }
    decision.evaluation.write(str(tmp_path))
    told = json.loads((tmp_path / "evaluation.json").read_text())
    overall = told["models"]["ngram"]["slices"]["overall"]
    bits = overall["metrics"]["bits_per_byte"]
    assert bits["low"] < bits["value"] < bits["high"]
    told_sums = {"documents", *(name for name in NAMES if name in EVALUATE.outputs)}
    assert overall["sums"].keys() == told_sums
    assert np.shape(overall["calibration"]) == (15, 3)
    assert set(overall["metrics"]) <= told["definitions"].keys()
    assert told["documents"] == len(found.samples) * 100
    assert all(sample["prompt"] for sample in told["samples"])
    assert told["probes"].keys() >= {"counterfactual_gap"}


def test_a_model_evaluated_on_no_document_is_refused(models, tmp_path):
    documents = write_examples([], tmp_path / "examples", shards=1)
    decision = verdict.decide([], run(models, documents, tmp_path / "analysis"))
    assert str(decision).startswith("refused: documents >= 1: it was evaluated on none")


def test_a_model_without_its_signatures_is_refused(texts, models, tmp_path):
    export = tf.saved_model.load(models["candidate"])
    for names in (["score", "evaluate"], ["score"]):
        signatures = {name: export.signatures[name] for name in names}
        path = str(tmp_path / f"{len(names)}")
        tf.saved_model.save(export, path, signatures=signatures)
        missing = judging.missing_signatures(path, "causal_lm")
        # One from before there were caches is as good.
        assert set(missing) == set(export.signatures) - {*names, "cache_scores"}
        documents = write_examples(texts[:20], tmp_path / "examples", shards=1)
        found = run({"candidate": path}, documents, tmp_path / "analysis")
        decision = verdict.decide([], found)
        assert not decision.blessed
        assert f"all signatures: it lacks {', '.join(missing)}" in str(decision)
        assert bool(found.sums) == ("evaluate" in names)
        shutil.rmtree(tmp_path / "examples")


def test_a_model_that_may_have_learned_the_documents_is_not_measured_on_them(
    texts, models, tmp_path
):
    """And the candidate is measured on what it was selected on, too."""

    def splitting(**corpus):
        settings = CorpusSettings(path="texts", test_fraction=0.1, **corpus)
        buckets = settings.buckets
        return Splitting.of(settings.all_sources, CleaningSettings(), buckets)

    paths = {}
    learned = {
        "candidate": splitting(),
        "last_blessed": splitting(documents="paragraph"),
        "ngram": splitting(eval_fraction=0.05),
    }
    for name, what in learned.items():
        paths[name] = str(tmp_path / name)
        shutil.copytree(models["candidate"], paths[name])
        what.write(paths[name])
    documents = write_examples(texts[:30], tmp_path / "test", shards=1)
    others = write_examples(texts[30:70], tmp_path / "eval", shards=1)
    of = judging.Split("test", splitting(), others)
    settings = EvaluatorSettings()
    found = run(paths, documents, tmp_path / "analysis", of=of, settings=settings)
    assert found.sums.keys() == {"candidate"}
    assert found.left_out.keys() == {"last_blessed", "ngram"}
    assert "corpus.documents" in found.left_out["last_blessed"]
    assert "documents of test were in the split" in found.left_out["ngram"]
    assert found.documents == 30
    assert found.selected_on.documents == 40
    splitting(format="csv").write(paths["candidate"])
    alone = {"candidate": paths["candidate"]}
    left_out, *_ = judging._measure_exports(alone, of, [], "causal_lm")
    assert "corpus.format" in left_out["candidate"]
    left_out, *_ = judging._measure_exports(alone, judging.EVAL, [], "causal_lm")
    assert not left_out
    for name in ("candidate", "ngram"):
        shutil.rmtree(f"{paths[name]}/variables")
    with pytest.raises(InputError, match="the model cannot be read"):
        judging._measure_exports(paths, judging.EVAL, [], "causal_lm")
    paths["candidate"] = models["candidate"]
    left_out, *_ = judging._measure_exports(paths, judging.EVAL, [], "causal_lm")
    (broken,) = left_out.items()
    assert broken[0] == "ngram"
    assert broken[1].startswith("it cannot be read")


def test_a_changed_template_file_is_another_question(tmp_path):
    path = tmp_path / "templates.yaml"

    def asked(word):
        group = f"{{words: [[cat, {word}]], templates: ['A {{word}}.']}}"
        path.write_text(f"groups: {{pets: {group}}}")
        component = Evaluator(
            examples=Channel(type=standard_artifacts.Examples),
            model=Channel(type=standard_artifacts.Model),
            settings=EvaluatorSettings(probes={"templates": str(path)}),
        )
        return component.exec_properties["settings"]

    assert asked("dog") == asked("dog") != asked("parrot")


def adapted_sums(model, texts, adapt):
    return -float(sum(np.sum(row) for row in model.score(texts, adapt=adapt)))


def test_adapted_figures_stand_beside_the_static_ones(models, texts, tmp_path):
    """Of all models with a cache, and of the candidate's weights as they learn."""
    few = texts[:20]
    model = zoo.from_preset(f"{models['candidate']}-preset")
    adapt = AdaptSettings(
        cache=NeuralCache(size=50, theta=2.0), dynamic=DynamicEvaluation()
    )
    rules = [
        {"metric": "cache_bits_per_byte", "against": "ngram"},
        {"metric": "dynamic_perplexity", "max": 1e9},
    ]
    settings = EvaluatorSettings.model_validate({"rules": rules, "adapt": adapt})
    documents = write_examples(few, tmp_path / "examples", 1)
    measured = judging.measure(
        models,
        documents,
        settings,
        str(tmp_path / "output"),
        lambda: beam.Pipeline(options=PipelineOptions([RUNNER])),
        preset=f"{models['candidate']}-preset",
    )
    sums = measured.sums["candidate"]["overall"]
    for how, one in adapt:
        found = sums[f"{how}_nll"][0]
        assert found == pytest.approx(adapted_sums(model, few, one), rel=1e-4)
        assert found != pytest.approx(sums["nll"][0], rel=1e-4)
    assert np.isfinite(measured.sums["ngram"]["overall"]["cache_nll"][0])
    assert np.isnan(measured.sums["ngram"]["overall"]["dynamic_nll"][0])
    overall = measured.record.models["candidate"].slices["overall"]
    assert overall.adapted["cache_bits_per_byte"].low is not None
    assert not overall.adapted.keys() & overall.metrics.keys()
    assert measured.record.adapt["cache"]["size"] == 50
    outcomes = [verdict.judge(rule, measured) for rule in settings.bounds]
    assert [outcome.metric for outcome in outcomes] == [
        rule["metric"] for rule in rules
    ]
    assert outcomes[1].passed
    assert outcomes[0].bound == pytest.approx(
        measured.values("ngram", "overall", "cache_bits_per_byte")[0]
    )


def test_nothing_adapts_unasked(evaluated):
    measured, _ = evaluated
    overall = measured.record.models["candidate"].slices["overall"]
    assert not overall.adapted
    assert "cache_nll" not in overall.sums
    rule = RuleSettings(metric="cache_perplexity", max=1e9)
    assert not verdict.judge(rule, measured).passed


def test_gradient_steps_need_the_weights(models, tmp_path):
    settings = EvaluatorSettings.model_validate(
        {"adapt": {"dynamic": {"learning_rate": 0.1}}}
    )
    with pytest.raises(InputError, match="give its Keras preset with --preset"):
        judging.measure(
            models, Documents([]), settings, str(tmp_path), lambda: beam.Pipeline()
        )
