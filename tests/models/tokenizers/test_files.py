"""Vocabularies that were made elsewhere keep their ids."""

import io
import json

import keras_hub
import pytest
import sentencepiece
import tensorflow as tf
import tokenizers as hugging_face
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras_hub.src.tokenizers.byte_pair_tokenizer import SPLIT_PATTERN_TOKENIZERS
from langzoo.models import BytePairTokenizer, build_causal_lm, load_tokenizer
from langzoo.models.tokenizers.bert import BertTokenizer
from tokenizers import Regex, pre_tokenizers

TEXTS = ["", "An import statement!", "  two  spaces\n\n\tx 1234", "naïve 日本 🚀 ###"]
GPT2_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
LLAMA3_WORDS = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(SPLIT_PATTERN_TOKENIZERS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)


def save_sentencepiece(topics, path, **options):
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in topics for line in text.splitlines()),
        model_writer=proto, vocab_size=500, minloglevel=2, **options,
    )  # fmt: skip
    path.write_bytes(proto.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())


@pytest.mark.parametrize(
    ("options", "specials"),
    [
        ({"model_type": "bpe", "byte_fallback": True}, (2, 0, 1, 2)),  # as Llama 2
        ({"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, (0, 2, 1, 1)),  # as T5
    ],
)
def test_a_sentencepiece_model_keeps_its_ids(topics, tmp_path, options, specials):
    path = tmp_path / "tokenizer.model"
    theirs = save_sentencepiece(topics, path, **options)
    ours = load_tokenizer(path)
    assert ours.tokenize(TEXTS) == theirs.encode(TEXTS)
    assert specials == (
        *(ours.pad_token_id, ours.unk_token_id),
        *(ours.start_token_id, ours.end_token_id),
    )


@pytest.mark.parametrize("words", [GPT2_WORDS, LLAMA3_WORDS])
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_tokenizer_json_keeps_its_ids(byte_pairs, topics, tmp_path, words, as_folder):
    theirs, _, _ = byte_pairs(words)
    path = tmp_path / "tokenizer.json"
    theirs.save(str(path))
    ours = load_tokenizer(tmp_path if as_folder else path)
    texts = [*TEXTS, *topics[:5]]
    assert ours.tokenize(texts) == [
        encoding.ids for encoding in theirs.encode_batch(texts)
    ]
    assert ours.detokenize(ours.tokenize(texts)) == texts
    ours.save_to_preset(str(tmp_path / "preset"))
    again = load_tokenizer(tmp_path / "preset")
    assert again.tokenize(texts) == ours.tokenize(texts)


def test_a_configuration_beside_it_names_the_special_tokens(byte_pairs, tmp_path):
    theirs, vocabulary, _ = byte_pairs(GPT2_WORDS)
    theirs.add_special_tokens(["<start>", "<end>", "<fill>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    names = {"bos_token": "<start>", "eos_token": {"content": "<end>"}}
    names["pad_token"] = "<fill>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    ours = load_tokenizer(tmp_path)
    size = len(vocabulary)
    assert (ours.start_token_id, ours.end_token_id) == (size, size + 1)
    assert ours.pad_token_id == size + 2
    assert ours.detokenize([[size, *ours.tokenize(["x"])[0], size + 1]]) == ["x"]


@pytest.mark.parametrize("family", ["ngram", "keras_hub"])
def test_a_model_that_pads_with_the_end_of_a_text_generates(
    gpt2_preset, topics, family
):
    tokenizer = load_tokenizer(gpt2_preset)
    assert tokenizer.pad_token_id == tokenizer.end_token_id
    options = {"order": 3}
    if family == "keras_hub":
        options = {"preset": gpt2_preset, "pretrained": True}
    model = build_causal_lm(family, tokenizer, 32, **options)
    if family == "ngram":
        model.fit(topics[:3])
    model.compile(sampler="greedy")
    short, long = model.generate(["The", "The import statement"], max_length=12)
    assert short.startswith("The")
    assert len(short) > len("The")
    assert long.startswith("The import statement")
    assert len(long) > len("The import statement")


def test_a_folder_of_keras_hub_is_a_tokenizer_too(gpt2_preset):
    ours = load_tokenizer(gpt2_preset)
    theirs = keras_hub.tokenizers.Tokenizer.from_preset(gpt2_preset)
    assert ours.tokenize(["An import"]) == [list(theirs.tokenize("An import"))]


def content_of(theirs, **changes):
    content = json.loads(theirs.to_str())
    for key, value in changes.items():
        section = content["model"] if key in content["model"] else content
        section[key] = value
    return content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "WordLevel"}, "and WordPiece.*Received: type='WordLevel'"),
        ({"normalizer": {"type": "NFC"}}, "normalizer is not supported"),
        (
            {"pre_tokenizer": {"type": "Whitespace"}},
            "pre_tokenizer must be.*Whitespace",
        ),
        ({"pre_tokenizer": None}, "pre_tokenizer must be.*null"),
        ({"dropout": 0.1}, "model.dropout is not supported"),
        ({"byte_fallback": True}, "must be those of a SentencePiece model.*ByteLevel"),
        (
            {
                "added_tokens": [
                    {"id": 600, "content": "mark", "special": False},
                ]
            },
            r"not special.*\['mark'\]",
        ),
        ({"ignore_merges": True, "merges": []}, "model.ignore_merges"),
    ],
)
def test_what_cannot_be_honoured_is_named(byte_pairs, tmp_path, changes, message):
    theirs, _, _ = byte_pairs(GPT2_WORDS)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content_of(theirs, **changes)))
    with pytest.raises(ValueError, match=f"tokenizer {path} cannot be used.*{message}"):
        load_tokenizer(path)


