"""Words and pieces of words: what is kept, what is unknown, what is learned."""

import collections
import re
import subprocess
import sys

import keras_hub
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.models.tokenizers import word_piece, words

# White space, marks, scripts and the characters that the ops use.
TEXT = st.text(
    st.one_of(
        st.sampled_from(" \n\t\r\0ab.,'é▁\u0301 日\ufffe"), st.characters(codec="utf-8")
    )
)


@pytest.fixture(scope="module")
def tokenizer(shakespeare):
    counts = words.count_words(shakespeare)
    return words.word_tokenizer([word for word, _ in counts.most_common(150)])


@pytest.fixture(scope="module")
def in_graph(tokenizer):
    return tf.function(
        tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)]
    )


def split(text):
    return [word.decode() for word in words.words_of(tf.constant([text]))[0].numpy()]


def test_words_are_runs_of_letters_and_single_signs():
    text = "Don't  say: “naïve”\n\n2nd e\u0301 हिन्दी 日本."
    assert split(text) == [
        *("Don", "'", "t", " ", " say", ":", " “", "naïve", "”", "\n", "\n"),
        *("2nd", " e\u0301", " हिन्दी", " 日本", "."),
    ]


@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_joined_words_are_the_text(text):
    assert "".join(split(text)) == text.replace("\0", "\ufffe")


@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_listed_words_come_back_and_others_are_unknown(tokenizer, in_graph, text):
    text = f"Pity the world,{text} or else"
    listed = set(tokenizer.get_vocabulary()[4:])
    kept = [word if word in listed else None for word in split(text)]
    ids = tokenizer.tokenize([text])
    assert ids == in_graph(tf.constant([text])).to_list()
    assert [index == tokenizer.unk_token_id for index in ids[0]] == [
        word is None for word in kept
    ]
    back = "".join(word for word in kept if word)
    assert tokenizer.detokenize(ids) == [back]
    surface = tokenizer.token_bytes()
    assert b"".join(surface[index] for index in ids[0]).decode() == back


@settings(max_examples=50, deadline=None)
@given(value=st.binary())
def test_any_bytes_give_ids_and_valid_text(tokenizer, value):
    ids = tokenizer.tokenize(tf.constant([value]))
    tokenizer.detokenize(ids).numpy()[0].decode("utf-8")


def test_a_text_cannot_name_a_special_token(tokenizer):
    specials = {"<pad>": 0, "<s>": 2, "</s>": 3}
    for name, index in specials.items():
        assert tokenizer.token_to_id(name) == index
        assert index not in tokenizer.tokenize([f"a {name}{name}"])[0]


def test_the_mark_of_a_space_is_a_word_like_any_other():
    tokenizer = words.word_tokenizer([" ▁", "▁", "a"])
    assert tokenizer(["a ▁▁"]) == [[6, 4, 5]]
    assert tokenizer.detokenize([[6, 4, 5]]) == ["a ▁▁"]


def test_a_preset_gives_the_word_tokenizer_back(tokenizer, tmp_path, shakespeare):
    tokenizer.save_to_preset(str(tmp_path))
    loaded = keras_hub.tokenizers.Tokenizer.from_preset(str(tmp_path))
    assert type(loaded) is words.WordTokenizer
    assert loaded.tokenize(shakespeare) == tokenizer.tokenize(shakespeare)
    assert loaded.token_bytes() == tokenizer.token_bytes()


def test_words_are_counted_in_all_texts(shakespeare):
    expected = collections.Counter(word for text in shakespeare for word in split(text))
    assert words.count_words(shakespeare) == expected
    assert words.count_words(["a\0 \0b"]) == {"a": 1, "b": 1}


LINES = " no it was n't <unk> monday \n but  while N\tstocks </s> fell \n"


@pytest.fixture(scope="module")
def spaced():
    counts = words.count_words([LINES], words.spaced_words_of)
    assert set(counts) == {*LINES.split(), "\n"} - {"<unk>", "</s>"}
    return words.word_tokenizer(sorted(counts), spaced=True)


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_words_at_white_space_are_those_of_the_lines(text):
    cut = words.spaced_words_of(tf.constant([text]))[0].numpy()
    expected = []
    for line in re.split("(\n)", text.replace("\0", "\ufffe")):
        expected += ["\n"] if line == "\n" else re.findall(r"[^ \t\v\f\r]+", line)
    assert [word.decode() for word in cut] == expected


