"""What an ingestion says of its documents, and when it refuses them."""

from __future__ import annotations

import hashlib
import logging
import random

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from langzoo.components.errors import InputError
from langzoo.components.example_validator import executor as validator
from langzoo.components.text_example_gen import last_run
from langzoo.components.text_example_gen.profiles import Drift, MakeProfile
from langzoo.components.text_example_gen.records import LastRun, Summary
from langzoo.components.text_example_gen.settings import (
    CleaningSettings,
    SourceSettings,
)
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import json_utils


@pytest.fixture
def ingest(tmp_path, run_example_gen):
    """Runs the executor on lines of text; returns ids by split, and the summary."""
    runs = []

    def run(lines, **options):
        runs.append(lines)
        corpus = tmp_path / "corpus.txt"
        corpus.write_text("\n".join(lines))
        source = SourceSettings(path=str(corpus), documents="line")
        examples = run_example_gen([source], f"examples-{len(runs)}", **options)
        splits = artifact_utils.decode_split_names(examples.split_names)
        return (
            {split: read_texts(examples, split) for split in splits},
            Summary.read(examples.uri),
        )

    return run


def read_texts(examples, split):
    pattern = f"{artifact_utils.get_split_uri([examples], split)}/*"
    records = tf.data.TFRecordDataset(tf.io.gfile.glob(pattern), "GZIP")
    return [
        tf.train.Example.FromString(record)
        .features.feature["text"]
        .bytes_list.value[0]
        .decode()
        for record in records.as_numpy_iterator()
    ]


@pytest.fixture
def said(caplog):
    """Gives what components have reported since."""
    caplog.set_level(logging.INFO, "langzoo")
    return lambda: caplog.messages


LINES = [f"Line {number} of some text." for number in range(300)]


def test_clean_documents_are_what_is_written_and_the_counts_are_said(ingest, said):
    lines = [*LINES, *LINES[:20], "x", "Write to ann@example.org."]
    steps = CleaningSettings(mask_emails=True, min_characters=5, drop_duplicates=True)
    splits, summary = ingest(lines, cleaning=steps)
    written = [text for texts in splits.values() for text in texts]
    assert sorted(written) == sorted([*LINES, "Write to [EMAIL]."])
    counts = {"emails": 1, "empty": 0, "too_short": 1, "duplicates": 20}
    assert summary.cleaning == counts
    assert sum(summary.documents.values()) == 301
    assert (
        "cleaning: 1 with e-mail addresses masked; dropped 1 too short, "
        "20 duplicates" in said()
    )


def test_without_cleaning_equal_documents_stay_and_their_rate_is_said(ingest, said):
    splits, summary = ingest([*LINES, *LINES])
    assert sum(len(texts) for texts in splits.values()) == 600
    assert summary.cleaning == {}
    assert summary.profiles["train"].duplicate_rate == 0.5
    assert any("50.0% duplicates" in message for message in said())


def test_cleaning_that_leaves_nothing_is_refused_and_says_which_step(ingest):
    with pytest.raises(InputError, match=r"no document is left.*dropped 300 too short"):
        ingest(LINES, cleaning=CleaningSettings(min_bytes=1000))


def test_the_test_split_is_taken_from_train_and_eval_stays_as_it_was(ingest):
    without, _ = ingest(LINES, eval_fraction=0.2)
    with_test, summary = ingest(LINES, eval_fraction=0.2, test_fraction=0.3)
    assert list(without) == ["train", "eval"]
    assert sorted(with_test["eval"]) == sorted(without["eval"])
    assert sorted(with_test["train"] + with_test["test"]) == sorted(without["train"])
    assert 0.2 < len(with_test["test"]) / 300 < 0.4
    assert summary.documents == {name: len(texts) for name, texts in with_test.items()}


def test_splits_are_where_they_were_before_there_was_a_test_split(ingest):
    # As TFX computes it: SHA-256 of the serialized feature, modulo 1000 buckets.
    def bucket(text):
        values = tf.train.BytesList(value=[text.encode()])
        feature = tf.train.Feature(bytes_list=values)
        content = feature.SerializeToString(deterministic=True)
        return int(hashlib.sha256(content).hexdigest(), 16) % 1000

    splits, _ = ingest(LINES, eval_fraction=0.1)
    assert sorted(splits["eval"]) == sorted(t for t in LINES if bucket(t) >= 900)


