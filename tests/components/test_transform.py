"""From examples with labels to transformed ones, through the components themselves."""

from __future__ import annotations

import json
import logging

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from langzoo.components.example_validator.component import ExampleValidator
from langzoo.components.statistics_gen.component import StatisticsGen
from langzoo.components.text_example_gen.documents import Document
from langzoo.components.text_example_gen.executor import to_example
from langzoo.components.tokenizer_trainer.component import TokenizerTrainer
from langzoo.components.trainer.jobs import Job
from langzoo.components.trainer.rows import seq_to_seq
from langzoo.components.trainer.rows.seq_to_seq import PairedRows
from langzoo.components.trainer.rows.windows import read_token_ids
from langzoo.components.transform.component import Transform
from langzoo.components.transform.executor import tokenizer_of
from langzoo.components.transform.records import Tokens, TokenStatistics
from langzoo.components.types import Tokenizer
from langzoo.models import word_tokenizer
from langzoo.models.tasks.scoring import SYMBOL_NLL, spelling_nll
from tensorflow_transform.tf_metadata import schema_utils
from tfx.components import SchemaGen
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.channel import Channel
from tfx.utils import io_utils

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# By split: text, sentiment, and a source that only some know.
DOCUMENTS = {
    "train": [
        ("a b", "good", "x"),
        ("b b naïve", "bad", None),
        ("a a a a", "good", "y"),
    ],
    "eval": [("a unknown", "bad", None), ("b", "new", "x")],
}


def example_of(text, label, source):
    example = tf.train.Example()
    for name, value in {"text": text, "label": label, "source": source}.items():
        if value is not None:
            values = example.features.feature[name].bytes_list.value
            values.append(value.encode())
    return example.SerializeToString()


def save_examples(folder):
    for split, documents in DOCUMENTS.items():
        path = folder / f"Split-{split}" / "data.gz"
        path.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for document in documents:
                writer.write(example_of(*document))
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(list(DOCUMENTS))
    return artifact


def execute(component, inputs, folder):
    """Runs a component's executor; gives its outputs."""
    outputs = {}
    for name, channel in component.outputs.items():
        artifact = channel.type()
        artifact.uri = str(folder / component.id / name)
        outputs[name] = [artifact]
    executor_class = component.executor_spec.executor_class
    uses_beam = issubclass(executor_class, base_beam_executor.BaseBeamExecutor)
    context = executor_class.Context(
        tmp_dir=str(folder / component.id / "tmp"),
        unique_id="1",
        **({"beam_pipeline_args": [RUNNER]} if uses_beam else {}),
    )
    executor_class(context).Do(inputs, outputs, component.exec_properties)
    return outputs