def test_a_benchmark_s_tokens_are_its_words_and_the_ends_of_its_lines(spaced):
    ids = spaced.tokenize([LINES, LINES.strip(), ""])
    assert [len(row) for row in ids] == [
        len(LINES.split()) + 2,
        len(LINES.split()) + 1,
        0,
    ]
    unknown = [word for word in LINES.split() if word in ("<unk>", "</s>")]
    assert ids[0].count(spaced.unk_token_id) == len(unknown)
    assert not set(ids[0]) & {0, 2, 3}
    known = [word for word in LINES.split(" ") if word not in unknown]
    assert spaced.detokenize(ids)[0].split() == " ".join(known).split()
    # Each is spelled with its bytes and an end.
    assert spaced.unknown_symbols(tf.constant([LINES])).numpy() == 6 + 5
    assert spaced.normalizes


def test_a_preset_gives_the_tokenizer_of_spaced_words_back(spaced, tmp_path):
    spaced.save_to_preset(str(tmp_path))
    loaded = keras_hub.tokenizers.Tokenizer.from_preset(str(tmp_path))
    assert type(loaded) is words.SpacedWordTokenizer
    assert loaded.tokenize([LINES]) == spaced.tokenize([LINES])


def test_pieces_are_learned(shakespeare):
    tokenizer = word_piece.train_word_piece(shakespeare, vocabulary_size=700)
    assert tokenizer.vocabulary_size() == 700
    tokens = len(tokenizer.tokenize([" ".join(shakespeare)])[0])
    assert tokens < len(" ".join(shakespeare)) / 2


def test_the_longest_piece_is_taken():
    base = train_base()
    tokenizer = word_piece.WordPieceTokenizer([*base, "un", "##aff", "##affable"])
    assert [tokenizer.id_to_token(i) for i in tokenizer(["unaffable"])[0]] == [
        "un",
        "##affable",
    ]
    assert tokenizer.detokenize(tokenizer(["unaffected # ##x"])) == ["unaffected # ##x"]


def train_base():
    return word_piece.train_word_piece(["a"], vocabulary_size=516).get_vocabulary()


def test_a_long_word_is_not_unknown():
    tokenizer = word_piece.WordPieceTokenizer(train_base())
    text = "x" * 5000
    assert len(tokenizer([text])[0]) == 5000
    assert tokenizer.detokenize(tokenizer([text])) == [text]


def test_learning_pieces_is_the_same_in_every_process(shakespeare):
    # The trainer's hash maps are seeded anew in every process.
    program = (
        "import sys, langzoo; from langzoo.models import train_word_piece; "
        "texts = sys.stdin.read().splitlines(); "
        "tokenizer = train_word_piece(texts, vocabulary_size=800); "
        "print(*tokenizer.get_vocabulary(), sep='\\n')"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(shakespeare), text=True, capture_output=True, check=True,
    )  # fmt: skip
    here = word_piece.train_word_piece(shakespeare, vocabulary_size=800)
    assert other.stdout.splitlines() == here.get_vocabulary()


def test_of_very_many_words_a_share_is_learned_from(monkeypatch):
    monkeypatch.setattr(word_piece, "_WORDS_TO_LEARN_FROM", 1000)
    monkeypatch.setattr(word_piece, "_REPETITIONS", 300)
    counts = {" ab": 900_000, "é": 100_000, "rare": 400}
    texts = list(word_piece._written_words(counts))
    learned = collections.Counter(" ".join(texts).split())
    assert learned == {"Ġab": 900, "Ã©": 100}
    assert max(len(text.split()) for text in texts) == 300


def test_a_vocabulary_without_all_bytes_is_an_error():
    with pytest.raises(ValueError, match="must begin with the special tokens"):
        word_piece.WordPieceTokenizer(["<pad>", "<unk>", "<s>", "</s>", "a"])
    with pytest.raises(
        ValueError, match=r"at least 516.*Received: vocabulary_size=515"
    ):
        word_piece.train_word_piece(["a"], vocabulary_size=515)
