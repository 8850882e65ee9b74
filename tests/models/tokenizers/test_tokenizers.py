"""Tokenizers lose nothing, in Python and in the graph."""

import io

import keras
import keras_hub
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.tokenizers.sentence_piece import (
    MODEL_TYPES,
    SentencePieceTokenizer,
    character_tokenizer,
    train_sentencepiece,
)
from langzoo.models.tokenizers.word_piece import WordPieceTokenizer, train_word_piece

# Markup of the models themselves, white space of all kinds, and the characters that
# SentencePiece uses as marks.
ODD_TEXTS = [
    "",
    " ",
    "  two  spaces  ",
    "\n\n\tx\r\n \n",
    "nul\0inside\0",
    "\u2581 is \u2581\u2581 the mark of a space",
    "\u2047 \u2585 \ufffd \ufeff \U0010ffff \ue000",
    "<s></s><pad><unk><0x41>",
    "日本語のテキスト e\u0301 \U0001f469\u200d\U0001f680",
]


@pytest.fixture(
    scope="module", params=["bpe", "unigram", "word_piece", "characters", "bytes"]
)
def tokenizer(request, shakespeare):
    if request.param == "bytes":
        return ByteTokenizer()
    if request.param == "characters":
        return character_tokenizer(sorted(set("".join(shakespeare)) | {*"é\0▁\n"}))
    if request.param == "word_piece":
        return train_word_piece(shakespeare, vocabulary_size=600)
    return train_sentencepiece(
        shakespeare, vocabulary_size=600, model_type=request.param, seed=1
    )


@pytest.fixture(scope="module")
def in_graph(tokenizer):
    return tf.function(
        tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)]
    )


def check_round_trip(tokenizer, in_graph, text):
    batch = tf.constant([text, text + "x"])
    ids = tokenizer.tokenize(batch)
    assert isinstance(ids, tf.RaggedTensor)
    assert ids.dtype == tf.int32
    assert ids.to_list() == in_graph(batch).to_list()
    assert ids.to_list() == tokenizer.tokenize([text, text + "x"])
    assert 1 not in ids.to_list()[0]
    assert tokenizer.detokenize(ids).numpy().tolist() == [
        text.encode(),
        (text + "x").encode(),
    ]
    assert tokenizer.detokenize(tokenizer.tokenize([text])) == [text]
    token_bytes = tokenizer.token_bytes()
    assert b"".join(token_bytes[i] for i in ids.to_list()[0]) == text.encode()


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_round_trip(tokenizer, in_graph, text):
    check_round_trip(tokenizer, in_graph, text)


@settings(max_examples=150, deadline=None)
@given(text=st.text())
def test_any_text_round_trips(tokenizer, in_graph, text):
    # The non-character that stands for NUL where words are split.
    assume("\ufffe" not in text or not isinstance(tokenizer, WordPieceTokenizer))
    check_round_trip(tokenizer, in_graph, text)


@settings(max_examples=50, deadline=None)
@given(value=st.binary())
def test_any_bytes_give_ids_and_valid_text(tokenizer, value):
    ids = tokenizer.tokenize(tf.constant([value]))
    assert all(0 <= i < tokenizer.vocabulary_size() for i in ids.to_list()[0])
    tokenizer.detokenize(ids).numpy()[0].decode("utf-8")


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 259), max_size=12))
def test_any_ids_give_valid_text(tokenizer, ids):
    text = tokenizer.detokenize(tf.constant([ids], tf.int32)).numpy()[0]
    text.decode("utf-8")


def test_malformed_bytes_are_kept_by_the_byte_tokenizer():
    ids = ByteTokenizer().tokenize(tf.constant([b"a\xff\x00"]))
    assert ids.to_list() == [[101, 259, 4]]


def test_a_character_is_a_token_and_an_unlisted_one_is_its_bytes():
    tokenizer = character_tokenizer("abc")
    assert tokenizer(["abé"]) == [[260, 261, 4 + 0xC3, 4 + 0xA9]]
    assert tokenizer.vocabulary_size() == 263


