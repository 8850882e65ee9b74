"""KerasHub's presets in place of our models: tokenizers, weights, what is refused."""

import keras
import keras_hub
import numpy as np
import pytest
from langzoo.models import ByteTokenizer, CausalLM, build_causal_lm, preset_tokenizer

CONTEXT = 24
TEXTS = ["to be or not to be", "that is the question", ""]


@pytest.fixture(params=["llama_preset", "gpt2_preset"])
def preset(request):
    return request.getfixturevalue(request.param)


def pretrained(preset, context_length=CONTEXT):
    return build_causal_lm(
        "keras_hub",
        preset_tokenizer(preset),
        context_length,
        preset=preset,
        pretrained=True,
    )


def test_the_ids_are_those_of_keras_hub(preset, topics):
    theirs = keras_hub.models.CausalLM.from_preset(preset).preprocessor.tokenizer
    ours = preset_tokenizer(preset)
    words = [word for text in topics for word in text.split()[:50] if word.isalpha()]
    assert ours.tokenize(words) == theirs.tokenize(words)
    assert ours.start_token_id == theirs.start_token_id
    assert ours.end_token_id == theirs.end_token_id
    assert ours.vocabulary_size() == theirs.vocabulary_size()


def test_the_special_tokens_stand_where_the_preset_has_them(llama_preset):
    tokenizer = preset_tokenizer(llama_preset)
    assert (tokenizer.unk_token_id, tokenizer.start_token_id) == (0, 1)
    assert (tokenizer.end_token_id, tokenizer.pad_token_id) == (2, 0)
    assert tokenizer.token_bytes()[:3] == [b""] * 3


def test_pretrained_scores_are_those_of_keras_hub(preset):
    theirs = keras_hub.models.CausalLM.from_preset(preset)
    x, y, weight = theirs.preprocessor(TEXTS, sequence_length=CONTEXT)
    losses = theirs.score(
        x["token_ids"], x["padding_mask"], scoring_mode="loss", target_ids=y
    )
    scores = pretrained(preset).score(TEXTS)
    for loss, real, score in zip(
        np.array(losses), np.array(weight), scores, strict=True
    ):
        np.testing.assert_allclose(score, -loss[real], atol=1e-4)


def test_it_is_used_as_ours_is(preset):
    model = pretrained(preset)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2), sampler="greedy", jit_compile=False
    )
    before = model.score(TEXTS[0]).numpy().sum()
    model.fit(TEXTS * 8, batch_size=8, epochs=5, verbose=0)
    assert model.score(TEXTS[0]).numpy().sum() > before
    assert model.generate(TEXTS[0], max_length=20).startswith(TEXTS[0])


def test_a_saved_model_is_a_preset(preset, tmp_path):
    model = pretrained(preset)
    model.save_to_preset(str(tmp_path))
    loaded = pretrained(str(tmp_path))
    assert type(loaded.model) is type(model.model)
    np.testing.assert_array_equal(loaded.score(TEXTS[0]), model.score(TEXTS[0]))


def test_an_architecture_is_built_for_any_tokenizer_and_context(preset):
    keras.utils.set_random_seed(0)
    model = build_causal_lm("keras_hub", ByteTokenizer(), 100, preset=preset)
    theirs = keras_hub.models.Backbone.from_preset(preset)
    assert type(model.backbone) is type(theirs)
    assert model.backbone.vocabulary_size == 260
    assert model.backbone.hidden_dim == theirs.hidden_dim
    scores = model.score("a" * 90)
    assert scores.shape == (91,)
    np.testing.assert_allclose(np.mean(scores), -np.log(260), atol=0.3)


def test_a_saved_model_of_the_zoo_is_a_preset(tmp_path):
    ours = build_causal_lm("lstm", ByteTokenizer(), CONTEXT, hidden_dim=8)
    ours.save_to_preset(str(tmp_path))
    loaded = pretrained(str(tmp_path))
    assert type(loaded) is CausalLM
    np.testing.assert_array_equal(loaded.score(TEXTS[0]), ours.score(TEXTS[0]))
    with pytest.raises(ValueError, match="Received: context_length=25, model=24"):
        pretrained(str(tmp_path), CONTEXT + 1)


def test_pretrained_weights_with_another_tokenizer_are_an_error(preset):
    with pytest.raises(ValueError, match="need the tokenizer of their preset"):
        build_causal_lm(
            "keras_hub", ByteTokenizer(), CONTEXT, preset=preset, pretrained=True
        )


def test_a_context_longer_than_the_pretrained_positions_is_an_error(gpt2_preset):
    with pytest.raises(ValueError, match="Received: context_length=49, positions=48"):
        pretrained(gpt2_preset, 49)


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        (
            "gpt2_base_enn",
            "preset 'gpt2_base_enn' is neither .* did you mean gpt2_base",
        ),
        ("resnet_50_imagenet", "nor the name of a (causal )?language model"),
        ("/absent/folder", "'/absent/folder' is neither a folder nor"),
    ],
)
def test_a_preset_that_does_not_exist_is_named(preset, said):
    with pytest.raises(ValueError, match=said):
        build_causal_lm("keras_hub", ByteTokenizer(), CONTEXT, preset=preset)
    with pytest.raises(ValueError, match=said):
        preset_tokenizer(preset)


def test_a_folder_without_a_preset_is_named_in_one_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"cannot be used: .*no config\.json"
    ) as raised:
        build_causal_lm("keras_hub", ByteTokenizer(), CONTEXT, preset=str(tmp_path))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_model_that_is_no_causal_one_is_named(tmp_path):
    backbone = keras_hub.models.BertBackbone(50, 1, 1, 8, 16)
    backbone.save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match=r"CausalLM .*compatible with Bert"):
        build_causal_lm("keras_hub", ByteTokenizer(), CONTEXT, preset=str(tmp_path))


def test_a_tokenizer_of_another_kind_is_an_error_that_says_what_would_do(tmp_path):
    tokenizer = keras_hub.models.BloomTokenizer(
        {"<s>": 0, "</s>": 1, "<pad>": 2, "a": 3, "aa": 4}, ["a a"]
    )
    backbone = keras_hub.models.BloomBackbone(5, 1, 1, 8, 16)
    preprocessor = keras_hub.models.BloomCausalLMPreprocessor(tokenizer)
    model = keras_hub.models.BloomCausalLM(backbone, preprocessor)
    model.save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match=r"Learn one .*tokenizer='BloomTokenizer'"):
        preset_tokenizer(str(tmp_path))
