"""Weights to go on from: a saved model's, with its tokenizer and architecture."""

import keras
import numpy as np
import pytest
from langzoo.models import (
    ByteTokenizer,
    build_causal_lm,
    character_tokenizer,
    preset_tokenizer,
    train_sentencepiece,
    train_word_piece,
    word_tokenizer,
)
from langzoo.models.families.presets import resolved, saved_model
from tiny_models import GRADIENTS, TINY, tiny


def make(family="lstm", tokenizer=None, **hyperparameters):
    keras.utils.set_random_seed(1)
    return build_causal_lm(
        family, tokenizer or ByteTokenizer(), 24, **tiny(family, **hyperparameters)
    )


@pytest.fixture
def saved(tmp_path):
    model = make()
    model.save_to_preset(str(tmp_path))
    return model, str(tmp_path)


@pytest.mark.parametrize("family", GRADIENTS)
def test_a_saved_model_is_built_again_with_other_settings(family, tmp_path):
    model = make(family)
    model.save_to_preset(str(tmp_path))
    found = resolved({"initial_weights": str(tmp_path), "dropout": 0.3})
    assert (found["family"], found["context_length"]) == (family, 24)
    again = build_causal_lm(tokenizer=ByteTokenizer(), **found)
    assert again.backbone.dropout == 0.3
    np.testing.assert_array_equal(again.score("to be"), model.score("to be"))


TOKENIZERS = {
    "bytes": lambda texts: ByteTokenizer(),
    "bpe": lambda texts: train_sentencepiece(
        texts, vocabulary_size=400, model_type="bpe", seed=0
    ),
    "characters": lambda texts: character_tokenizer(sorted(set("".join(texts)))),
    "words": lambda texts: word_tokenizer(sorted({*" ".join(texts).split()})),
    "word_piece": lambda texts: train_word_piece(texts, vocabulary_size=600),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_tokenizer_is_kept(kind, shakespeare, tmp_path):
    tokenizer = TOKENIZERS[kind](shakespeare)
    make(tokenizer=tokenizer).save_to_preset(str(tmp_path))
    kept = preset_tokenizer(str(tmp_path))
    assert type(kept) is type(tokenizer)
    text = shakespeare[3]
    np.testing.assert_array_equal(kept(text), tokenizer(text))
    found = resolved({"initial_weights": str(tmp_path)})
    assert build_causal_lm(tokenizer=kept, **found).score(text).shape[0] > 3


def test_a_pipeline_stands_for_what_it_trained_last(saved, tmp_path):
    model, _ = saved
    pipeline = tmp_path / "runs" / "demo"
    for number in (2, 10, 9):
        folder = pipeline / "artifacts/Trainer/model_run" / str(number) / "preset"
        model.save_to_preset(str(folder))
    found = saved_model(str(pipeline))
    assert found["initial_weights"].endswith("model_run/10/preset")


def test_another_tokenizer_is_refused(saved, shakespeare):
    _, folder = saved
    characters = TOKENIZERS["characters"](shakespeare)
    with pytest.raises(ValueError, match="need the tokenizer of their preset"):
        build_causal_lm(tokenizer=characters, **saved_model(folder))


def test_other_sizes_are_refused(saved):
    _, folder = saved
    found = resolved({"initial_weights": folder, "hidden_dim": 8})
    with pytest.raises(ValueError, match="of a model of the same sizes"):
        build_causal_lm(tokenizer=ByteTokenizer(), **found)


def test_a_shorter_context_takes_the_first_learned_positions(tmp_path):
    settings = {**TINY["transformer"], "post_norm": True, "positions": "learned"}
    sizes = ("bert", ByteTokenizer(), 24)
    model = build_causal_lm(*sizes, task="masked_lm", **settings)
    model.save_to_preset(str(tmp_path))
    found = resolved({"initial_weights": str(tmp_path), "context_length": 8})
    again = build_causal_lm(tokenizer=ByteTokenizer(), task="masked_lm", **found)
    assert again.context_length == 8
    np.testing.assert_allclose(again.score("to be"), model.score("to be"), atol=1e-5)
    with pytest.raises(ValueError, match="25 must be at most the 24 positions"):
        resolved({"initial_weights": str(tmp_path), "context_length": 25})


def test_another_family_is_refused(saved):
    _, folder = saved
    with pytest.raises(ValueError, match="of family 'lstm', not 'gru'"):
        resolved({"initial_weights": folder, "family": "gru"})


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither the folder of a preset nor"):
        saved_model(str(tmp_path))


def test_n_grams_are_refused(tmp_path):
    model = build_causal_lm("ngram", ByteTokenizer(), 24, order=2)
    model.save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="learns by gradient, not NgramBackbone"):
        saved_model(str(tmp_path))
    with pytest.raises(ValueError, match="are for families of the zoo that learn"):
        build_causal_lm("ngram", ByteTokenizer(), 24, initial_weights=str(tmp_path))


def test_a_preset_of_keras_hub_is_told_how(llama_preset):
    with pytest.raises(ValueError, match="family keras_hub with preset"):
        saved_model(llama_preset)
