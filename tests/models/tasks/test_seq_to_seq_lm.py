"""Models that read a source keep the task's contract, whatever their family."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models import zoo
from langzoo.models.backbone import served_graphs
from langzoo.models.families import FAMILIES
from langzoo.models.families.encoder_decoder.family import ARCHITECTURES
from langzoo.models.tasks import SEQ_TO_SEQ_LM, TASKS, pairs
from langzoo.models.tasks.seq_to_seq_lm import Given
from langzoo.models.tokenizers.words import word_tokenizer

CONTEXT, SOURCE = 20, 24
_STACK = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16}
CASES = {
    "transformer": ("encoder_decoder", {**_STACK, "num_key_value_heads": 1}),
    "vaswani": (
        "encoder_decoder",
        {**_STACK, **ARCHITECTURES["vaswani"], "num_encoder_layers": 1},
    ),
    "gru": ("rnn_attention", {"hidden_dim": 16}),
    "lstm_fed": (
        "rnn_attention",
        {
            "cell": "lstm",
            "hidden_dim": 16,
            "num_decoder_layers": 2,
            "embedding_dim": 12,
            "attention": "additive",
            "input_feeding": True,
            "dropout": 0.1,
        },
    ),
    "conv": (
        "conv_s2s",
        {"num_layers": 2, "hidden_dim": 16, "share_embeddings": False},
    ),
}
SOURCES = ["From fairest creatures", "To be", "a"]
TARGETS = ["we desire", "or not", "x"]


def built(case, tokenizer=None, **options):
    family, sizes = CASES[case]
    tokenizer = tokenizer or models.ByteTokenizer()
    given = {"source_context_length": SOURCE, **sizes, **options}
    return zoo.build(family, tokenizer, CONTEXT, task=SEQ_TO_SEQ_LM, **given)


@pytest.fixture(scope="module", params=CASES)
def model(request):
    """A tiny model of each kind, with weights that are drawn wide apart."""
    keras.utils.set_random_seed(3)
    model = built(request.param)
    generator = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign_add(generator.normal(scale=0.1, size=weight.shape))
    return model


def inputs_of(model, sources=SOURCES, targets=TARGETS, width=CONTEXT):
    preprocessor = model.preprocessor
    targets = preprocessor.target_ids(targets)[:, :-1]
    return {
        **preprocessor.source_inputs(preprocessor.source_ids(sources)),
        **preprocessor.target_inputs(targets, width),
    }


def memory_of(model, inputs):
    return model.encode(inputs["encoder_token_ids"], inputs["encoder_padding_mask"])


# --- What sees what ---


def test_logits_have_the_shape_and_type_of_the_contract(model):
    logits = model(inputs_of(model))
    assert logits.shape == (3, CONTEXT, 260)
    assert logits.dtype == tf.float32
    assert (model.context_length, model.source_context_length) == (CONTEXT, SOURCE)


def test_the_decoder_sees_no_later_token_of_the_target(model):
    inputs = inputs_of(model)
    before = model(inputs).numpy()
    later = tf.range(CONTEXT) >= 4
    changed = tf.where(later, 50, inputs["decoder_token_ids"])
    after = model({**inputs, "decoder_token_ids": changed}).numpy()
    np.testing.assert_allclose(after[:, :4], before[:, :4], atol=1e-5)
    assert np.abs(after[:, 4] - before[:, 4]).max() > 1e-4


def test_what_is_first_in_the_target_depends_on_all_of_the_source(model):
    length = len(SOURCES[0]) + 1
    inputs = inputs_of(model, SOURCES[:1] * (length + 1), TARGETS[:1] * (length + 1), 2)
    # Of the last row nothing is changed.
    is_changed = tf.range(length) == tf.range(length + 1)[:, tf.newaxis]
    changed = tf.where(is_changed, 50, inputs["encoder_token_ids"])
    logits = model({**inputs, "encoder_token_ids": changed}).numpy()[:, 0]
    assert np.abs(logits[:-1] - logits[-1]).max(axis=1).min() > 1e-5


def test_a_batch_gives_what_each_pair_gives_alone(model):
    batch = model(inputs_of(model)).numpy()
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        length = len(target) + 1
        alone = model(inputs_of(model, [source], [target], length)).numpy()
        np.testing.assert_allclose(batch[row, :length], alone[0], atol=1e-5)


# --- The cache ---


def test_cached_logits_equal_those_of_the_whole_model(model):
    inputs = inputs_of(model)
    expected, token_ids = model(inputs).numpy(), inputs["decoder_token_ids"]
    memory = memory_of(model, inputs)
    cache = model.prefill(token_ids, 3, memory)
    for index in range(3, CONTEXT):
        column = token_ids[:, index : index + 1]
        logits, states, cache = model.call_with_cache(column, cache, index, memory)
        assert states.shape[:2] == (3, 1)
        np.testing.assert_allclose(logits[:, 0], expected[:, index], atol=2e-5)


def test_targets_of_one_source_share_what_was_read_of_it(model):
    inputs = inputs_of(model)
    token_ids = tf.constant(np.random.default_rng(0).integers(4, 260, (6, CONTEXT)))
    repeated = {name: tf.repeat(part, 2, axis=0) for name, part in inputs.items()}
    repeated["decoder_token_ids"] = token_ids
    expected = model(repeated).numpy()
    given = Given(model, memory_of(model, inputs))
    cache = given.prefill(token_ids, 3)
    logits, _, _ = given.call_with_cache(token_ids[:, 3:4], cache, 3)
    np.testing.assert_allclose(logits[:, 0], expected[:, 3], atol=2e-5)
    assert given.context_length == CONTEXT


@pytest.mark.parametrize("length", [0, 1, 5, CONTEXT])
def test_prefill_ignores_columns_from_length_on(model, length):
    inputs = inputs_of(model)
    token_ids, memory = inputs["decoder_token_ids"], memory_of(model, inputs)
    expected = tf.nest.flatten(model.prefill(token_ids, length, memory))
    changed = tf.where(tf.range(CONTEXT) < length, token_ids, 9)
    with served_graphs():
        caches = [model.prefill(ids, length, memory) for ids in (changed, token_ids)]
    for cache in caches:
        for part, other in zip(tf.nest.flatten(cache), expected, strict=True):
            np.testing.assert_allclose(part, other, atol=1e-6)


def test_no_targets_and_no_sources_are_no_error(model):
    nothing = {name: part[:0] for name, part in inputs_of(model).items()}
    memory = memory_of(model, nothing)
    token_ids = nothing["decoder_token_ids"]
    cache = model.prefill(token_ids, 2, memory)
    logits, _, _ = model.call_with_cache(token_ids[:, :1], cache, 2, memory)
    assert logits.shape[0] == 0


# --- Writing ---


def greedy_by_hand(model, inputs):
    ids = np.array(inputs["decoder_token_ids"])
    mask = np.array(inputs["decoder_padding_mask"])
    whole = tf.function(model)
    for index in range(mask.sum(axis=1).min(), ids.shape[1]):
        logits = whole({**inputs, "decoder_token_ids": tf.constant(ids)})
        choice = np.argmax(logits[:, index - 1], axis=-1)
        ids[:, index] = np.where(mask[:, index], ids[:, index], choice)
    return ids


def test_greedy_generation_is_argmax_by_hand_after_unequal_beginnings(model):
    inputs = model.preprocessor.generate_preprocess(
        {"encoder_text": SOURCES, "decoder_text": ["we", "", "x y z"]},
        sequence_length=10,
    )
    expected = greedy_by_hand(model, inputs)
    assert len(np.unique(expected[:, 1:])) > 4  # not one token over and over
    model.compile(sampler="greedy")
    found = model.make_generate_function()(inputs)
    np.testing.assert_array_equal(found["decoder_token_ids"], expected)


@pytest.mark.parametrize("model", ["transformer", "gru", "conv"], indirect=True)
def test_a_beam_search_finds_what_is_at_least_as_likely(model):
    found = {}
    inputs = model.preprocessor.generate_preprocess(SOURCES, sequence_length=6)
    for sampler in (keras_hub.samplers.BeamSampler(4), "greedy"):
        model.compile(sampler=sampler)
        ids = model.make_generate_function()(inputs)["decoder_token_ids"]
        targets = tf.concat([ids[:, 1:], ids[:, :1]], axis=1)
        whole = {**inputs, "decoder_token_ids": ids}
        scores = model.token_log_probabilities(whole, targets)[:, :-1]
        found[str(sampler)] = tf.reduce_sum(scores, axis=1).numpy()
    beam, greedy = found.values()
    assert (beam >= greedy - 1e-5).all()
    assert (beam > greedy + 1e-3).any()


# --- Scores ---


def test_scores_are_the_log_softmax_of_the_logits(model):
    found = model.score(SOURCES, TARGETS)
    logits = model(inputs_of(model))
    log_probabilities = tf.nn.log_softmax(logits).numpy()
    framed = model.preprocessor.target_ids(TARGETS)
    for row, target in enumerate(framed.to_list()):
        by_hand = [log_probabilities[row, i, it] for i, it in enumerate(target[1:])]
        np.testing.assert_allclose(found[row], by_hand, atol=1e-5)
    one = model.score(SOURCES[0], TARGETS[0])
    np.testing.assert_allclose(one, found[0], atol=1e-5)


def test_a_target_longer_than_the_context_is_scored_whole(model):
    long = "as the riper should by time decease"
    found = model.score([SOURCES[0]], [long], stride=CONTEXT)[0]
    assert len(found) == len(long) + 1
    ids = model.preprocessor.target_ids([long])
    for first in (0, CONTEXT):  # windows, each beside the whole source
        window = ids[:, first : first + CONTEXT]
        inputs = inputs_of(model, SOURCES[:1], [""])
        inputs |= model.preprocessor.target_inputs(window)
        following = ids[:, first + 1 : first + CONTEXT + 1]
        count = int(following.row_lengths()[0])
        inputs = {**inputs, "decoder_token_ids": inputs["decoder_token_ids"][:, :count]}
        inputs["decoder_padding_mask"] = inputs["decoder_padding_mask"][:, :count]
        expected = model.token_log_probabilities(inputs, following.to_tensor())[0]
        np.testing.assert_allclose(found[first : first + count], expected, atol=1e-5)


@pytest.mark.parametrize("model", ["transformer"], indirect=True)
def test_scores_want_as_many_targets_and_a_stride_within_the_context(model):
    with pytest.raises(ValueError, match="as many sources as targets"):
        model.score(SOURCES, TARGETS[:2])
    with pytest.raises(ValueError, match=f"from 0 to the context length, {CONTEXT}"):
        model.score(SOURCES, TARGETS, stride=CONTEXT + 1)


# --- Texts ---


@pytest.fixture(scope="module")
def preprocessor():
    return models.SeqToSeqLMPreprocessor(models.ByteTokenizer(), 6, 5)


def test_a_source_ends_in_its_end_and_a_target_begins_with_its_start(preprocessor):
    texts = {"encoder_text": ["ab", "abcdefgh"], "decoder_text": ["c", "cdefgh"]}
    x, y, weight = preprocessor(texts)
    a = 97 + 4  # its id
    assert x["encoder_token_ids"].numpy().tolist() == [
        [a, a + 1, 3, 0, 0, 0],
        [a, a + 1, a + 2, a + 3, a + 4, 3],
    ]
    assert x["decoder_token_ids"].numpy().tolist() == [
        [2, a + 2, 0, 0, 0],
        [2, a + 2, a + 3, a + 4, a + 5],
    ]
    assert y.numpy().tolist() == [
        [a + 2, 3, 0, 0, 0],
        [a + 2, a + 3, a + 4, a + 5, 3],
    ]
    assert weight.numpy().sum(axis=1).tolist() == [2, 5]


def test_which_sources_are_cut_is_told(preprocessor):
    ids = preprocessor.tokenizer.tokenize(tf.constant(["abcde", "abcdef", ""]))
    assert preprocessor.is_cut(ids).numpy().tolist() == [False, True, False]
    framed = preprocessor.framed_sources(tf.cast(ids, tf.int32))
    assert framed.row_lengths().numpy().tolist() == [6, 6, 1]


def test_a_source_is_cut_to_what_is_asked_for(preprocessor):
    texts = {"encoder_text": ["abcde"], "decoder_text": ["c"]}
    asked = {"encoder_sequence_length": 3}
    written = preprocessor.generate_preprocess(texts, **asked)
    for x in (preprocessor(texts, **asked)[0], written):
        assert x["encoder_token_ids"].numpy().tolist() == [[101, 102, 3]]


def test_one_pair_is_no_batch(preprocessor):
    x, y, _ = preprocessor({"encoder_text": "ab", "decoder_text": "c"})
    assert x["encoder_token_ids"].shape == (6,)
    assert y.shape == (5,)


def test_ids_are_framed_whatever_stands_before_and_behind():
    rows = tf.ragged.constant(
        [[7, 8], [], [9]], dtype=tf.int32, row_splits_dtype=tf.int64
    )
    framed = [[1, 2, 7, 8, 3], [1, 2, 3], [1, 2, 9, 3]]
    assert pairs.between((1, 2), rows, (3,)).to_list() == framed
    assert pairs.between((), rows, ()).to_list() == rows.to_list()
    assert pairs.cut_to(rows, 1).to_list() == [[7], [], [9]]


def test_a_model_of_two_tokenizers_is_saved_with_both(tmp_path):
    words = word_tokenizer(["to", " be", " or"])
    model = built("transformer", source_tokenizer=words)
    assert model.backbone.source_embedding.input_dim == words.vocabulary_size() == 7
    model.save_to_preset(str(tmp_path))
    again = zoo.from_preset(str(tmp_path))
    source, target = again.preprocessor.source_tokenizer, again.preprocessor.tokenizer
    assert source.get_vocabulary() == words.get_vocabulary()
    assert target.vocabulary_size() == 260
    inputs = inputs_of(again, ["to be or", "to"], ["x", "yy"])
    assert inputs["encoder_token_ids"].numpy().tolist() == [[4, 5, 6, 3], [4, 3, 0, 0]]
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_a_preset_gives_the_same_model(model, tmp_path):
    model.save_to_preset(str(tmp_path))
    again = models.SeqToSeqLM.from_preset(str(tmp_path))
    assert type(zoo.from_preset(str(tmp_path))) is type(again) is models.SeqToSeqLM
    assert again.source_context_length == SOURCE
    np.testing.assert_array_equal(again(inputs_of(again)), model(inputs_of(model)))


# --- Who can learn it ---


def test_families_that_read_a_source_learn_this_task_and_no_other():
    able = {name for name, family in FAMILIES.items() if family.can(SEQ_TO_SEQ_LM)}
    assert able == {*(family for family, _ in CASES.values()), "keras_hub", "ngram"}
    for name in able - {"keras_hub", "ngram"}:
        others = [task for task in TASKS.values() if task.name != SEQ_TO_SEQ_LM.name]
        assert not [task.name for task in others if FAMILIES[name].can(task)]


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("encoder_decoder", {"task": "causal_lm"}, "can learn"),
        ("lstm", {"task": SEQ_TO_SEQ_LM}, "can learn"),
        ("lstm", {"source_tokenizer": models.ByteTokenizer()}, "that read a source"),
        ("rnn_attention", {"hidden_dim": 15}, "15 must be even"),
        (
            "conv_s2s",
            {"kernel_size": 4},
            "4 must be odd",
        ),
    ],
)
def test_what_cannot_be_is_an_error_of_one_line(family, options, said):
    task = {} if family == "lstm" else {"task": SEQ_TO_SEQ_LM}
    with pytest.raises(ValueError, match=said) as raised:
        zoo.build(family, models.ByteTokenizer(), 16, **{**task, **options})
    assert "\n" not in str(raised.value)


def test_the_transformer_of_2017_has_the_parameters_of_torchs():
    # Of torch.nn.Transformer(512, 8, 6, 6, 2048), which has a norm behind each side.
    blocks = 44_140_544 - 2 * 2 * 512
    size = models.PRESETS["transformer_base_2017"].size
    assert size.parameters == blocks + 37_000 * 512


def test_low_rank_changes_are_learned_by_all_attention():
    backbone = built("transformer").backbone
    backbone.enable_lora(2)
    changed = {weight.path.split("/")[-2] for weight in backbone.trainable_weights}
    assert changed == {"query_key_value", "query", "key_value"}


# --- Learning ---


def test_xla_compiles_the_gradient_of_a_loop_that_attends():
    model = built("lstm_fed", dropout=0.0, num_decoder_layers=1)
    x, y, weight = model.preprocessor(
        {"encoder_text": SOURCES, "decoder_text": TARGETS}, sequence_length=4
    )
    model.preprocessor = None
    first, losses = model.get_weights(), []
    for jit_compile in (False, True):
        model.set_weights(first)
        model.compile(optimizer=keras.optimizers.SGD(0.5), jit_compile=jit_compile)
        steps = [model.train_on_batch(x, y, weight)[0] for _ in range(2)]
        losses.append(np.array(steps))
    assert losses[0][1] < losses[0][0] - 0.01
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize(
    "family",
    ["encoder_decoder", "rnn_attention", "conv_s2s"],
)
def test_a_model_learns_to_turn_texts_round(family):
    keras.utils.set_random_seed(0)
    letters = np.random.default_rng(0).choice(list("abcd"), (1024, 4))
    texts = ["".join(row) for row in letters]
    sizes = {"hidden_dim": 48, "num_layers": 1 if family == "rnn_attention" else 2}
    tokenizer = models.ByteTokenizer()
    model = zoo.build(family, tokenizer, 8, task=SEQ_TO_SEQ_LM, **sizes)
    model.compile(
        optimizer=keras.optimizers.AdamW(4e-3),
        loss=models.SmoothedCrossEntropy(0.1),
        sampler="greedy",
    )
    turned = [text[::-1] for text in texts]
    preprocessor, model.preprocessor = model.preprocessor, None
    examples = preprocessor({"encoder_text": texts, "decoder_text": turned})
    examples = tf.data.Dataset.from_tensors(examples).unbatch().batch(64).cache()
    model.fit(examples, epochs=12, verbose=0)
    model.preprocessor = preprocessor
    written = model.generate(["daba", "cadb", "dcab", "abcd"], max_length=8)
    assert sum(map(str.__eq__, written, ["abad", "bdac", "bacd", "dcba"])) >= 3
