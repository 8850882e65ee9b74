"""What is unknown to a vocabulary is spelled, and costs what a fixed code costs."""

import functools
import io
import math

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langzoo.models import (
    BytePairTokenizer,
    ByteTokenizer,
    SentencePieceTokenizer,
    build_causal_lm,
    character_tokenizer,
    load_tokenizer,
    train_sentencepiece,
    train_word_piece,
    word_tokenizer,
)
from langzoo.models.tasks.scoring import spelling_nll
from langzoo.models.tokenizers.bert import BertTokenizer
from langzoo.models.tokenizers.byte_pair import BYTE_OF, byte_pair_proto
from langzoo.models.tokenizers.words import count_words, words_of

ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\ufffe\uffff"))


@functools.cache
def graph_of(tokenizer):
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(tokenizer.unknown_symbols, signature)


def symbols(tokenizer, *texts):
    """Of each text; the same in a graph."""
    texts = tf.constant(texts, tf.string)
    in_graph = graph_of(tokenizer)(texts).numpy().tolist()
    assert tokenizer.unknown_symbols(texts).numpy().tolist() == in_graph
    return in_graph


def test_an_unknown_word_costs_its_bytes_and_an_end():
    tokenizer = word_tokenizer(["the", " fox", "\n"])
    # " red", ",", " naïve" of 7 bytes, and NUL; then nothing.
    texts = ["the red fox, naïve\0\n", "the fox\n", ""]
    assert symbols(tokenizer, *texts) == [(4 + 1) + (1 + 1) + (7 + 1) + (1 + 1), 0, 0]
    nats = spelling_nll(tokenizer, tf.constant(texts))
    assert nats.dtype == tf.float32
    assert nats.numpy().tolist() == pytest.approx([17 * math.log(257), 0, 0])


@pytest.fixture(scope="module")
def few_words():
    return word_tokenizer(["a", " a", "e", " ", "\n", "."])


# Several at a time, for an op compiles its regular expression each time.
@settings(max_examples=20, deadline=None)
@given(texts=st.lists(ANY_TEXT, min_size=5, max_size=5))
@example(texts=["a\0a \0"])
def test_the_unlisted_words_of_any_text_are_spelled(few_words, texts):
    listed = {*few_words.get_vocabulary()[4:]}
    expected = []
    for words in words_of(tf.constant(texts)).to_list():
        cut = [word.decode() for word in words]
        # NUL is the one character that cutting writes in another way.
        unlisted = [word.replace("\ufffe", "\0") for word in cut if word not in listed]
        expected.append(sum(len(word.encode()) + 1 for word in unlisted))
    assert symbols(few_words, *texts) == expected


@pytest.fixture(scope="module")
def lossless(topics, gpt2_preset):
    return [
        ByteTokenizer(),
        train_sentencepiece(topics[:5], vocabulary_size=400, model_type="bpe", seed=0),
        character_tokenizer("abc"),
        train_word_piece(topics[:2], vocabulary_size=600),
        load_tokenizer(gpt2_preset),
    ]


@settings(max_examples=30, deadline=None)
@given(text=ANY_TEXT)
def test_what_gives_back_any_text_has_nothing_to_spell(lossless, text):
    for tokenizer in lossless:
        assert symbols(tokenizer, text, "") == [0, 0]
        assert not tokenizer.normalizes


def test_a_byte_without_a_token_is_spelled():
    letters = [letter for letter, byte in BYTE_OF.items() if byte not in b"qz"]
    vocabulary = {token: index for index, token in enumerate(["<end>", *letters])}
    tokenizer = BytePairTokenizer(
        byte_pair_proto(vocabulary, [], end="<end>"), ["<end>"] * 4
    )
    assert tokenizer.detokenize(tokenizer(["a zebra"])) == ["a ebra"]
    assert symbols(tokenizer, "a zebra", "bra") == [2, 0]


def sentencepiece_of(texts, **options):
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines()),
        model_writer=proto, minloglevel=2, **{"vocab_size": 300, **options},
    )  # fmt: skip
    specials = ["</s>", "<unk>", "<s>", "</s>"]
    return SentencePieceTokenizer(proto.getvalue(), special_pieces=specials)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_brought_sentencepiece_model_spells_what_has_no_piece(topics, model_type):
    tokenizer = sentencepiece_of(topics[:9], model_type=model_type)
    assert tokenizer.normalizes
    # "é" of 2 bytes, and two characters of 3 that are one unknown piece; a ligature
    # that is normalized to letters which are known; white space that is.
    texts = ["the énd is 日本", "the ﬁnd", " the  end\n"]
    assert symbols(tokenizer, *texts) == [(2 + 1) + (6 + 1), 0, 0]


def test_a_brought_model_with_bytes_has_nothing_to_spell(topics):
    options = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 400}
    tokenizer = sentencepiece_of(topics[:9], **options)
    assert symbols(tokenizer, "the énd is 日本") == [0]


def test_an_unknown_word_of_bert_is_spelled_as_it_is_normalized():
    pieces = ["two", "word", "##s", "."]
    tokenizer = BertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces])
    assert tokenizer.normalizes
    # "unseen" after its accent is dropped, "€" of 3 bytes, and a word beyond 100.
    texts = ["Two ünseen words €.", "two words.", "x" * 101]
    assert symbols(tokenizer, *texts) == [(6 + 1) + (3 + 1), 0, 101 + 1]


def test_few_words_are_no_better_than_bytes_once_they_are_spelled(topics):
    """The trick that a gate on bits per byte must not fall for."""
    learned, unseen = topics[:24], topics[24:]
    words = [word for word, _ in count_words(learned).most_common(10)]
    bits = {}
    for tokenizer in (ByteTokenizer(), word_tokenizer(words)):
        model = build_causal_lm("ngram", tokenizer, 64, order=4)
        model.fit(learned)
        nll = -np.sum(model.score(unseen).values)
        spelled = np.sum(spelling_nll(tokenizer, tf.constant(unseen)))
        size = sum(len(text.encode()) for text in unseen) * math.log(2)
        bits[type(tokenizer)] = nll / size, (nll + spelled) / size
    (of_bytes, same), (of_words, spelled_words) = bits.values()
    assert of_words < of_bytes / 2
    assert same == of_bytes < spelled_words
