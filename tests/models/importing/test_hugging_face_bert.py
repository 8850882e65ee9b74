"""Hugging Face's BERT becomes a model of the zoo; the reference is NumPy's."""

import json
import os

import numpy as np
import pytest
import tokenizers
from hugging_face_bert import CONFIG, HEAD, PIECES, logits, save, states, tensors
from langzoo.models import (
    MaskedLM,
    build_causal_lm,
    from_hugging_face,
    load_tokenizer,
)
from langzoo.models.families.presets import resolved
from langzoo.models.tokenizers.files import learn_preset
from safetensors.numpy import save_file

IDS = np.array([[2, 5, 18, 6, 9, 19, 3], [2, 7, 8, 3, 0, 0, 0]])
THERE = IDS != 0
LABELS = {"labels": ["bad", "good"]}


def check(model, weights, config=CONFIG, head=True):
    inputs = {"token_ids": IDS, "padding_mask": THERE}
    hidden = model.backbone(inputs).numpy()
    said = (
        model({**inputs, "mask_positions": np.tile(np.arange(4), (2, 1))})
        if head
        else ()
    )
    for row, length in enumerate(THERE.sum(axis=1)):
        expected = states(weights, IDS[row, :length], config)
        np.testing.assert_allclose(hidden[row, :length], expected, atol=1e-4)
        if head:
            wanted = logits(weights, expected, config)[:4, : len(PIECES)]
            np.testing.assert_allclose(said[row], wanted, atol=1e-4)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_a_masked_language_model_gives_the_logits_that_it_gave(activation, tmp_path):
    config = {**CONFIG, "hidden_act": activation, "layer_norm_eps": 1e-3}
    weights = tensors(config)
    model = from_hugging_face(save(tmp_path, weights, config), task="masked_lm")
    # Of the rows some are no tokens: their ids are never proposed.
    assert model.backbone.vocabulary_size == len(PIECES) < CONFIG["vocab_size"]
    assert (model.backbone.dropout, model.backbone.attention_dropout) == (0.1, 0.2)
    check(model, weights, config)
    model.save_to_preset(str(tmp_path / "preset"))
    check(MaskedLM.from_preset(str(tmp_path / "preset")), weights, config)


def sharded(folder, weights):
    names = sorted(weights)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {name: file for file, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": index})
    )
    (folder / "model.safetensors").unlink()


def older(folder, weights):
    named = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, value in weights.items():
        for new, old in named.items():
            name = name.replace(new, old)
        renamed[name] = value
    save_file(renamed, folder / "model.safetensors")


def tied(folder, weights):
    table = weights["bert.embeddings.word_embeddings.weight"]
    more = {f"{HEAD}.decoder.weight": table, "cls.seq_relationship.bias": table[0, :2]}
    save_file({**weights, **more}, folder / "model.safetensors")


@pytest.mark.parametrize("written", [sharded, older, tied])
def test_weights_are_found_however_they_were_written(written, tmp_path):
    weights = tensors()
    written(save(tmp_path, weights), weights)
    check(from_hugging_face(tmp_path, task="masked_lm"), weights)


def test_a_classifier_takes_the_encoder_with_fewer_positions(tmp_path):
    weights = {
        name.removeprefix("bert."): value.astype("float16").astype("float32")
        for name, value in tensors().items()
        if not name.startswith(HEAD)
    }
    save(tmp_path, {name: value.astype("float16") for name, value in weights.items()})
    model = from_hugging_face(
        *(tmp_path, 12), task="text_classifier", of_task=LABELS, dropout=0.3
    )
    assert (model.context_length, model.backbone.dropout) == (12, 0.3)
    check(model, weights, head=False)
    assert set(model.classify("ab c")) == {"bad", "good"}


