"""Scores of long documents whose windows go on with a recurrent model's state."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo.models import build_causal_lm
from langzoo.models.tasks import scoring, windows
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.pipelines.configuration.loading import ConfigError, load
from langzoo.serving.server.servable import load_servable

CONTEXT = 8
TEXTS = ["", "short", "of 8 ids", "a text of some more", "long and longer " * 4, "Ü"]


@pytest.fixture(scope="module", params=["rnn", "gru", "lstm"])
def model(request):
    model = build_causal_lm(request.param, ByteTokenizer(), CONTEXT, hidden_dim=6)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    return model


def read_at_once(model, text):
    """The log-probabilities of a document that the layers read without a window."""
    ids = scoring.framed(model.preprocessor.tokenizer, tf.constant([text]))[0]
    hidden, _ = model.backbone.call_with_state(
        ids[tf.newaxis, :-1], model.backbone.empty_cache(1), training=False
    )
    logits = tf.nn.log_softmax(model.backbone.logits(hidden)[0])
    return tf.gather(logits, ids[1:], axis=1, batch_dims=1).numpy()


@pytest.mark.parametrize("positions", [1, 2 * CONTEXT, 1024])
def test_with_stride_0_a_document_is_read_as_if_at_once(model, positions, monkeypatch):
    monkeypatch.setattr(windows, "CHUNK_POSITIONS", positions)
    model.score_function = None
    scores = model.score(TEXTS, stride=0)
    for row, text in zip(scores, TEXTS, strict=True):
        np.testing.assert_allclose(row, read_at_once(model, text), atol=1e-5)
    # Windows that begin anew know less.
    fresh = model.score(TEXTS, stride=CONTEXT)
    assert np.abs(fresh[4][CONTEXT:] - scores[4][CONTEXT:]).max() > 1e-3
    np.testing.assert_allclose(fresh[1], scores[1], atol=1e-5)


def test_an_export_reads_on_in_every_signature(tmp_path):
    model = build_causal_lm("lstm", ByteTokenizer(), CONTEXT, hidden_dim=6)
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    asked = ["score", "evaluate", "token_alternatives"]
    unchecked.export(model, tmp_path / "1", asked, stride=0)
    servable = load_servable(1, tmp_path / "1", config=unchecked.AS_IT_IS)
    texts = np.array([text.encode() for text in TEXTS], object)
    expected = [-read_at_once(model, text).sum() for text in TEXTS]
    for name in ("score", "evaluate"):
        rows = {"text": texts}
        if name == "evaluate":
            rows = {"examples": np.array([_example(text) for text in texts], object)}
        told = servable.signature(name).run(rows)
        np.testing.assert_allclose(told["nll"], expected, rtol=1e-4)
    told = servable.signature("token_alternatives").run({"text": texts})
    sums = told["log_probability"].sum(axis=1)
    np.testing.assert_allclose(-sums, expected, rtol=1e-4)
    servable.close()


def _example(text):
    example = tf.train.Example()
    example.features.feature["text"].bytes_list.value.append(text)
    return example.SerializeToString()


def test_a_model_without_a_state_refuses_it():
    model = build_causal_lm("gated_conv", ByteTokenizer(), CONTEXT, hidden_dim=8)
    with pytest.raises(ValueError, match=r"A stride of 0 is for recurrent models"):
        model.score(["text"], stride=0)
    with pytest.raises(ConfigError, match=r"serving\.score_stride 0 needs a family"):
        load(None, ["model={family: transformer}", "serving.score_stride=0"])
