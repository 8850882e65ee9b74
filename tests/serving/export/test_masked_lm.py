"""The export of a masked language model: what it says is what the model says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import ByteTokenizer, train_sentencepiece, zoo
from langzoo.models.tasks import hiding
from langzoo.models.tokenizers.bert import BertTokenizer
from langzoo.serving.client import PseudoScore
from langzoo.serving.export import contract
from langzoo.serving.export.checks import example_of
from langzoo.serving.export.saved_model import export, read_metadata
from langzoo.serving.export.signatures.masked_lm import _with_masks
from langzoo.serving.in_process import ExportedModel
from langzoo.serving.server.servable import load_servable

CONTEXT, MASK = 16, 260
TEXT = "To be, or not to be, that is the question."


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "post_norm": True}
    return zoo.build(
        *("bert", ByteTokenizer(), CONTEXT),
        task="masked_lm",
        initializer_range=0.3,
        **sizes,
    )


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """It is checked: that stock TensorFlow Serving links its ops, among others."""
    folder = str(tmp_path_factory.mktemp("masked") / "1")
    export(model, folder, task="masked_lm")
    with ExportedModel(folder) as exported:
        yield exported


def log_probabilities(model, ids, places):
    """What the model says of places of a short sequence, all hidden."""
    ids = np.array([ids])
    ids[0, places] = MASK
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids, bool)}
    logits = model({**inputs, "mask_positions": np.array([places])})
    return tf.nn.log_softmax(logits)[0].numpy()


def test_the_signatures_are_those_of_the_contract(exported):
    known = contract.SIGNATURES["masked_lm"]
    metadata = read_metadata(exported.directory)
    assert metadata["signatures"] == sorted(one.name for one in known)
    servable = load_servable(0, exported.directory)
    for one in known:
        found = servable.signature(one.name)
        assert set(found.inputs) == set(one.inputs)
        assert set(found.outputs) == set(one.outputs)
    servable.close()


def test_scores_are_those_of_the_model(model, exported):
    expected = model.score([TEXT, "", "a"])
    answers = exported.token_scores([TEXT, "", "a"])
    for answer, scores in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.log_probabilities, scores, atol=1e-4)
    assert "".join(answers[0].tokens) == TEXT
    for answer, scores in zip(exported.score([TEXT, "", "a"]), expected, strict=True):
        assert isinstance(answer, PseudoScore)
        assert answer.tokens == len(scores)
        assert answer.nll == pytest.approx(-float(tf.reduce_sum(scores)), abs=1e-3)


def test_gaps_are_filled_with_the_likeliest_pieces(model, exported):
    text = "[MASK]o be or [MASK]"
    ids = [2, MASK, *ByteTokenizer()("o be or "), MASK, 3]
    places = [1, len(ids) - 2]
    expected = log_probabilities(model, ids, places)
    expected[:, [0, 1, 2, MASK]] = -np.inf  # specials are never told
    (answer, none) = exported.fill_mask([text, "no gap"], alternatives=[3, 1])
    assert (answer.mask, none.alternatives) == ("[MASK]", ())
    assert len(answer.alternatives) == 2
    for pieces, row in zip(answer.alternatives, expected, strict=True):
        best = np.sort(row)[::-1][:3]
        told = [piece.log_probability for piece in pieces]
        np.testing.assert_allclose(told, best, atol=1e-4)
        likeliest = ByteTokenizer().token_bytes()[int(row.argmax())]
        shown = pieces[0].token
        assert likeliest.decode(errors="ignore") == shown or shown.startswith("<0x")
    (default,) = exported.serving_default([text])
    np.testing.assert_allclose(
        np.array(default["top_log_probability"])[:, :3],
        [[piece.log_probability for piece in one] for one in answer.alternatives],
        atol=1e-5,
    )


def test_a_gap_in_a_long_text_sees_both_its_sides(exported):
    def told(text):
        (answer,) = exported.fill_mask([text], alternatives=1)
        return answer.alternatives[0][0].log_probability

    text = TEXT * 2
    middle = f"{text}[MASK]{text}"
    assert told(middle) != told(f"{text}[MASK]{'x' + text[1:]}")
    assert told(middle) != told(f"{text[:-1]}x[MASK]{text}")
    assert told(middle) == pytest.approx(told(f"x{middle[1:]}"), abs=1e-5)


def test_the_measure_is_of_hidden_tokens_and_the_same_in_any_batch(model, exported):
    texts = ["to be or not", "", "be", TEXT * 3]
    servable = load_servable(0, exported.directory)
    evaluate = servable.signature("evaluate").run

    def sums(texts):
        return evaluate({"examples": np.array([*map(example_of, texts)], object)}, ())

    together = sums(texts)
    for number, text in enumerate(texts):
        for name, values in sums([text]).items():
            np.testing.assert_allclose(values[0], together[name][number], atol=1e-4)
    servable.close()
    assert together["tokens"].tolist() == [2, 0, 1, round(0.15 * 3 * len(TEXT))]
    ids = [2, *ByteTokenizer()(texts[0]), 3]
    hidden = hiding.of_evaluation(
        tf.ragged.constant([[*map(int, ids)]], tf.int32),
        tf.constant(texts[:1]),
        hiding.ordinary(ByteTokenizer()),
    )
    places = sorted(hidden.positions[0].numpy()[hidden.is_there[0].numpy()])
    expected = log_probabilities(model, ids, places)
    targets = np.array(ids)[places]
    nll = -expected[np.arange(2), targets].sum()
    assert together["nll"][0] == pytest.approx(nll, abs=1e-4)
    assert together["correct_at_1"][0] == (expected.argmax(axis=1) == targets).sum()


def test_an_embedding_is_of_the_whole_text_with_its_ends(model, exported):
    ids = np.array([[2, *ByteTokenizer()("to be"), 3]])
    states = model.backbone({"token_ids": ids, "padding_mask": np.ones_like(ids, bool)})
    mean = states.numpy()[0].mean(axis=0)
    (embedding, _) = exported.embed(["to be", TEXT])
    assert embedding.tokens == 5
    np.testing.assert_allclose(embedding.vector, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("kind", ["bpe", "bert", "bytes"])
def test_a_space_before_a_mask_is_the_piece_s_where_words_have_it(kind):
    if kind == "bpe":
        tokenizer = train_sentencepiece(
            [TEXT] * 20, vocabulary_size=290, model_type="bpe", seed=0
        )
    elif kind == "bert":
        words = ["be", "to", "or", "not"]
        tokenizer = BertTokenizer(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
        )
    else:
        tokenizer = ByteTokenizer()
    mask = tokenizer.mask_token_id
    (ids, *_) = _with_masks(tokenizer, tf.constant(["to [MASK] or not", "", "[MASK]"]))
    before, behind = (" ", " or not") if kind == "bytes" else ("", " or not")
    parts = [*tokenizer("to" + before), mask, *tokenizer(behind)]
    start, end = tokenizer.start_token_id, tokenizer.end_token_id
    assert ids.numpy().tolist() == [start, *parts, end]