def test_a_masked_language_model_draws_a_head_where_there_is_none(tmp_path):
    weights = {k: v for k, v in tensors().items() if not k.startswith(HEAD)}
    model = from_hugging_face(save(tmp_path, weights), task="masked_lm")
    assert np.isfinite(model.score("ab c")).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "roberta"}, "model_type must be one of bert, not 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act must be one of gelu, .*not 'relu'"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type must be 'absolute', not 'relative_key'",
        ),
        ({"is_decoder": True}, "is_decoder must be False, not True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings must be True, not False"),
        ({"quantization_config": {"bits": 4}}, "quantization_config must be None"),
        ({"hidden_size": None}, "hidden_size must be a positive number, not None"),
        ({"num_attention_heads": 3}, "hidden_dim 16 must be a multiple of"),
        ({"vocab_size": 40}, "the tensor .*word_embeddings.* shape .40, 16., not"),
        ({"num_hidden_layers": 1}, "no BERT has the tensor bert.encoder.layer.1"),
        ({"num_hidden_layers": 3}, "lack the tensor bert.encoder.layer.2.attention"),
    ],
)
def test_another_architecture_is_a_line_that_names_the_key(changes, said, tmp_path):
    save(tmp_path, tensors(), {**CONFIG, **changes})
    with pytest.raises(ValueError, match=said) as caught:
        from_hugging_face(tmp_path, task="masked_lm")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_heads": 4}, "num_heads must be 2, as of the weights, not 4"),
        ({"qk_norm": True}, "qk_norm must be False, as of the weights, not True"),
        ({"context_length": 21}, "21 must be at most the 20 positions"),
        ({"family": "lstm"}, "of a model of family 'bert', not 'lstm'"),
    ],
)
def test_what_does_not_go_with_the_weights_is_a_line(given, said, tmp_path):
    save(tmp_path, tensors())
    with pytest.raises(ValueError, match=said):
        from_hugging_face(tmp_path, task="masked_lm", **given)


def without(folder):
    (folder / "model.safetensors").unlink()


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder):
    os.truncate(folder / "model.safetensors", 1000)


def elsewhere(folder):
    index = {"weight_map": {"bert.pooler.dense.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    without(folder)


def whole_numbers(folder):
    weights = tensors()
    weights["bert.embeddings.LayerNorm.bias"] = np.ones(16, "int8")
    save_file(weights, folder / "model.safetensors")


def untied(folder):
    more = {f"{HEAD}.decoder.weight": np.ones((48, 16), "float32")}
    save_file({**tensors(), **more}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (without, "there is no file model.safetensors with the weights$"),
        (pickled, "pytorch_model.bin, a pickle, is never read"),
        (cut, "model.safetensors is no safetensors"),
        (elsewhere, r"there is no file \.\./model.safetensors"),
        (whole_numbers, "LayerNorm.bias must be of floats, not I8"),
        (untied, "decoder.weight must be the word embeddings"),
    ],
)
def test_weights_that_cannot_be_read_are_a_line(broken, said, tmp_path):
    broken(save(tmp_path, tensors()))
    with pytest.raises(ValueError, match=f"{tmp_path}.*{said}"):
        from_hugging_face(tmp_path, task="masked_lm")


class _Corpus:
    def __init__(self, preset):
        self.preset = preset


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_tokenizer_comes_along_whichever_file_it_is_in(lowercase, tmp_path):
    save(tmp_path, tensors())
    config = {"do_lower_case": lowercase, "model_max_length": 12}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = tokenizers.BertWordPieceTokenizer(
        str(tmp_path / "vocab.txt"), lowercase=lowercase
    )
    texts = ["Abc, á DEF", "a中b", "", "Σbc ΑΣ"]
    expected = [theirs.encode(text, add_special_tokens=False).ids for text in texts]
    found = learn_preset(None, _Corpus(str(tmp_path)))
    assert found(texts) == expected
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").unlink()
    assert learn_preset(None, _Corpus(str(tmp_path)))(texts) == expected
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=f"{tmp_path}/tokenizer.json cannot be used"):
        learn_preset(None, _Corpus(str(tmp_path)))


def test_more_ids_than_rows_are_refused(tmp_path):
    config = {**CONFIG, "vocab_size": 20}
    save(tmp_path, tensors(config), config)
    with pytest.raises(ValueError, match="vocab_size 20 is less than the 31 ids"):
        from_hugging_face(tmp_path, task="masked_lm")


def test_a_run_begins_with_the_folder_by_its_name(tmp_path):
    save(tmp_path, tensors())
    found = resolved({"initial_weights": str(tmp_path), "context_length": 8})
    assert (found["family"], found["num_layers"]) == ("bert", 2)
    assert found["initial_weights"] == str(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    model = build_causal_lm(tokenizer=tokenizer, task="masked_lm", **found)
    check(model, tensors())
