"""KerasHub's BART and T5, in place of our models, and a BART as one of ours."""

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from langzoo import models
from langzoo.models import preset_tokenizer, zoo
from langzoo.models.importing.keras_hub import from_keras_hub
from langzoo.models.tasks import SEQ_TO_SEQ_LM

LENGTH = 16
SOURCES, TARGETS = ["From fairest", "To be"], ["we desire", "or not"]


def bart(size=260):
    backbone = keras_hub.models.BartBackbone(size, 2, 2, 16, 24, 0.1, LENGTH)
    return keras_hub.models.BartSeq2SeqLM(backbone)


def t5():
    backbone = keras_hub.models.T5Backbone(260, 2, 2, 16, 24, key_value_dim=8)
    return keras_hub.models.T5Seq2SeqLM(backbone)


def drawn(model, scale=0.3):
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=scale, size=weight.shape))
    return model


@pytest.fixture(scope="module", params=["bart", "t5"])
def theirs(request):
    return drawn({"bart": bart, "t5": t5}[request.param]())


@pytest.fixture(scope="module")
def adapted(theirs):
    return models.KerasHubSeqToSeqLM(theirs, models.ByteTokenizer(), LENGTH)


def inputs_of(model):
    x, _, _ = model.preprocessor({"encoder_text": SOURCES, "decoder_text": TARGETS})
    return x


def as_theirs(inputs):
    return {name: tf.cast(part, tf.int32) for name, part in inputs.items()}


def test_a_bart_of_ours_gives_the_same_logits():
    theirs = drawn(bart())
    ours = from_keras_hub(theirs)
    adapted = models.KerasHubSeqToSeqLM(theirs, models.ByteTokenizer())
    inputs = inputs_of(adapted)
    is_real = inputs["decoder_padding_mask"].numpy()
    expected = theirs(as_theirs(inputs)).numpy()
    found = ours(inputs).numpy()
    np.testing.assert_allclose(found[is_real], expected[is_real], atol=1e-4)
    assert np.abs(expected).max() > 1


def test_texts_are_framed_as_the_models_authors_do(adapted, theirs):
    inputs = inputs_of(adapted)
    sides = (inputs[f"{side}_token_ids"][1] for side in ("encoder", "decoder"))
    first = [ids.numpy().tolist() for ids in sides]
    source, target = [88, 115, 36, 102, 105], [115, 118, 36, 114, 115, 120]
    if type(theirs).__name__ == "BartSeq2SeqLM":
        expected = [[2, *source, 3], [3, 2, *target]]
    else:
        expected = [[*source, 3], [0, *target]]
    padded = [[*ids, *[0] * (LENGTH - len(ids))] for ids in expected]
    assert first == padded


def test_cached_logits_equal_those_of_the_whole_model(adapted):
    inputs = inputs_of(adapted)
    expected = adapted(inputs).numpy()
    memory = adapted.encode(inputs["encoder_token_ids"], inputs["encoder_padding_mask"])
    # Two targets of each source.
    token_ids = tf.repeat(inputs["decoder_token_ids"], 2, axis=0)
    cache = adapted.prefill(token_ids, 2, memory)
    for index in range(2, 6):
        column = token_ids[:, index : index + 1]
        logits, _, cache = adapted.call_with_cache(column, cache, index, memory)
        whole = np.repeat(expected[:, index], 2, axis=0)
        np.testing.assert_allclose(logits[:, 0], whole, atol=1e-4)


def test_it_writes_what_keras_hub_writes(adapted, theirs):
    inputs = adapted.preprocessor.generate_preprocess(SOURCES)
    written = []
    for model, given in ((theirs, as_theirs(inputs)), (adapted, inputs)):
        model.compile(sampler="greedy", jit_compile=False)
        ids = model.make_generate_function()(given)["decoder_token_ids"]
        written.append(ids.numpy())
    np.testing.assert_array_equal(*written)


def test_scores_leave_out_what_stands_before_a_target(adapted):
    found = adapted.score(SOURCES, TARGETS)
    assert found.row_lengths().numpy().tolist() == [len(it) + 1 for it in TARGETS]
    inputs = inputs_of(adapted)
    log_probabilities = tf.nn.log_softmax(adapted(inputs)).numpy()
    begun = len(adapted.preprocessor.target_start_ids)
    ids = [*(byte + 4 for byte in TARGETS[0].encode()), 3]
    by_hand = [log_probabilities[0, begun - 1 + i, it] for i, it in enumerate(ids)]
    np.testing.assert_allclose(found[0], by_hand, atol=1e-4)


def test_another_model_is_an_error_of_one_line():
    model = keras_hub.models.GPT2CausalLM(
        keras_hub.models.GPT2Backbone(260, 1, 1, 8, 8, max_sequence_length=8)
    )
    with pytest.raises(ValueError, match=r"one of \['BartSeq2SeqLM', 'T5Seq2SeqLM'\]"):
        models.KerasHubSeqToSeqLM(model, models.ByteTokenizer())


@pytest.fixture(scope="module")
def preset(byte_pairs, tmp_path_factory):
    """Folder of a tiny BART of KerasHub with drawn weights and byte pairs."""
    words = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    _, vocabulary, merges = byte_pairs(words)
    for token in ("<s>", "<pad>", "</s>", "<mask>"):
        vocabulary[token] = len(vocabulary)
    tokenizer = keras_hub.models.BartTokenizer(vocabulary, merges)
    model = drawn(bart(len(vocabulary)))
    model.preprocessor = keras_hub.models.BartSeq2SeqLMPreprocessor(
        tokenizer, LENGTH, LENGTH
    )
    folder = str(tmp_path_factory.mktemp("bart"))
    model.save_to_preset(folder)
    return folder


def test_a_preset_becomes_a_model_that_reads_a_source(preset):
    model = zoo.from_preset(preset)
    theirs = keras_hub.models.Seq2SeqLM.from_preset(preset)
    x, _, _ = model.preprocessor({"encoder_text": SOURCES, "decoder_text": TARGETS})
    expected, _, _ = theirs.preprocessor(
        {"encoder_text": SOURCES, "decoder_text": TARGETS},
        encoder_sequence_length=LENGTH,
        decoder_sequence_length=LENGTH,
    )
    for side in ("encoder", "decoder"):
        is_real = x[f"{side}_padding_mask"].numpy()
        ids, others = (it[f"{side}_token_ids"][is_real] for it in (x, expected))
        np.testing.assert_array_equal(ids, others)
    np.testing.assert_allclose(model(x), theirs(as_theirs(x)), atol=1e-5)


@pytest.mark.parametrize("pretrained", [True, False])
def test_it_is_built_as_any_family_is(preset, pretrained, tmp_path):
    tokenizer = preset_tokenizer(preset) if pretrained else models.ByteTokenizer()
    model = zoo.build(
        *("keras_hub", tokenizer, 8),
        task=SEQ_TO_SEQ_LM,
        preset=preset,
        pretrained=pretrained,
    )
    assert isinstance(model, models.SeqToSeqLM)
    assert (model.context_length, model.source_context_length) == (8, 8)
    size = model.backbone.vocabulary_size
    assert (size == 260) != pretrained
