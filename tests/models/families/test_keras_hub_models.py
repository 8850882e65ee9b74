"""KerasHub's models, converted to ours and in place of ours."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models import ByteTokenizer, preset_tokenizer, zoo
from langzoo.models.families.keras_hub.adapter import KerasHubCausalLM
from langzoo.models.importing.keras_hub import from_keras_hub
from langzoo.serving.export.saved_model import export
from langzoo.serving.in_process import ExportedModel

VOCABULARY, LENGTH = 260, 20


SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}


def gpt2(**options):
    sizes = {**SIZES, "num_heads": 4, "max_sequence_length": LENGTH, **options}
    return keras_hub.models.GPT2CausalLM(keras_hub.models.GPT2Backbone(**sizes))


def llama(**options):
    sizes = {**SIZES, "num_query_heads": 4, "num_key_value_heads": 2, **options}
    return keras_hub.models.LlamaCausalLM(keras_hub.models.LlamaBackbone(**sizes))


THEIRS = {
    "gpt2": gpt2,
    "llama": llama,
    "llama3": lambda: llama(rope_max_wavelength=500_000, layer_norm_epsilon=1e-5),
    "llama_tied": lambda: llama(tie_word_embeddings=True, num_key_value_heads=4),
}


@pytest.fixture(params=THEIRS)
def theirs(request):
    """A tiny model of KerasHub with every weight drawn, biases and gains too."""
    model = THEIRS[request.param]()
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    return model


@pytest.fixture
def inputs():
    token_ids = np.random.default_rng(1).integers(0, VOCABULARY, (3, LENGTH))
    padding_mask = np.arange(LENGTH) < np.array([[LENGTH], [7], [1]])
    return {"token_ids": token_ids.astype("int32"), "padding_mask": padding_mask}


def test_our_architecture_gives_the_logits_of_theirs(theirs, inputs):
    ours = from_keras_hub(theirs)
    assert ours.count_params() == theirs.count_params()
    expected = np.array(theirs(inputs))
    is_real = inputs["padding_mask"]
    logits = np.array(ours(inputs))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits[is_real], expected[is_real], atol=1e-4)


def test_our_cache_gives_the_logits_of_theirs(theirs, inputs):
    ours = from_keras_hub(theirs)
    token_ids = tf.constant(inputs["token_ids"])
    everything = {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
    expected = np.array(theirs(everything))
    cache = ours.prefill(token_ids, 4)
    for index in range(4, LENGTH):
        column = token_ids[:, index, None]
        logits, _, cache = ours.call_with_cache(column, cache, index)
        np.testing.assert_allclose(logits[:, 0], expected[:, index], atol=1e-4)


def test_our_cache_keeps_no_more_heads_than_there_are_keys():
    ours = from_keras_hub(llama())
    keys, values = ours.backbone.empty_cache(3, LENGTH)[0]
    assert keys.shape == values.shape == (3, 2, LENGTH, 4)


def test_a_converted_model_saves_and_loads(tmp_path, inputs):
    ours = from_keras_hub(gpt2())
    ours.save_to_preset(str(tmp_path))
    loaded = models.CausalLM.from_preset(str(tmp_path))
    np.testing.assert_array_equal(loaded(inputs), ours(inputs))


def test_rescaled_positions_are_an_error():
    with pytest.raises(ValueError, match="Received: rope_position_scaling_factor=2"):
        from_keras_hub(llama(rope_position_scaling_factor=2.0))


def test_another_architecture_is_an_error():
    backbone = keras_hub.models.OPTBackbone(VOCABULARY, 1, 2, 8, 8)
    with pytest.raises(ValueError, match="Received: backbone='OPTBackbone'"):
        from_keras_hub(keras_hub.models.OPTCausalLM(backbone))


def test_the_adapter_s_cache_gives_the_logits_of_the_model(theirs, inputs):
    model = KerasHubCausalLM(theirs, models.ByteTokenizer(), context_length=LENGTH)
    token_ids = tf.constant(inputs["token_ids"])
    everything = {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
    expected = np.array(theirs(everything))
    cache = model.prefill(token_ids, 4)
    for index in range(4, LENGTH):
        column = token_ids[:, index, None]
        logits, _, cache = model.call_with_cache(column, cache, index)
        np.testing.assert_allclose(logits[:, 0], expected[:, index], atol=1e-4)


def test_a_context_length_must_come_from_somewhere():
    assert KerasHubCausalLM(gpt2(), models.ByteTokenizer()).context_length == LENGTH
    with pytest.raises(ValueError, match="`context_length` must be given"):
        KerasHubCausalLM(llama(), models.ByteTokenizer())


def test_a_context_length_beyond_the_positions_is_an_error():
    with pytest.raises(ValueError, match="Received: context_length=21, positions=20"):
        KerasHubCausalLM(gpt2(), models.ByteTokenizer(), context_length=LENGTH + 1)


def test_a_tokenizer_that_is_too_large_is_an_error():
    with pytest.raises(ValueError, match="Received: tokenizer=260, model=100"):
        KerasHubCausalLM(gpt2(vocabulary_size=100), models.ByteTokenizer())


@pytest.fixture
def adapted():
    model = KerasHubCausalLM(gpt2(), models.ByteTokenizer())
    model.compile(sampler="greedy", jit_compile=False)
    return model


def test_the_adapter_is_a_model_of_keras_with_the_layers_of_the_model(adapted, inputs):
    theirs = adapted.model
    assert isinstance(adapted, keras_hub.models.CausalLM)
    assert [layer.name for layer in adapted.layers] == [
        layer.name for layer in theirs.layers
    ]
    assert list(map(id, adapted.weights)) == list(map(id, theirs.weights))
    assert adapted.count_params() == theirs.count_params()
    lines = []
    adapted.summary(print_fn=lambda line, **_: lines.append(str(line)))
    assert "gpt2_backbone" in "".join(lines)
    np.testing.assert_array_equal(adapted(inputs), theirs(inputs))


def test_the_adapter_learns_and_writes_as_it_was_compiled(adapted):
    before = adapted.evaluate(["to be, or not to be"], verbose=0)[0]
    adapted.compile(keras.optimizers.Adam(1e-2), sampler="greedy", jit_compile=False)
    adapted.fit(["to be, or not to be"] * 8, epochs=9, batch_size=4, verbose=0)
    assert adapted.evaluate(["to be, or not to be"], verbose=0)[0] < before - 1
    written = adapted.generate("to", max_length=12)
    adapted.model.generate_function = None
    assert written == adapted.model.generate("to", max_length=12)


def test_the_adapter_saves_and_loads_in_every_way(adapted, tmp_path):
    expected = adapted.score("to be")
    adapted.save(tmp_path / "model.keras")
    adapted.save_to_preset(str(tmp_path / "preset"))
    loaded = [
        keras.saving.load_model(tmp_path / "model.keras"),
        KerasHubCausalLM.from_preset(str(tmp_path / "preset")),
    ]
    for model in loaded:
        assert type(model) is KerasHubCausalLM
        assert model.context_length == LENGTH
        np.testing.assert_array_equal(model.score("to be"), expected)
    theirs = keras_hub.models.CausalLM.from_preset(str(tmp_path / "preset"))
    assert type(theirs) is keras_hub.models.GPT2CausalLM


@pytest.mark.parametrize("ours", [False, True])
def test_tokens_are_scored_in_the_order_of_keras_hub_s_arguments(adapted, inputs, ours):
    model = from_keras_hub(adapted.model) if ours else adapted
    token_ids = tf.constant(inputs["token_ids"])
    targets = tf.roll(token_ids, -1, axis=1)
    mask = tf.ones_like(token_ids)
    expected = adapted.model.score(token_ids, mask, "loss", None, targets)
    losses = model.score(token_ids, mask, "loss", None, targets)
    np.testing.assert_allclose(losses, expected, atol=1e-4)


def test_activations_of_ours_are_not_intercepted(inputs):
    with pytest.raises(ValueError, match="`layer_intercept_fn` is for models of Ker"):
        from_keras_hub(gpt2()).score(
            inputs["token_ids"], None, "logits", lambda x, i: x
        )


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("ours", [False, True])
def test_a_model_is_quantized_straight_after_it_was_loaded(adapted, tmp_path, ours):
    model = adapted
    if ours:
        model = models.build_causal_lm(
            "lstm", models.ByteTokenizer(), LENGTH, hidden_dim=16
        )
    model.save_to_preset(str(tmp_path))
    loaded = (models.CausalLM if ours else KerasHubCausalLM).from_preset(str(tmp_path))
    loaded.quantize("int8")
    change = np.abs(loaded.score("to be") - model.score("to be"))
    assert 0 < change.max() < 0.1


# --- Masked ones ---


def test_a_masked_model_of_keras_hub_stands_where_one_of_the_zoo_does(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "to", "be", "or", "not"]
    theirs = keras_hub.models.BertMaskedLM(
        keras_hub.models.BertBackbone(len(pieces), 1, 2, 8, 16, max_sequence_length=12),
        keras_hub.models.BertMaskedLMPreprocessor(
            keras_hub.models.BertTokenizer(pieces, lowercase=True)
        ),
    )
    generator = np.random.default_rng(0)
    theirs.set_weights(
        [generator.normal(0, 0.5, weight.shape) for weight in theirs.get_weights()]
    )
    theirs.save_to_preset(str(tmp_path / "bert"))
    tokenizer = preset_tokenizer(str(tmp_path / "bert"))
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("[MASK]", 4)
    options = {"preset": str(tmp_path / "bert"), "pretrained": True}
    model = zoo.build("keras_hub", tokenizer, 10, task="masked_lm", **options)
    ours = from_keras_hub(theirs, models.MaskedLMPreprocessor(tokenizer, 12))
    text = "To be or not to be"
    assert len(model.score(text)) == 6
    np.testing.assert_allclose(model.score(text), ours.score(text), atol=1e-4)
    export(model, str(tmp_path / "1"), task="masked_lm")
    with ExportedModel(str(tmp_path / "1")) as exported:
        (scores,) = exported.token_scores([text])
        np.testing.assert_allclose(
            scores.log_probabilities, model.score(text), atol=1e-4
        )
        (filled,) = exported.fill_mask(["to [MASK] or not"], alternatives=2)
        assert len(filled.alternatives[0]) == 2
    half = models.in_precision(model, "bfloat16")
    assert set(half.input) == set(model.input)
    untrained = zoo.build(
        "keras_hub", ByteTokenizer(), 10, task="masked_lm", preset=options["preset"]
    )
    assert untrained.backbone.vocabulary_size == 261
