"""Hugging Face's files of SentencePiece models keep their ids."""

import io
import json
import re

import pytest
import sentencepiece
import tokenizers as hugging_face
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.models import SentencePieceTokenizer, load_tokenizer
from langzoo.models.tokenizers.sentence_piece_model import model_proto_class
from tokenizers import Regex, normalizers, pre_tokenizers

SPACE = "▁"
WORDS = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
COLLAPSED = [
    normalizers.Strip(left=False, right=True),
    normalizers.Replace(Regex(" {2,}"), SPACE),
]
ESCAPED = normalizers.Replace(" ", SPACE)
# Of all kinds, but marks, which the two libraries normalize in different runs, and the
# sign of special tokens, which theirs reads in a text.
TEXT = st.text(st.sampled_from("abcdeftinosr.,:;'()-_ \t\nÉéßﬁ½²日本中🚀ЖאＡ¨€"))


def train(topics, **options):
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in topics for line in text.splitlines()),
        model_writer=proto, vocab_size=600, minloglevel=2, **options,
    )  # fmt: skip
    return proto.getvalue()


OLDER = {
    "steps": [normalizers.Replace(Regex(" {2,}"), " ")],
    "words": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), WORDS]),
}


def converted_unigram(proto, byte_fallback, steps=COLLAPSED, words=WORDS):
    """As Hugging Face's converter writes a model of T5's kind."""
    model = model_proto_class().FromString(proto)
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    theirs = hugging_face.Tokenizer(
        hugging_face.models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback)
    )
    charsmap = model.normalizer_spec.precompiled_charsmap
    theirs.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), *steps]
    )
    theirs.pre_tokenizer = words
    theirs.add_special_tokens(["<unk>", "<s>", "</s>"])
    return theirs


def converted_byte_pairs(proto):
    """As Hugging Face's converter writes a model of Llama 2's kind."""
    model = model_proto_class().FromString(proto)
    vocabulary = {piece.piece: index for index, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces}
    merges = [
        (token[:cut], token[cut:])
        for token in vocabulary
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    merges.sort(key=lambda pair: scores["".join(pair)], reverse=True)
    theirs = hugging_face.Tokenizer(
        hugging_face.models.BPE(
            vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    theirs.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), ESCAPED])
    theirs.add_special_tokens(["<unk>", "<s>", "</s>"])
    return theirs


def trained_byte_pairs(topics):
    """Learned by Hugging Face's package, with spaces of Gemma's kind."""
    theirs = hugging_face.Tokenizer(
        hugging_face.models.BPE(unk_token="<unk>", byte_fallback=True)
    )
    theirs.normalizer = ESCAPED
    theirs.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    specials = ["<pad>", "</s>", "<s>", "<unk>"]
    trainer = hugging_face.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*specials, *(f"<0x{value:02X}>" for value in range(256))],
        show_progress=False,
    )
    lines = (line for text in topics for line in text.splitlines())
    theirs.train_from_iterator(lines, trainer)
    content = json.loads(theirs.to_str())
    content["added_tokens"] = content["added_tokens"][: len(specials)]
    return hugging_face.Tokenizer.from_str(json.dumps(content))


KINDS = ["unigram", "unigram, older", "unigram with bytes", "llama 2", "gemma"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request, topics, tmp_path_factory):
    """Their tokenizer, and the zoo's from its file."""
    kind = request.param
    if kind == "llama 2":
        options = {"normalization_rule_name": "identity", "byte_fallback": True}
        theirs = converted_byte_pairs(
            train(topics, model_type="bpe", remove_extra_whitespaces=False, **options)
        )
    elif kind == "gemma":
        theirs = trained_byte_pairs(topics)
    else:
        byte_fallback = kind == "unigram with bytes"
        proto = train(topics, model_type="unigram", byte_fallback=byte_fallback)
        older = OLDER if kind == "unigram, older" else {}
        theirs = converted_unigram(proto, byte_fallback, **older)
    path = tmp_path_factory.mktemp("sentence_pieces") / "tokenizer.json"
    theirs.save(str(path))
    ours = load_tokenizer(path)
    assert type(ours) is SentencePieceTokenizer
    return kind, theirs, ours


def check(pair, texts):
    kind, theirs, ours = pair
    expected = [
        encoding.ids
        for encoding in theirs.encode_batch(texts, add_special_tokens=False)
    ]
    found = ours.tokenize(texts)
    if kind.startswith("unigram"):
        # In a run of one character any order of some pieces is as likely.
        pairs = zip(texts, found, expected, strict=True)
        assert all(a == b for text, a, b in pairs if not re.search(r"(.)\1\1", text))
        found, expected = (list(map(sorted, ids)) for ids in (found, expected))
    assert found == expected


def test_the_ids_of_real_text_are_theirs(pair, topics):
    check(pair, [*topics, *(line for text in topics for line in text.splitlines())])


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_the_ids_of_odd_text_are_theirs(pair, text):
    check(pair, [text])


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_with_bytes_but_without_a_table_any_text_comes_back(pair, text):
    kind, _, ours = pair
    assert ours.normalizes == kind.startswith("unigram")
    if not ours.normalizes:
        # The decoder drops spaces at the start, as it does the one that was added.
        assert ours.detokenize(ours.tokenize([f"a{text}"])) == [f"a{text}"]


def test_special_tokens_are_those_of_the_file(pair):
    _, theirs, ours = pair
    for token, index in (
        ("<unk>", ours.unk_token_id),
        ("<s>", ours.start_token_id),
        ("</s>", ours.end_token_id),
    ):
        assert theirs.token_to_id(token) == index


def test_a_converted_model_is_the_model(topics, tmp_path):
    proto = train(topics, model_type="unigram")
    (tmp_path / "tokenizer.model").write_bytes(proto)
    converted_unigram(proto, False).save(str(tmp_path / "tokenizer.json"))
    original, ours = map(load_tokenizer, (tmp_path / "tokenizer.model", tmp_path))
    assert ours.tokenize(topics) == original.tokenize(topics)
    assert ours.token_bytes() == original.token_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"normalizer": {"type": "NFKC"}},
            "must be those of a SentencePiece model.*NFKC",
        ),
        ({"normalizer": None}, "must be those of a SentencePiece model"),
        (
            {"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}},
            "must be those of a SentencePiece model",
        ),
    ],
)
def test_steps_that_are_not_sentencepieces_are_named(
    topics, tmp_path, changes, message
):
    theirs = converted_unigram(train(topics, model_type="unigram"), False)
    content = {**json.loads(theirs.to_str()), **changes}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"tokenizer {path} cannot be used.*{message}"):
        load_tokenizer(path)


def test_pieces_across_words_are_named(topics, tmp_path):
    theirs = converted_unigram(train(topics, model_type="unigram"), False)
    content = json.loads(theirs.to_str())
    content["model"]["vocab"][-1][0] = "of▁the"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"across words.*of▁the"):
        load_tokenizer(tmp_path)
