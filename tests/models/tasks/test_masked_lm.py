"""Masked language models: KerasHub's contract and its BERT, gaps and pseudo-scores."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models import ByteTokenizer, zoo
from langzoo.models.families.bert.backbone import BertBackbone
from langzoo.models.families.bert.family import ARCHITECTURES
from langzoo.models.importing.keras_hub import from_keras_hub
from langzoo.models.tasks import hiding
from langzoo.models.tasks.both_ways import map_asked
from langzoo.models.tasks.masked_lm import MaskedLM, MaskedLMPreprocessor
from langzoo.models.tokenizers.bert import BertTokenizer

test_case = pytest.importorskip("keras_hub.src.tests.test_case")
SIZES = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8}
TEXT = "To be, or not to be, that is the question."


def make(context_length=16, **settings):
    keras.utils.set_random_seed(0)
    sizes = {**SIZES, "initializer_range": 0.3, **settings}
    return zoo.build("bert", ByteTokenizer(), context_length, task="masked_lm", **sizes)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def harness():
    case = test_case.TestCase()
    case.setUp()
    yield case
    case.tearDown()


@pytest.mark.parametrize("settings", [{}, ARCHITECTURES["bert"]], ids=["new", "paper"])
def test_the_backbone_keeps_the_contract_of_keras_hub(harness, settings):
    harness.run_backbone_test(
        cls=BertBackbone,
        init_kwargs={"vocabulary_size": 261, **SIZES, **settings},
        input_data={
            "token_ids": np.ones((2, 5), "int32"),
            "padding_mask": np.ones((2, 5), "bool"),
        },
        expected_output_shape=(2, 5, 8),
    )


def test_the_task_keeps_the_contract_of_keras_hub(harness):
    # As in KerasHub's own tests nothing is left to chance.
    preprocessor = MaskedLMPreprocessor(
        ByteTokenizer(),
        sequence_length=8,
        mask_selection_rate=1.0,
        mask_selection_length=8,
        mask_token_rate=1.0,
        random_token_rate=0.0,
    )
    harness.run_task_test(
        cls=MaskedLM,
        init_kwargs={
            "backbone": BertBackbone(261, **SIZES),
            "preprocessor": preprocessor,
        },
        train_data=(["From fairest creatures", "we desire increase"],),
        expected_output_shape=(2, 8, 261),
    )


def test_logits_are_those_of_keras_hubs_bert():
    keras.utils.set_random_seed(0)
    theirs = keras_hub.models.BertMaskedLM(
        keras_hub.models.BertBackbone(
            vocabulary_size=40,
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=12,
        )
    )
    generator = np.random.default_rng(0)
    theirs.set_weights(
        [generator.normal(0, 0.5, weight.shape) for weight in theirs.get_weights()]
    )
    ours = from_keras_hub(theirs)
    ids = generator.integers(0, 40, (3, 12))
    there = np.arange(12) < np.array([[12], [7], [1]])
    inputs = {"token_ids": ids, "padding_mask": there}
    inputs["mask_positions"] = np.array([[0, 3], [6, 2], [0, 0]])
    segments = {"segment_ids": np.zeros_like(ids)}
    expected = theirs({**inputs, **segments, "padding_mask": there.astype("int32")})
    np.testing.assert_allclose(ours(inputs), expected, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, ARCHITECTURES["bert"]], ids=["new", "paper"])
def test_a_position_sees_all_others_but_padding(settings):
    backbone = BertBackbone(261, max_sequence_length=16, **SIZES, **settings)
    ids = np.arange(4, 12)[None]
    there = np.arange(8)[None] < 6

    def states(ids):
        return backbone({"token_ids": ids, "padding_mask": there}).numpy()[0, :6]

    plain = states(ids)
    changed = np.where(np.arange(8) == 5, 99, ids)
    assert (np.abs(states(changed) - plain).max(axis=1) > 1e-6).all()
    behind = np.where(np.arange(8) == 6, 99, ids)
    np.testing.assert_allclose(states(behind), plain, atol=1e-6)
    short = backbone({"token_ids": ids[:, :6], "padding_mask": there[:, :6]})
    np.testing.assert_allclose(short[0], plain, atol=1e-5)


def test_attention_is_to_both_sides():
    backbone = BertBackbone(261, max_sequence_length=16, **SIZES)
    weights = backbone.attention_weights(tf.constant([[5, 6, 7, 8]])).numpy()
    assert weights.shape == (1, 1, 2, 4, 4)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)


def test_a_score_is_of_each_token_where_it_alone_is_hidden(model):
    text = "to be or not"  # with both ends as long as a window
    ids = [2, *ByteTokenizer()(text), 3]
    expected = []
    for place in range(1, len(ids) - 1):
        hidden = np.array([ids])
        hidden[0, place] = 260
        inputs = {"token_ids": hidden, "padding_mask": np.ones_like(hidden, bool)}
        logits = model({**inputs, "mask_positions": np.array([[place]])})
        expected.append(tf.nn.log_softmax(logits)[0, 0, ids[place]].numpy())
    np.testing.assert_allclose(model.score(text), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [None, 1, 7, 16])
def test_every_token_of_a_long_text_has_a_score_once(model, stride):
    scores = model.score([TEXT, "", "a"], stride=stride)
    assert scores.row_lengths().numpy().tolist() == [len(TEXT), 0, 1]
    assert (scores.flat_values.numpy() < 0).all()
    assert model.score("", stride=stride).shape == (0,)
    alone = model.score(TEXT, stride=stride)
    np.testing.assert_allclose(scores[0], alone, atol=1e-5)


def test_a_token_is_told_by_the_window_that_it_is_in_the_middle_of(model):
    documents = tf.RaggedTensor.from_row_lengths(np.arange(100) % 256, [60, 40])
    documents = tf.cast(documents, tf.int32)

    class Spy:
        context_length, preprocessor, backbone = 16, model.preprocessor, model.backbone

        @staticmethod
        def hidden_states(features):
            # How far from the nearer end of its window each place is.
            there = tf.cast(features["padding_mask"], tf.int32)
            before = tf.cumsum(there, axis=1) - 1
            behind = tf.reduce_sum(there, axis=1, keepdims=True) - 1 - before
            return tf.cast(tf.minimum(before, behind), tf.float32)[..., None]

        @staticmethod
        def logits(states):
            return states

    (found,) = map_asked(
        Spy,
        documents,
        tf.ones([100], tf.bool),
        lambda logits, _: (logits[:, 0],),
        (tf.TensorSpec([None], tf.float32),),
        stride=8,
    )
    inner = np.r_[found.numpy()[4:56], found.numpy()[64:96]]
    assert inner.min() >= 3


def test_the_places_of_an_evaluation_depend_on_the_text_alone():
    is_ordinary = hiding.ordinary(ByteTokenizer())
    tokens = ByteTokenizer()([TEXT, TEXT[:5], "", TEXT[::-1]])
    rows, texts = tf.ragged.constant(tokens, tf.int32), [TEXT, TEXT[:5], "", TEXT[::-1]]

    def places(rows, texts):
        hidden = hiding.of_evaluation(rows, tf.constant(texts), is_ordinary)
        return [
            sorted(np.array(at)[np.array(there)].tolist())
            for at, there in zip(hidden.positions, hidden.is_there, strict=True)
        ]

    found = places(rows, texts)
    assert [len(row) for row in found] == [6, 1, 0, 6]
    assert found[0] != found[3]
    for number in (0, 1, 3):
        assert places(rows[number : number + 1], texts[number : number + 1]) == [
            found[number]
        ]
    # With another hash it would be another measure.
    assert found[0] == [5, 15, 16, 27, 33, 35]


@pytest.mark.parametrize(
    ("tokenizer", "token", "index"),
    [
        (ByteTokenizer(), "[MASK]", 260),
        (
            BertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"]),
            "[MASK]",
            4,
        ),
    ],
    ids=["reserved", "its own"],
)
def test_a_tokenizer_has_a_mask_and_its_vocabulary_stays(tokenizer, token, index):
    size = len(tokenizer.get_vocabulary())
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == (token, index)
    assert tokenizer.vocabulary_size() == size
    masked = zoo.build("bert", tokenizer, 16, task="masked_lm", **SIZES)
    assert masked.backbone.vocabulary_size == max(size, index + 1)
    causal = zoo.build("transformer", tokenizer, 16, **SIZES)
    assert causal.backbone.vocabulary_size == size


def test_weights_go_on_head_and_all(model, tmp_path):
    model.save_to_preset(str(tmp_path))
    again = models.MaskedLM.from_preset(str(tmp_path))
    np.testing.assert_allclose(again.score(TEXT), model.score(TEXT), atol=1e-6)
    begun = make(initial_weights=str(tmp_path))
    np.testing.assert_allclose(begun.score(TEXT), model.score(TEXT), atol=1e-6)


def test_a_head_is_as_the_backbone_and_older_ones_as_they_were(model):
    config = model.get_config()
    head = {name: config.pop(name) for name in [*config] if name.startswith("head_")}
    own = {"head_activation": "gelu", "head_norm_epsilon": model.backbone.norm_epsilon}
    assert head == own
    assert models.MaskedLM.from_config(config).head_norm_epsilon == 1e-5


@pytest.mark.parametrize(
    ("family", "task", "said"),
    [("bert", "causal_lm", r"\['masked_lm', "), ("lstm", "masked_lm", "causal_lm")],
)
def test_a_family_that_cannot_learn_a_task_is_refused(family, task, said):
    with pytest.raises(ValueError, match=said):
        zoo.build(family, ByteTokenizer(), 16, task=task)
