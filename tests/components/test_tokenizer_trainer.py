"""What a tokenizer is learned from, and that Transform applies it."""

from __future__ import annotations

import collections
import functools
import random

import keras_hub
import pytest
import sentencepiece
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from langzoo.components import documents
from langzoo.components.errors import InputError
from langzoo.components.tokenizer_trainer import executor
from langzoo.components.tokenizer_trainer.component import TokenizerTrainer
from langzoo.components.tokenizer_trainer.executor import BoundedSample
from langzoo.components.tokenizer_trainer.settings import TokenizerSettings
from langzoo.components.transform import preprocessing
from langzoo.components.types import Tokenizer
from langzoo.models.tokenizers import word_piece, words
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.channel import Channel
from tokenizers import pre_tokenizers

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"

DOCUMENTS = [
    f"document {number} {'x' * (number % 50)}".encode() for number in range(500)
]


def combine(sample, bundles):
    accumulators = []
    for bundle in bundles:
        accumulator = sample.create_accumulator()
        for document in bundle:
            accumulator = sample.add_input(accumulator, document)
        accumulators.append(accumulator)
    return sorted(sample.extract_output(sample.merge_accumulators(accumulators)))


@pytest.mark.parametrize("bundles", [1, 3, 50])
def test_the_sample_depends_on_neither_order_nor_bundles(bundles):
    sample = BoundedSample(max_bytes=5000, seed=1)
    expected = combine(sample, [DOCUMENTS])
    shuffled = random.Random(bundles).sample(DOCUMENTS, len(DOCUMENTS))
    assert combine(sample, [shuffled[i::bundles] for i in range(bundles)]) == expected
    size = sum(map(len, expected))
    assert 5000 - 100 < size <= 5000


def test_the_seed_chooses_the_sample():
    one, two = (combine(BoundedSample(5000, seed), [DOCUMENTS]) for seed in (1, 2))
    assert one != two


def test_a_corpus_within_the_bound_is_taken_whole():
    assert combine(BoundedSample(10**6, 0), [DOCUMENTS]) == sorted(DOCUMENTS)


def test_one_document_over_the_bound_is_kept():
    assert combine(BoundedSample(3, 0), [[b"longer than three"]]) == [
        b"longer than three"
    ]


def save_examples(folder, splits):
    """An Examples artifact; of each split, the documents file by file."""
    for split, files in splits.items():
        (folder / f"Split-{split}").mkdir(parents=True)
        for number, texts in enumerate(files):
            path = str(folder / f"Split-{split}" / f"data-{number}")
            with tf.io.TFRecordWriter(path) as writer:
                for text in texts:
                    example = tf.train.Example()
                    feature = example.features.feature["text"]
                    feature.bytes_list.value.append(text.encode())
                    writer.write(example.SerializeToString())
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(list(splits))
    return artifact


def learn(examples, folder, **options):
    """Runs TokenizerTrainer's executor; gives the tokenizer that Transform reads."""
    component = TokenizerTrainer(Channel(type=standard_artifacts.Examples), **options)
    output = Tokenizer()
    output.uri = str(folder)
    context = executor.Executor.Context(
        tmp_dir=str(folder / "tmp"), beam_pipeline_args=[RUNNER], unique_id="1"
    )
    executor.Executor(context).Do(
        {"examples": [examples]}, {"tokenizer": [output]}, component.exec_properties
    )
    return keras_hub.tokenizers.Tokenizer.from_preset(str(folder))


def commonest(counts, limit):
    ordered = sorted(counts.items(), key=lambda unit: (unit[1], unit[0]), reverse=True)
    return [unit for unit, _ in ordered[:limit]]


@pytest.fixture(scope="module")
def examples(topics, tmp_path_factory):
    train = [topics[:3], [], topics[3:12]]
    splits = {"train": train, "eval": [["䷀ only in evaluation"] * 100]}
    return save_examples(tmp_path_factory.mktemp("examples"), splits)


@pytest.mark.parametrize(
    ("kind", "before", "count"),
    [("characters", 260, collections.Counter), ("words", 4, None)],
)
def test_the_commonest_of_the_whole_train_split_are_listed(
    examples, topics, tmp_path, kind, before, count, caplog
):
    size = 320
    caplog.set_level("INFO", logger="langzoo")
    tokenizer = learn(examples, tmp_path, type=kind, vocabulary_size=size)
    texts = topics[:12]
    counts = count("".join(texts)) if count else words.count_words(texts)
    assert len(counts) > 60
    listed = commonest(counts, size - before)
    assert tokenizer.get_vocabulary()[before:] == listed
    share = 1 - sum(counts[unit] for unit in listed) / counts.total()
    assert 0 < share < 0.5
    assert f"{share:.2%} of the text has no token" in caplog.text


