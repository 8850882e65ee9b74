"""Byte-pair tokenizers give the ids of the Hugging Face package, in the graph too."""

import keras_hub
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_hub.src.tokenizers.byte_pair_tokenizer import SPLIT_PATTERN_TOKENIZERS
from langzoo.models.tokenizers import byte_pair
from tokenizers import Regex, pre_tokenizers

# White space of all kinds, what splits words, digits and letters of other scripts.
SPACES = " \n\t\r\v\f\x1c\u00a0\u3000\u0085\u2028\u200d\ufeff"
ALPHABET = SPACES + "ab  \0.,!_'s'LL'V🚀é日\u0301٣½1Åǅ"
NO_CHARACTERS = "\ufffe\uffff"


def words_of(split):
    if split == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN_TOKENIZERS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@pytest.fixture(scope="module", params=byte_pair.SPLITS)
def both(request, byte_pairs):
    """Our tokenizer in a graph, our tokenizer, and theirs, of one vocabulary."""
    theirs, vocabulary, merges = byte_pairs(words_of(request.param))
    proto = byte_pair.byte_pair_proto(vocabulary, merges, end="<|endoftext|>")
    ours = byte_pair.BytePairTokenizer(proto, split=request.param)
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(ours.tokenize, input_signature=signature), ours, theirs


def check(both, texts):
    in_graph, ours, theirs = both
    expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert in_graph(tf.constant(texts)).to_list() == expected
    assert ours.tokenize(texts) == expected
    assert ours.detokenize(expected) == texts
    token_bytes = ours.token_bytes()
    for text, ids in zip(texts, expected, strict=True):
        assert b"".join(token_bytes[index] for index in ids) == text.encode()


def test_ids_of_real_text_are_theirs(both, topics):
    assert len(both[1].tokenize(topics[0])) < len(topics[0]) / 2
    check(both, topics[:10])


@settings(max_examples=200, deadline=None)
@given(text=st.text(ALPHABET, max_size=40))
def test_ids_of_white_space_and_signs_are_theirs(both, text):
    check(both, [text, f"{text} "])


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_characters=NO_CHARACTERS, codec="utf-8")))
def test_ids_of_any_text_are_theirs(both, text):
    if "<|endoftext|>" not in text:
        check(both, [text])


@settings(max_examples=50, deadline=None)
@given(value=st.binary())
def test_any_bytes_give_ids_and_valid_text(both, value):
    _, ours, _ = both
    ids = ours.tokenize(tf.constant([value]))
    ours.detokenize(ids).numpy()[0].decode("utf-8")


def test_a_text_cannot_name_the_special_token(both):
    _, ours, _ = both
    (ids,) = ours.tokenize(["a<|endoftext|>"])
    assert ours.end_token_id not in ids
    assert ours.detokenize([[*ids, ours.end_token_id]]) == ["a<|endoftext|>"]


def test_a_preset_gives_the_tokenizer_back(both, tmp_path):
    _, ours, _ = both
    ours.save_to_preset(str(tmp_path))
    loaded = keras_hub.tokenizers.Tokenizer.from_preset(str(tmp_path))
    texts = ["To be,\n\n or 1234"]
    assert loaded.tokenize(texts) == ours.tokenize(texts)
    assert loaded.special_token_ids == ours.special_token_ids == [0]


def test_an_id_without_a_token_stands_for_nothing():
    proto = byte_pair.byte_pair_proto({"a": 0, "b": 3, "end": 1}, [], end="end")
    tokenizer = byte_pair.BytePairTokenizer(proto, ["end"] * 4)
    assert tokenizer.token_bytes() == [b"a", b"", b"", b"b"]


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="Received: split='words'"):
        byte_pair.BytePairTokenizer(split="words")