@pytest.fixture(scope="module")
def said():
    """What components have reported so far."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("langzoo")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="module")
def outputs(said, tmp_path_factory):
    """All outputs of the components, from statistics to transformed examples."""
    folder = tmp_path_factory.mktemp("transform")
    examples = [save_examples(folder / "examples")]
    tokenizer = Tokenizer()
    tokenizer.uri = str(folder / "tokenizer")
    word_tokenizer(["a", "b", " a", " b"]).save_to_preset(tokenizer.uri)

    def channel(kind):
        return Channel(type=kind)

    found = execute(
        StatisticsGen(channel(standard_artifacts.Examples), ["label", "source"]),
        {"examples": examples},
        folder,
    )
    statistics = channel(standard_artifacts.ExampleStatistics)
    found |= execute(
        SchemaGen(statistics, infer_feature_shape=True),
        {"statistics": found["statistics"]},
        folder,
    )
    schema = channel(standard_artifacts.Schema)
    execute(
        ExampleValidator(statistics=statistics, schema=schema),
        {"statistics": found["statistics"], "schema": found["schema"]},
        folder,
    )
    transform = Transform(
        examples=channel(standard_artifacts.Examples),
        schema=schema,
        tokenizer=channel(Tokenizer),
    )
    inputs = {"examples": examples, "schema": found["schema"], "tokenizer": [tokenizer]}
    return found | execute(transform, inputs, folder)


def read_transformed(outputs, split):
    uri = artifact_utils.get_split_uri(outputs["transformed_examples"], split)
    graph = tft.TFTransformOutput(outputs["transform_graph"][0].uri)
    records = tf.data.TFRecordDataset(tf.io.gfile.glob(f"{uri}/*"), "GZIP")
    (batch,) = records.batch(99)
    return tf.io.parse_example(batch, graph.transformed_feature_spec())


@pytest.mark.parametrize("split", DOCUMENTS)
def test_labels_go_with_the_tokens_and_may_be_missing(outputs, split):
    features = read_transformed(outputs, split)
    assert set(features) == {"token_ids", "label", "source"}
    for column, name in ((1, "label"), (2, "source")):
        values = [document[column] for document in DOCUMENTS[split]]
        expected = [[value.encode()] if value else [] for value in values]
        assert sorted(features[name].to_list()) == sorted(expected)


def test_the_trainer_reads_tokens_as_it_does_without_labels(outputs):
    uri = artifact_utils.get_split_uri(outputs["transformed_examples"], "train")
    graph = outputs["transform_graph"][0].uri
    documents = [ids.tolist() for ids in read_token_ids([f"{uri}/*"], graph)]
    unknown = 1
    expected = [[4, 7], [5, 7, unknown], [4, 6, 6, 6]]
    assert sorted(documents) == sorted(expected)


def test_the_trainer_has_few_documents_in_memory(outputs, tmp_path):
    uri = artifact_utils.get_split_uri(outputs["transformed_examples"], "train")
    (path,) = tf.io.gfile.glob(f"{uri}/*")
    records = [*tf.data.TFRecordDataset(path, "GZIP").as_numpy_iterator()]
    with tf.io.TFRecordWriter(str(tmp_path / "data.gz"), "GZIP") as writer:
        for record in [*records * 80, b"not read yet"]:
            writer.write(record)
    graph = outputs["transform_graph"][0].uri
    documents = read_token_ids([f"{tmp_path}/*"], graph)
    assert next(documents).dtype == np.int64
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(documents)


def test_bits_per_byte_in_training_are_those_of_the_gate(outputs, tmp_path):
    uri = artifact_utils.get_split_uri(outputs["transformed_examples"], "eval")
    job = Job(
        model={"family": "ngram", "context_length": 16},
        training={},
        train_files=[f"{uri}/*"],
        eval_files=[f"{uri}/*"],
        transform_graph=outputs["transform_graph"][0].uri,
        checkpoints="",
    )
    job.pack(str(tmp_path))
    model = job.build()
    texts = tf.constant([text for text, *_ in DOCUMENTS["eval"]])
    nll = [-tf.reduce_sum(scores) for scores in model.score(texts)]
    # As `components/evaluator/measures` has it.
    bits = np.sum(nll + spelling_nll(job.tokenizer, texts)) / np.log(2)
    loss = np.sum(nll) / (3 + 2)  # of tokens and ends
    found = job.eval_texts(str(tmp_path)).figure(loss)
    assert found == pytest.approx(bits / (9 + 1))


def test_a_text_without_labels_is_transformed(outputs):
    graph = tft.TFTransformOutput(outputs["transform_graph"][0].uri)
    features = {"text": tf.constant([["a b"], ["b"]])}
    transformed = graph.transform_raw_features(features)
    assert transformed["token_ids"].to_list() == [[4, 7], [5]]


def test_missing_labels_are_warnings(outputs, said):
    warnings = [message for message in said if message.startswith("warning")]
    assert warnings == [
        "warning: train: source: missing in 1 of 3 examples",
        "warning: eval: source: missing in 1 of 2 examples",
    ]


def test_tokens_bytes_and_unknowns_of_each_split_are_kept_and_shown(outputs, said):
    folder = outputs["transformed_examples"][0].uri
    with open(f"{folder}/tokens.json", encoding="utf-8") as file:
        kept = json.load(file)
    counts = {
        "train": {"tokens": 9, "unknown": 1, "bytes": 3 + 10 + 7, "symbols": 7 + 1},
        "eval": {"tokens": 3, "unknown": 1, "bytes": 9 + 1, "symbols": 8 + 1},
    }
    rates = {
        "train": {"bytes_per_token": 20 / 9, "unknown_rate": 1 / 9},
        "eval": {"bytes_per_token": 10 / 3, "unknown_rate": 1 / 3},
    }
    assert kept == {split: counts[split] | rates[split] for split in counts}
    assert "train: 9 tokens of 2.22 bytes, 11.11% unknown" in said
    assert "eval: 3 tokens of 3.33 bytes, 33.33% unknown" in said


def test_no_tokens_have_no_rates():
    nothing = TokenStatistics(tokens=0, unknown=0, bytes=5)
    assert str(nothing) == "0 tokens of 0.00 bytes, 0.00% unknown"
    assert np.isfinite(nothing.bytes_per_token)


@pytest.fixture(scope="module")
def pairs(said, tmp_path_factory):
    """All outputs for documents with targets, of a tokenizer learned from both."""
    folder = tmp_path_factory.mktemp("pairs")
    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    for split, (text, target) in {
        "train": ("a dog a", "ein Hund"),
        "eval": ("ein dog", "a Pferd"),
    }.items():
        path = folder / "examples" / f"Split-{split}" / "data.gz"
        path.parent.mkdir(parents=True)
        example = to_example(Document("x", text, target=target))
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            writer.write(example.SerializeToString())
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in ("text", "target")}
    schema = standard_artifacts.Schema()
    schema.uri = str(folder / "schema")
    io_utils.write_pbtxt_file(
        str(folder / "schema" / "schema.pbtxt"),
        schema_utils.schema_from_feature_spec(spec),
    )
    inputs = {"examples": [examples], "schema": [schema]}
    channel = Channel(type=standard_artifacts.Examples)
    tokenizer = TokenizerTrainer(channel, type="words")
    inputs |= execute(tokenizer, {"examples": [examples]}, folder)
    transform = Transform(
        examples=channel,
        schema=Channel(type=standard_artifacts.Schema),
        tokenizer=Channel(type=Tokenizer),
    )
    return execute(transform, inputs, folder)


def test_targets_become_tokens_by_the_tokenizer_of_the_texts(pairs):
    features = read_transformed(pairs, "train")
    assert set(features) == {"token_ids", "target_ids"}
    tokenizer = tokenizer_of(pairs["transform_graph"][0].uri)
    for name, text in (("token_ids", "a dog a"), ("target_ids", "ein Hund")):
        ids = features[name].to_list()
        assert ids == tokenizer(tf.constant([text])).to_list()
        assert tokenizer.unk_token_id not in ids[0]


def test_what_targets_are_made_of_is_counted_beside_texts(pairs, said):
    kept = Tokens.read(pairs["transformed_examples"][0].uri).splits
    assert kept["train"].bytes == 7
    assert kept["train"].predicted.bytes == 8
    target = kept["eval"].target
    # The word has the blank before it.
    assert (target.bytes, target.unknown, target.symbols) == (7, 1, 6 + 1)
    assert kept["eval"].unknown == 0
    assert f"eval, targets: {target}" in said


def test_a_source_alone_is_transformed(pairs):
    graph = tft.TFTransformOutput(pairs["transform_graph"][0].uri)
    raw = {"text": tf.constant([["a dog"]])}
    transformed = graph.transform_raw_features(raw, drop_unused_features=True)
    tokenizer = tokenizer_of(pairs["transform_graph"][0].uri)
    expected = tokenizer(tf.constant(["a dog"]))
    assert transformed["token_ids"].to_list() == expected.to_list()


def test_rows_of_transformed_pairs_have_both_and_bits_are_of_targets(pairs, tmp_path):
    graph = pairs["transform_graph"][0].uri
    tokenizer = tokenizer_of(graph)
    uri = artifact_utils.get_split_uri(pairs["transformed_examples"], "eval")
    path = str(tmp_path / "eval")
    seq_to_seq.write_documents(path, [f"{uri}/*"], graph, tokenizer)
    [(features, targets, weights)] = PairedRows(path, 8).evaluation_batches(1)
    source, target = (
        tokenizer(text).numpy().tolist() for text in ("ein dog", "a Pferd")
    )
    start, end = tokenizer.start_token_id, tokenizer.end_token_id
    assert features["encoder_token_ids"].numpy().tolist() == [[*source, end]]
    assert features["decoder_token_ids"].numpy().tolist() == [[start, *target]]
    assert targets.numpy().tolist() == [[*target, end]]
    assert weights.numpy().all()
    job = Job({}, {}, [], [f"{uri}/*"], graph, "")
    texts = job.eval_texts(str(tmp_path))
    assert texts.bytes == 7
    assert texts.targets == len(target) + 1
    assert texts.spelling_nll == pytest.approx(7 * SYMBOL_NLL)
