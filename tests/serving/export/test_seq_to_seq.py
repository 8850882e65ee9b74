"""Exports of models that read a source answer as their Keras models do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo import models
from langzoo.models import zoo
from langzoo.serving.export import saved_model
from langzoo.serving.in_process import ExportedModel
from serialized import example

CONTEXT, SOURCE = 20, 16
SIZES = {
    "encoder_decoder": {
        "num_layers": 2,
        "hidden_dim": 16,
        "num_heads": 2,
        "num_key_value_heads": 1,
        "source_context_length": SOURCE,
    },
    "ngram": {},
}
SOURCES = ["a dog", "", "a text longer than the model sees of one", "zwei"]
TARGETS = ["ein Hund", "so", "a target that is longer than its context, too", ""]


@pytest.fixture(scope="module", params=SIZES)
def exported(request, tmp_path_factory):
    """A model of each kind, and its export; that of n-grams is checked, too."""
    keras.utils.set_random_seed(1)
    family = request.param
    model = zoo.build(
        *(family, models.ByteTokenizer(), CONTEXT),
        task="seq_to_seq_lm",
        **SIZES[family],
    )
    if family == "ngram":
        model.fit(["ein Hund", "eine Katze", "so"])
    else:
        generator = np.random.default_rng(1)
        for weight in model.trainable_weights:
            drawn = generator.normal(0, 0.7, weight.shape)
            weight.assign(weight + drawn if weight.ndim > 1 else weight)
    folder = str(tmp_path_factory.mktemp("export") / "model")
    if family == "ngram":
        saved_model.export(model, folder, task="seq_to_seq_lm")
    else:
        with unchecked.exports():
            saved_model.export(model, folder, task="seq_to_seq_lm")
    with ExportedModel(folder) as served:
        yield model, served


def greedy(model, prefix="", most=8):
    """What the Keras model writes, without a cache: the likeliest token each time."""
    preprocessor = model.preprocessor
    tokenizer = preprocessor.tokenizer
    never = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.start_token_id]
    [begun] = preprocessor.target_ids(tf.constant([prefix])).to_list()
    rows = np.array([begun[:-1]] * len(SOURCES))
    inputs = preprocessor.source_inputs(preprocessor.source_ids(tf.constant(SOURCES)))
    for _ in range(most):
        targets = tf.RaggedTensor.from_tensor(tf.constant(rows, tf.int32))
        inputs |= preprocessor.target_inputs(targets, CONTEXT)
        logits = model(inputs, training=False)[:, rows.shape[1] - 1].numpy()
        logits[:, never] = -np.inf
        rows = np.concatenate([rows, logits.argmax(axis=-1)[:, None]], axis=1)
    end = [tokenizer.end_token_id]
    written = (row[len(begun) - 1 :].tolist() + end for row in rows)
    return [tuple(row[: row.index(*end)]) for row in written]


@pytest.mark.parametrize("prefix", ["", "ein "])
def test_greedy_tokens_are_those_of_the_model(exported, prefix):
    model, served = exported
    found = served.generate(SOURCES, 8, temperature=0.0, forced_prefix=prefix)
    assert [one.token_ids for one in found] == greedy(model, prefix)
    assert all(one.text.startswith(prefix) for one in found)


def test_the_default_is_greedy_and_as_long_as_there_is_room(exported):
    _, served = exported
    most = CONTEXT - 1
    texts = [one.text for one in served.generate(SOURCES, most, temperature=0.0)]
    told = served.serving_default(SOURCES)
    assert [one["target"].decode() for one in told] == texts
    assert served.model_info()[0].max_new_tokens == most


def test_scores_are_those_of_the_model(exported):
    model, served = exported
    expected = model.score(SOURCES, TARGETS)
    found = served.token_scores(SOURCES, TARGETS)
    for one, row, target in zip(found, expected, TARGETS, strict=True):
        np.testing.assert_allclose(one.log_probabilities, row.numpy(), atol=1e-4)
        assert "".join(one.tokens) == target + "</s>"
    for score, row, target in zip(
        served.score(SOURCES, TARGETS), expected, TARGETS, strict=True
    ):
        assert score.nll == pytest.approx(-row.numpy().sum(), rel=1e-5)
        assert (score.bytes, score.words) == (len(target), len(target.split()))


def test_an_evaluation_sums_what_the_scores_are(exported):
    model, served = exported
    examples = [
        example(text=[s], target=[t]) for s, t in zip(SOURCES, TARGETS, strict=True)
    ]
    folder = tf.saved_model.load(served.directory)
    found = folder.signatures["evaluate"](examples=tf.constant(examples))
    scores = served.score(SOURCES, TARGETS)
    np.testing.assert_allclose(found["nll"], [s.nll for s in scores], rtol=1e-5)
    assert found["tokens"].numpy().tolist() == [s.tokens for s in scores]
    lengths = np.array([len(source) + 1 for source in SOURCES])
    is_cut = lengths > model.source_context_length
    assert found["cut_sources"].numpy().tolist() == is_cut.tolist()
    likeliest = found["calibration"].numpy()[..., 2].sum(axis=1)
    assert likeliest.tolist() == found["correct_at_1"].numpy().tolist()


def test_beams_are_sorted_and_the_first_of_one_is_greedy(exported):
    _, served = exported
    found = served.beam_search(SOURCES, 6, forced_prefix="ein ")
    for beams in found:
        assert len(beams) == 4
        assert [b.score for b in beams] == sorted(b.score for b in beams)[::-1]
        assert all(beam.text.startswith("ein ") for beam in beams)
    one = served.beam_search(SOURCES, 6, num_beams=1)
    texts = [beams[0].text for beams in one]
    written = served.generate(SOURCES, 6, temperature=0.0)
    assert texts == [generation.text for generation in written]


def test_a_beam_s_log_probability_is_the_score_of_its_tokens(exported):
    _, served = exported
    if served.model_info()[0].source_context_length == CONTEXT:
        return  # the n-grams' logits leave out what is never said
    [beams] = served.beam_search(["a dog"], 4, num_beams=1, length_penalty=0.0)
    [generation] = served.generate(["a dog"], 4, temperature=0.0)
    total = sum(generation.log_probabilities)
    if generation.finish_reason == "length":
        assert beams[0].log_probability == pytest.approx(total, abs=1e-4)
    assert beams[0].score == beams[0].log_probability


def test_what_is_cut_off_a_source_is_told_and_has_no_influence(exported):
    model, served = exported
    long = SOURCES[2]
    room = model.source_context_length - 1
    whole, cut = served.generate([long, long[:room]], 6, temperature=0.0)
    assert (whole.prompt_tokens, cut.prompt_tokens) == (room + 1, room + 1)
    assert (whole.unread_tokens, cut.unread_tokens) == (len(long) - room, 0)
    assert whole.token_ids == cut.token_ids


def test_a_prefix_longer_than_the_context_leaves_nothing_to_write(exported):
    _, served = exported
    [found] = served.generate(["a"], forced_prefix="x" * 2 * CONTEXT)
    assert (found.text, found.new_tokens) == ("x" * 2 * CONTEXT, 0)


def test_one_seed_writes_one_text_whatever_else_is_asked(exported):
    _, served = exported
    alone = served.generate(["zwei"], 8, seed=3)
    among = served.generate(SOURCES, 8, seed=[0, 1, 2, 3], stop=["", "q", "", ""])
    assert among[-1].token_ids == alone[0].token_ids
    assert among[-1].text == alone[0].text