def test_a_document_keeps_its_split_when_others_are_added_before_it(ingest):
    options = {"test_fraction": 0.2, "cleaning": CleaningSettings(drop_duplicates=True)}
    before, _ = ingest(LINES, **options)
    after, _ = ingest([*(f"New {n}." for n in range(50)), *LINES, *LINES], **options)
    for split, texts in before.items():
        assert set(texts) == set(after[split]) & set(LINES)


def test_a_tenfold_drop_against_the_last_run_is_refused(ingest, tmp_path):
    options = {"record": str(tmp_path / "state" / "record.json"), "eval_fraction": 0.4}
    ingest(LINES, **options)
    for _ in range(2):  # A refused run is not the next one's measure.
        with pytest.raises(
            InputError, match=r"gives 30 .*gave 300 .*allow_fewer_documents"
        ):
            ingest(LINES[:30], **options)
    ingest(LINES[:30], **options, allow_fewer_documents=True)
    ingest(LINES[:30], **options)


def test_drift_since_the_last_run_is_shown_and_a_notable_one_is_a_warning(
    ingest, said, tmp_path
):
    options = {"record": str(tmp_path / "state" / "record.json")}

    def since_the_last_run():
        shown = [m for m in said() if "between the last run and this one" in m]
        return shown and shown[-1].split(", of 1")[0]

    ingest(LINES, **options)
    assert since_the_last_run() == []
    ingest([f"Line {number} of some text." for number in range(400)], **options)
    assert since_the_last_run() == "drift between the last run and this one"
    ingest([f"{number} ЖДЮИ" for number in range(300)], **options)
    assert since_the_last_run() == "warning: drift between the last run and this one"


def test_a_record_without_a_profile_or_of_other_sources_shows_no_drift():
    profile = profile_of(LINES)
    found = LastRun(sources="books", documents=300, profile=profile)
    assert (
        last_run.drift(
            found, LastRun(sources="books", documents=300, profile=profile)
        ).bytes
        == 0
    )
    assert last_run.drift(found, LastRun(sources="books", documents=300)) is None
    assert (
        last_run.drift(
            found, LastRun(sources="letters", documents=300, profile=profile)
        )
        is None
    )
    assert last_run.drift(found, None) is None


def test_only_a_tenfold_drop_in_the_same_sources_is_a_loss():
    last = LastRun(sources="books", documents=300)
    last_run.require_no_loss(LastRun(sources="books", documents=31), last)
    last_run.require_no_loss(LastRun(sources="letters", documents=1), last)
    last_run.require_no_loss(LastRun(sources="books", documents=1), None)
    with pytest.raises(InputError, match="looks like a loss"):
        last_run.require_no_loss(LastRun(sources="books", documents=30), last)


def profile_of(texts, parts=3):
    """The profile, with the texts in several accumulators, as Beam may have them."""
    combine = MakeProfile()
    tallies = []
    for part in range(parts):
        tally = combine.create_accumulator()
        for text in texts[part::parts]:
            tally = combine.add_input(tally, text.encode())
        tallies.append(tally)
    return combine.extract_output(combine.merge_accumulators(tallies))


def test_a_profile_counts_every_byte_and_every_length(topics):
    profile = profile_of(topics)
    joined = np.frombuffer("".join(topics).encode(), np.uint8)
    assert profile.byte_counts == np.bincount(joined, minlength=256).tolist()
    assert sum(profile.lengths) == len(topics)
    sizes = [len(text.encode()) for text in topics]
    for share in (0.05, 0.5, 0.95):
        exact = np.quantile(sizes, share, method="inverted_cdf")
        assert profile.percentile(share) == pytest.approx(exact, rel=0.09)


def test_the_duplicate_rate_is_exact_for_few_and_close_for_many_documents():
    few = [str(number % 1000) for number in range(1500)]
    assert profile_of(few).duplicate_rate == pytest.approx(1 / 3)
    many = [str(number) for number in range(40_000)] + [
        str(number) for number in range(0, 40_000, 4)
    ]
    estimate = profile_of(many)
    assert estimate.duplicate_rate == pytest.approx(0.2, abs=0.02)
    assert profile_of(many[::-1], parts=5).duplicate_rate == estimate.duplicate_rate


def test_the_parts_of_one_text_do_not_drift_and_two_languages_do(topics):
    paragraphs = [part for text in topics for part in text.split("\n\n")]
    random.Random(0).shuffle(paragraphs)
    half = len(paragraphs) // 2
    same = Drift.between(profile_of(paragraphs[:half]), profile_of(paragraphs[half:]))
    assert not same.notable
    cyrillic = str.maketrans("etoinsrhl", "джюиншйцл")
    foreign = [text.translate(cyrillic) for text in paragraphs[half:]]
    other = Drift.between(profile_of(paragraphs[:half]), profile_of(foreign))
    assert other.bytes > 0.1 > same.bytes
    assert other.notable