def test_ids_and_tokens_name_each_other(tokenizer):
    vocabulary = tokenizer.get_vocabulary()
    assert vocabulary[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    for index in (0, 1, 3, 100, len(vocabulary) - 1):
        assert tokenizer.token_to_id(vocabulary[index]) == index
        assert tokenizer.id_to_token(index) == vocabulary[index]
    assert tokenizer.token_to_id("no such token") == tokenizer.unk_token_id
    with pytest.raises(ValueError, match="must be in range"):
        tokenizer.id_to_token(len(vocabulary))


def test_special_tokens_have_the_ids_of_the_zoo(tokenizer):
    assert tokenizer.special_token_ids == [0, 1, 2, 3]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)
    assert (tokenizer.start_token_id, tokenizer.end_token_id) == (2, 3)
    assert tokenizer.token_bytes()[:4] == [b""] * 4
    assert len(tokenizer.token_bytes()) == tokenizer.vocabulary_size()
    assert tokenizer.detokenize([[2, 0, 3]]) == [""]


def test_a_preset_gives_the_tokenizer_back(tokenizer, tmp_path):
    tokenizer.save_to_preset(str(tmp_path))
    for cls in (keras_hub.tokenizers.Tokenizer, type(tokenizer)):
        loaded = cls.from_preset(str(tmp_path))
        assert type(loaded) is type(tokenizer)
        assert loaded.tokenize(["To be,\n or"]) == tokenizer.tokenize(["To be,\n or"])
        assert loaded.token_bytes() == tokenizer.token_bytes()


def test_lists_of_presets_still_work():
    assert "gpt2_base_en" in keras_hub.tokenizers.Tokenizer.presets


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_ids_equal_those_of_the_sentencepiece_package(model_type, shakespeare):
    tokenizer = train_sentencepiece(
        shakespeare, vocabulary_size=500, model_type=model_type, seed=1
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.proto)
    texts = [*shakespeare[:20], *ODD_TEXTS]
    assert tokenizer.tokenize(texts) == reference.encode(texts)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_training_is_deterministic(model_type, shakespeare):
    arguments = {"vocabulary_size": 400, "model_type": model_type, "seed": 7}
    first = train_sentencepiece(shakespeare, **arguments)
    second = train_sentencepiece(iter(shakespeare), **arguments)
    assert first.proto == second.proto


def test_a_small_corpus_gives_a_smaller_vocabulary():
    tokenizer = train_sentencepiece(
        ["hello"], vocabulary_size=4096, model_type="bpe", seed=0
    )
    assert 261 < tokenizer.vocabulary_size() < 300


def test_a_line_longer_than_the_trainers_limit_is_learned_from():
    text = "abracadabra " * 2000
    tokenizer = train_sentencepiece(
        [text], vocabulary_size=400, model_type="bpe", seed=0
    )
    assert len(tokenizer.tokenize([text])[0]) < len(text) / 4


def test_a_line_break_is_always_its_own_token(shakespeare):
    tokenizer = train_sentencepiece(
        shakespeare, vocabulary_size=600, model_type="bpe", seed=1
    )
    holding = [piece for piece in tokenizer.token_bytes() if b"\n" in piece]
    assert holding == [b"\n", b"\n"]  # the symbol and the byte


@pytest.mark.parametrize("texts", [[], [""], ["\n", "\0"]])
def test_an_empty_corpus_is_an_error(texts):
    with pytest.raises(ValueError, match="no text to train a tokenizer on"):
        train_sentencepiece(texts, vocabulary_size=300, model_type="bpe", seed=0)


def test_a_vocabulary_too_small_is_an_error_that_says_what_would_do(shakespeare):
    with pytest.raises(
        ValueError, match=r"at least \d+ .*Received: vocabulary_size=100"
    ):
        train_sentencepiece(shakespeare, vocabulary_size=100, model_type="bpe", seed=0)


def test_an_unknown_model_type_is_an_error():
    with pytest.raises(ValueError, match="Received: model_type='word'"):
        train_sentencepiece(["x"], vocabulary_size=300, model_type="word", seed=0)


def test_a_model_without_the_special_tokens_is_an_error(shakespeare):
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(shakespeare), model_writer=proto, vocab_size=100,
        minloglevel=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"Cannot find special token `'<pad>'`"):
        SentencePieceTokenizer(proto=proto.getvalue())


def test_seeding_after_the_tokenizer_was_made_leaves_it_working(shakespeare):
    tokenizer = train_sentencepiece(
        shakespeare, vocabulary_size=400, model_type="bpe", seed=0
    )
    dataset = tf.data.Dataset.from_tensors(["the fox"]).map(tokenizer)
    before = tokenizer(["the fox"])
    keras.utils.set_random_seed(0)
    assert tokenizer(["the fox"]) == before
    assert tokenizer.detokenize(before) == ["the fox"]
    assert next(iter(dataset)).to_list() == before