def test_words_may_be_what_stands_between_white_space(tmp_path):
    lines = [f"a b{number % 3} <unk> .\n" * 2 for number in range(9)]
    examples = save_examples(tmp_path / "examples", {"train": [lines]})
    tokenizer = learn(examples, tmp_path, type="words", words="white_space")
    assert set(tokenizer.get_vocabulary()[4:]) == {"a", "b0", "b1", "b2", ".", "\n"}
    with pytest.raises(
        ValueError, match=r"tokenizer\.words white_space is of type words"
    ):
        TokenizerSettings(type="bpe", words="white_space")


def test_a_vocabulary_does_not_depend_on_files_and_bundles(
    examples, topics, tmp_path, monkeypatch
):
    once = learn(examples, tmp_path / "once", type="words")
    monkeypatch.setattr(documents, "_BATCH", 1)
    splits = {"train": [[text] for text in reversed(topics[:12])]}
    other = save_examples(tmp_path / "examples", splits)
    again = learn(other, tmp_path / "again", type="words")
    assert again.get_vocabulary() == once.get_vocabulary()


def test_pieces_are_learned_from_a_sample(examples, topics, tmp_path):
    tokenizer = learn(examples, tmp_path, type="word_piece", vocabulary_size=900)
    assert tokenizer.vocabulary_size() == 900
    texts = topics[:2]
    assert tokenizer.detokenize(tokenizer.tokenize(texts)) == texts


def test_pieces_of_words_are_learned_from_all_words(examples, topics, tmp_path):
    options = {"vocabulary_size": 900, "sample_bytes": 1000}
    tokenizer = learn(examples, tmp_path, type="word_piece", **options)
    whole = word_piece.train_word_piece(topics[:12], vocabulary_size=900)
    assert tokenizer.get_vocabulary() == whole.get_vocabulary()


def test_a_tokenizer_that_changes_texts_is_a_warning(topics, tmp_path, caplog):
    path = tmp_path / "brought"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(topics[:5]), model_writer=file,
            vocab_size=200, minloglevel=2,
        )  # fmt: skip
    caplog.set_level("INFO", logger="langzoo")
    learn(None, tmp_path / "tokenizer", type="file", path=str(path))
    assert "warning: it changes white space" in caplog.text
    caplog.clear()
    learn(None, tmp_path / "other", type="bytes")
    assert "warning" not in caplog.text


@pytest.mark.parametrize("kind", ["words", "characters", "word_piece"])
def test_nothing_to_count_is_an_input_error(tmp_path, kind):
    empty = save_examples(tmp_path / "examples", {"train": [[""]]})
    with pytest.raises(InputError, match="the split train has no text"):
        learn(empty, tmp_path / "tokenizer", type=kind)


def test_a_file_is_taken_as_it_is(byte_pairs, tmp_path):
    path = tmp_path / "tokenizer.json"
    theirs, _, _ = byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False))
    theirs.save(str(path))
    tokenizer = learn(None, tmp_path / "tokenizer", type="file", path=str(path))
    assert tokenizer.tokenize(["a value"]) == [theirs.encode("a value").ids]
    path.write_text("{}")
    with pytest.raises(InputError, match=rf"tokenizer.type file: tokenizer {path}"):
        learn(None, tmp_path / "other", type="file", path=str(path))


def test_a_changed_file_is_not_served_from_the_cache(tmp_path):
    path = tmp_path / "tokenizer.json"
    hashes = []
    for content in ("{}", "{ }"):
        path.write_text(content)
        examples = Channel(type=standard_artifacts.Examples)
        component = TokenizerTrainer(examples, type="file", path=str(path))
        hashes.append(component.exec_properties["preset_hash"])
    assert len({*hashes, ""}) == 3


@pytest.mark.parametrize("kind", ["words", "characters", "word_piece"])
def test_transform_gives_the_tokenizers_ids(examples, topics, tmp_path, kind):
    folder = tmp_path / "tokenizer"
    tokenizer = learn(examples, folder, type=kind, vocabulary_size=900)
    preprocessing_fn = functools.partial(
        preprocessing.preprocessing_fn, custom_config={"tokenizer": str(folder)}
    )
    texts = [*topics[:3], "", "an unseen wörd\0 "]
    schema = schema_utils.schema_from_feature_spec(
        {"text": tf.io.FixedLenFeature([1], tf.string)}
    )
    with tft_beam.Context(temp_dir=str(tmp_path / "beam"), force_tf_compat_v1=False):
        metadata = dataset_metadata.DatasetMetadata(schema)
        _, transform_fn = (
            [{"text": [text]} for text in texts],
            metadata,
        ) | tft_beam.AnalyzeAndTransformDataset(preprocessing_fn)
        _ = transform_fn | tft_beam.WriteTransformFn(str(tmp_path / "graph"))
    graph = tft.TFTransformOutput(str(tmp_path / "graph"))
    layer = graph.transform_raw_features({"text": tf.constant(texts)[:, tf.newaxis]})
    assert layer["token_ids"].to_list() == tokenizer.tokenize(texts)