def test_documents_ten_times_longer_are_a_notable_drift():
    short = profile_of(["word " * (1 + n % 7) for n in range(200)])
    long = profile_of(["word " * 10 * (1 + n % 7) for n in range(50)])
    drift = Drift.between(short, long)
    assert (drift.bytes, drift.notable) == (0, True)
    few = Drift.between(profile_of(["word " * 6] * 3), profile_of(["word " * 7] * 2))
    assert not few.notable  # So few may differ by chance.


def test_nothing_in_common_is_a_drift_of_one():
    assert Drift.between(profile_of(["aaaa"]), profile_of(["b"])).bytes == 1


@pytest.fixture
def validate(tmp_path):
    """Runs the validator on the texts of a split, against a schema."""

    def run(examples, schema):
        statistics = standard_artifacts.ExampleStatistics()
        anomalies = standard_artifacts.ExampleAnomalies()
        schema_artifact = standard_artifacts.Schema()
        for name, artifact in [
            ("statistics", statistics),
            ("anomalies", anomalies),
            ("schema", schema_artifact),
        ]:
            artifact.uri = str(tmp_path / name)
        statistics.split_names = artifact_utils.encode_split_names(["train"])
        found = tfdv.generate_statistics_from_dataframe(pd.DataFrame(examples))
        folder = tmp_path / "statistics" / "Split-train"
        folder.mkdir(parents=True)
        (folder / "FeatureStats.pb").write_bytes(found.SerializeToString())
        (tmp_path / "schema").mkdir()
        (tmp_path / "schema" / "schema.pbtxt").write_text(schema)
        inputs = {"statistics": [statistics], "schema": [schema_artifact]}
        properties = {"exclude_splits": json_utils.dumps([])}
        validator.Executor().Do(inputs, {"anomalies": [anomalies]}, properties)

    return run


def schema_of(*features):
    schema = schema_pb2.Schema()
    for name, fraction in features:
        feature = schema.feature.add(name=name, type=schema_pb2.BYTES)
        feature.presence.min_fraction = fraction
    return text_format.MessageToString(schema)


def test_examples_as_the_schema_says_pass_in_silence(validate, said):
    validate({"text": ["one", "two"]}, schema_of(("text", 1)))
    assert said() == []


def test_an_anomaly_that_is_no_loss_is_a_warning(validate, said):
    examples = {"text": ["one", "two"], "label": ["a", "b"]}
    validate(examples, schema_of(("text", 1)))
    (message,) = said()
    assert message.startswith("warning: train: label: ")


def test_a_missing_label_is_a_warning(validate, said):
    examples = {"text": ["one", "two"], "label": ["a", None]}
    validate(examples, schema_of(("text", 1), ("label", 1)))
    (message,) = said()
    assert message.startswith("warning: train: label: ")


def test_a_label_that_some_examples_lack_is_a_warning_even_where_the_schema_allows_it(
    validate, said
):
    examples = {"text": ["one", "two", "three"], "label": ["a", None, "b"]}
    validate(examples, schema_of(("text", 1), ("label", 0)))
    assert said() == ["warning: train: label: missing in 1 of 3 examples"]


def test_a_label_that_a_whole_split_lacks_is_a_warning(said):
    frames = {"train": {"text": ["a"], "label": ["x"]}, "eval": {"text": ["b", "c"]}}
    found = {
        split: tfdv.generate_statistics_from_dataframe(pd.DataFrame(frame)).datasets[0]
        for split, frame in frames.items()
    }
    for split in found:
        validator._show_missing(split, found, {})
    assert said() == ["warning: eval: label: missing in 2 of 2 examples"]


def test_examples_without_text_are_refused(validate):
    with pytest.raises(InputError, match="'train' has no feature 'text'"):
        validate({"label": ["a"]}, schema_of(("label", 1)))


def test_empty_texts_are_refused(validate):
    with pytest.raises(InputError, match="'train' has only empty texts"):
        validate({"text": ["", ""]}, schema_of(("text", 1)))


def test_some_examples_without_text_are_refused(validate):
    examples = {"text": ["one", None], "label": ["a", "b"]}
    with pytest.raises(InputError, match="'train' has lost texts"):
        validate(examples, schema_of(("text", 1), ("label", 1)))
