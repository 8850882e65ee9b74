"""Long texts are cut in pieces, and their tokens are those of the whole."""

import re
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.models.tokenizers import long_texts
from langzoo.models.tokenizers.base import LastingOp
from langzoo.models.tokenizers.long_texts import LineByLineOp, cut_at_lines
from langzoo.models.tokenizers.sentence_piece import (
    SentencePieceTokenizer,
    character_tokenizer,
    train_sentencepiece,
)
from langzoo.models.tokenizers.sentence_piece_model import (
    CHARACTER_MODEL,
    ends_with_lines,
    listed_proto,
    model_proto_class,
)

LINES = st.lists(st.sampled_from(["", "\n", "\n\n", " a", "b\r\n", "\0", "é日 x y"]))


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(long_texts, "PIECE_BYTES", 8)


@pytest.mark.usefixtures("small_pieces")
def test_a_long_text_is_cut_behind_the_ends_of_its_lines():
    texts = [
        "1234567\n\n12345678\n1\n2\n3\n4\n\n\n12",
        "",
        "no end of a line",
        "1\n2\n",
    ]
    assert cut_at_lines(tf.constant(texts)).to_list() == [
        [b"1234567\n", b"\n12345678\n", b"1\n2\n3\n", b"4\n\n\n12"],
        [b""],
        [b"no end of a line"],
        [b"1\n2\n"],
    ]
    assert cut_at_lines(tf.constant([], tf.string)).to_list() == []


@pytest.fixture(scope="module", params=["bpe", "unigram", "characters", "unknown"])
def tokenizer(request, shakespeare):
    if request.param == "unknown":
        return SentencePieceTokenizer(listed_proto("\nab", model_type=CHARACTER_MODEL))
    if request.param == "characters":
        return character_tokenizer("\n abé")
    return train_sentencepiece(
        shakespeare, vocabulary_size=600, model_type=request.param, seed=1
    )


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(LINES.map("".join), min_size=1, max_size=4))
def test_the_tokens_are_those_of_the_whole_text(tokenizer, texts):
    op = tokenizer._sentence_piece
    assert isinstance(op, LineByLineOp)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(long_texts, "PIECE_BYTES", 8)
        found = tokenizer(tf.constant(texts)), tokenizer.unknown_symbols(texts)
        of_one = tokenizer(tf.constant(texts[0]))
        context.setattr(tokenizer, "_sentence_piece", LastingOp(op._make))
        expected = tokenizer(tf.constant(texts)), tokenizer.unknown_symbols(texts)
    assert found[0].to_list() == expected[0].to_list()
    assert found[1].numpy().tolist() == expected[1].numpy().tolist()
    assert of_one.numpy().tolist() == expected[0].to_list()[0]
    in_columns = tokenizer(tf.constant(texts)[:, tf.newaxis])
    assert in_columns.to_list() == [[ids] for ids in expected[0].to_list()]


@pytest.mark.parametrize("change", ["piece", "prefix", "spaces", "letters", "unknown"])
def test_a_text_stays_whole_where_lines_depend_on_each_other(change):
    model = model_proto_class().FromString(
        listed_proto("\nab", model_type=CHARACTER_MODEL)
    )
    match change:
        case "piece":
            model.pieces.add(piece="\n\n")
        case "prefix":
            model.normalizer_spec.add_dummy_prefix = True
        case "spaces":
            model.normalizer_spec.remove_extra_whitespaces = True
        case "letters":
            model.normalizer_spec.precompiled_charsmap = b"some"
        case "unknown":
            model.pieces[4].piece = "c"
    assert not ends_with_lines(model.SerializeToString())


def most_memory():
    """Bytes of this process, at most, since the last reset."""
    (line,) = re.findall(r"VmHWM:(.*) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


def test_memory_of_a_long_text_is_that_of_its_tokens():
    tokenizer = character_tokenizer("\nabc")
    text = tf.constant(["abc\n" * 500_000])
    tokenizer(tf.constant(["abc"]))
    Path("/proc/self/clear_refs").write_text("5")
    before = most_memory()
    assert tokenizer(text).flat_values.shape == [2_000_000]
    assert most_memory() - before < 150e6