def test_merges_that_make_every_token_need_not_be_ignored(byte_pairs, tmp_path):
    theirs, _, _ = byte_pairs(LLAMA3_WORDS)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content_of(theirs, ignore_merges=True)))
    reference = hugging_face.Tokenizer.from_file(str(path))
    assert load_tokenizer(path).tokenize(TEXTS) == [
        encoding.ids for encoding in reference.encode_batch(TEXTS)
    ]


def test_a_tokenizer_json_without_a_known_end_is_an_error(byte_pairs, tmp_path):
    theirs, _, _ = byte_pairs(GPT2_WORDS)
    content = theirs.to_str().replace("<|endoftext|>", "<stop>")
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="name it as eos_token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"[1, 2]", b"{}", b"{"])
@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_other_files_are_an_error(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"tokenizer {path} cannot be used"):
        load_tokenizer(path)


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be used.*No such file"):
        load_tokenizer(tmp_path / "absent")


def test_byte_pairs_from_a_file_are_the_zoos(byte_pairs, tmp_path):
    byte_pairs(GPT2_WORDS)[0].save(str(tmp_path / "tokenizer.json"))
    assert type(load_tokenizer(tmp_path)) is BytePairTokenizer


def bert_of(topics, **normalizer):
    theirs = hugging_face.Tokenizer(hugging_face.models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer = hugging_face.normalizers.BertNormalizer(**normalizer)
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = hugging_face.trainers.WordPieceTrainer(
        vocab_size=600,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    theirs.train_from_iterator(topics, trainer)
    return theirs


@pytest.fixture(scope="module", params=[True, False], ids=["lowercase", "cased"])
def berts(request, topics, tmp_path_factory):
    theirs = bert_of(topics, lowercase=request.param)
    path = tmp_path_factory.mktemp("bert") / "tokenizer.json"
    theirs.save(str(path))
    ours = load_tokenizer(path)
    assert type(ours) is BertTokenizer
    signature = [tf.TensorSpec([None], tf.string)]
    return theirs, ours, tf.function(ours.tokenize, input_signature=signature)


def check_bert(berts, texts):
    theirs, ours, in_graph = berts
    expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert ours.tokenize(texts) == expected
    assert in_graph(tf.constant(texts)).to_list() == expected


def test_word_pieces_of_bert_keep_their_ids(berts, topics):
    check_bert(berts, [*topics[:10], "Ünïted 日本 don't, e\u0301?"])


# All kinds of letters, signs, spaces and control characters; none so new that only one
# of the two libraries knows it.
BERT_TEXT = st.text(
    st.one_of(
        st.characters(max_codepoint=0x24F),
        st.sampled_from(
            "ae1. \u0301\u2019\u2028\u200b\u3000ΆЖאकि中日㐀カ한€🚀\ufffd\ue000"
        ),
    )
)


@settings(max_examples=200, deadline=None)
@given(text=BERT_TEXT)
def test_word_pieces_of_any_text_keep_their_ids(berts, text):
    assume("[" not in text)  # their tokenizer reads special tokens in a text
    check_bert(berts, [text])


@settings(max_examples=50, deadline=None)
@given(value=st.binary())
def test_any_bytes_give_word_pieces(berts, value):
    _, ours, _ = berts
    ids = ours.tokenize(tf.constant([value]))
    ours.detokenize(ids).numpy()[0].decode("utf-8")


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_gives_word_pieces_and_a_normal_form(berts, text):
    _, ours, in_graph = berts
    ids = ours.tokenize([text])
    assert ids == in_graph(tf.constant([text])).to_list()
    (once,) = ours.detokenize(ids)
    surface = ours.token_bytes()
    assert b"".join(surface[i] for i in ids[0]).decode().removeprefix(" ") == once
    assert ours.detokenize(ours.tokenize([once])) == [once]


def test_a_preset_gives_the_tokenizer_of_bert_back(berts, tmp_path):
    _, ours, _ = berts
    ours.save_to_preset(str(tmp_path))
    loaded = keras_hub.tokenizers.Tokenizer.from_preset(str(tmp_path))
    texts = ["Ünïted STATES of  [MASK]"]
    assert type(loaded) is BertTokenizer
    assert loaded.tokenize(texts) == ours.tokenize(texts)
    assert loaded.token_bytes() == ours.token_bytes()
    assert loaded.special_token_ids == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("normalizer", "message"),
    [
        ({"lowercase": True, "strip_accents": False}, "normalizer must be BERT's"),
        ({"handle_chinese_chars": False}, "normalizer must be BERT's"),
        ({"clean_text": False}, "normalizer must be BERT's"),
    ],
)
def test_other_normalizers_than_berts_are_an_error(
    topics, tmp_path, normalizer, message
):
    bert_of(topics[:1], **normalizer).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)
