"""What the Evaluator's executor reads and leaves, beside what is measured."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf
import unchecked
from langzoo.components.evaluator import executor
from langzoo.components.evaluator.gate import last_blessed
from langzoo.components.evaluator.gate.baseline import BlessedRecord
from langzoo.components.evaluator.records import Evaluation, Verdict
from langzoo.components.evaluator.settings import EvaluatorSettings
from langzoo.components.text_example_gen.records import Splitting
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.zoo import build_causal_lm
from tfx.types import artifact_utils, standard_artifacts

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
SPLITTING = Splitting(
    sources={"texts": {}}, buckets={"train": 800, "eval": 100, "test": 100}
)
SETTINGS = EvaluatorSettings.model_validate(
    {"rules": [{"metric": "bits_per_byte", "against": "last_blessed"}]}
)


@pytest.fixture
def examples(tmp_path):
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path / "examples")
    artifact.split_names = artifact_utils.encode_split_names([*SPLITTING.buckets])
    for number, split in enumerate(SPLITTING.buckets):
        folder = tmp_path / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(folder / "data.gz"), "GZIP") as writer:
            for text in ["a text", "another text", "more"][: number + 1]:
                example = tf.train.Example()
                example.features.feature["text"].bytes_list.value.append(text.encode())
                writer.write(example.SerializeToString())
    SPLITTING.write(artifact.uri)
    return artifact


@pytest.fixture
def unfit(tmp_path):
    """A model without signatures."""
    artifact = standard_artifacts.Model()
    artifact.uri, artifact.id = str(tmp_path / "model"), 7
    path = f"{artifact.uri}/Format-Serving"
    tf.saved_model.save(tf.Module(), path)
    SPLITTING.write(path)
    return artifact


@pytest.fixture
def model(tmp_path):
    artifact = standard_artifacts.Model()
    artifact.uri, artifact.id = str(tmp_path / "model"), 7
    built = build_causal_lm(
        "gated_conv", ByteTokenizer(), 16, num_layers=1, hidden_dim=4
    )
    path = f"{artifact.uri}/Format-Serving"
    unchecked.export(built, path)
    SPLITTING.write(path)
    return artifact


@pytest.fixture
def evaluate(tmp_path):
    """Runs the executor; gives the evaluation, the verdict and the blessing."""

    def run(inputs, **properties):
        evaluation = standard_artifacts.ModelEvaluation()
        blessing = standard_artifacts.ModelBlessing()
        evaluation.uri, blessing.uri = (
            str(tmp_path / "found"),
            str(tmp_path / "blessed"),
        )
        context = executor.Executor.Context(
            beam_pipeline_args=[RUNNER], tmp_dir=str(tmp_path / "tmp"), unique_id="1"
        )
        executor.Executor(context).Do(
            {name: [artifact] for name, artifact in inputs.items()},
            {"evaluation": [evaluation], "blessing": [blessing]},
            {"settings": SETTINGS.dump(), **properties},
        )
        found = Evaluation.read(evaluation.uri)
        return found, Verdict.read(blessing.uri), blessing

    return run


def properties_of(blessing):
    return (
        blessing.get_int_custom_property("blessed"),
        blessing.get_string_custom_property("current_model"),
        blessing.get_int_custom_property("current_model_id"),
        blessing.get_string_custom_property("component_id"),
    )


def test_a_model_that_is_accepted_is_blessed_and_remembered(
    examples, model, evaluate, tmp_path
):
    file = str(tmp_path / "blessed.json")
    gone = last_blessed.Blessed(model_uri=str(tmp_path / "gone"))
    last_blessed.write(file, gone)
    record = BlessedRecord(file=file, push_folder=str(tmp_path / "served"), accept=True)
    found, verdict, blessing = evaluate(
        {"examples": examples, "model": model},
        blessed_record=record.dump(),
        current_component_id="Evaluator",
    )
    assert properties_of(blessing) == (1, model.uri, 7, "Evaluator")
    assert "BLESSED" in os.listdir(blessing.uri)
    assert Splitting.read(blessing.uri) == SPLITTING
    assert verdict.accepted
    assert verdict.baseline.model.startswith(str(tmp_path / "gone"))
    (told,) = (rule for rule in verdict.rules if rule.against == "last_blessed")
    assert "is gone from" in told.reason
    assert (found.split, found.documents) == ("test", 3)
    assert found.selected_on.documents == 2
    kept = last_blessed.entries(file)
    assert kept == [gone, last_blessed.Blessed(model_uri=model.uri, accepted=True)]


def test_a_model_that_is_refused_is_not(examples, unfit, evaluate, tmp_path):
    before = standard_artifacts.Model()
    before.uri, before.id = str(tmp_path / "before"), 3
    file = str(tmp_path / "blessed.json")
    for inputs, others in (
        ({"baseline_model": before}, {}),
        ({}, {"blessed_record": BlessedRecord(file=file, push_folder="no").dump()}),
    ):
        found, verdict, blessing = evaluate(
            {"examples": examples, "model": unfit, **inputs}, **others
        )
        assert properties_of(blessing) == (0, unfit.uri, 7, "")
        left = os.listdir(blessing.uri)
        assert "NOT_BLESSED" in left
        assert "BLESSED" not in left
        assert not verdict.accepted
        assert not last_blessed.entries(file)
        assert found.documents == 0
        if inputs:
            assert blessing.get_int_custom_property("baseline_model_id") == 3
            assert blessing.get_string_custom_property("baseline_model") == before.uri
