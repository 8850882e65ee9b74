"""The n-gram model's export, run as a model server runs it: in a TF1 session."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo.models.tokenizers.sentence_piece import train_sentencepiece
from langzoo.models.zoo import build_causal_lm
from langzoo.serving.export.saved_model import read_metadata

ORDER = 4
CONTEXT = 32
TEXTS = [topics[name] for name in sorted(topics)]
ASKED = ["generate", "score", "serving_default", "token_scores"]
UNSEEN = [TEXTS[0][:700], "", "naïve €", TEXTS[1][:40]]


class Served:
    """A model, and its export's signatures as functions of NumPy arrays."""

    def __init__(self, model: Any, directory: str) -> None:
        self.model = model
        unchecked.export(model, directory, ASKED)
        self.metadata = read_metadata(directory)
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            graph = tf.compat.v1.saved_model.load(self._session, ["serve"], directory)
        self._signatures = graph.signature_def

    def call(self, name: str, **inputs: Any) -> dict[str, np.ndarray]:
        signature = self._signatures[name]
        feeds = {
            info.name: inputs.get(key, tf.make_ndarray(signature.defaults[key]))
            if key in signature.defaults
            else inputs[key]
            for key, info in signature.inputs.items()
        }
        fetches = {key: info.name for key, info in signature.outputs.items()}
        return self._session.run(fetches, feeds)


@pytest.fixture(scope="module")
def served(tmp_path_factory: Any) -> Served:
    """Of subwords; of bytes it is one of the kinds of `test_export`."""
    learned = TEXTS[2:]
    tokenizer = train_sentencepiece(
        learned[:20], vocabulary_size=400, model_type="bpe", seed=0
    )
    model = build_causal_lm("ngram", tokenizer, CONTEXT, order=ORDER)
    model.fit(learned)
    return Served(model, str(tmp_path_factory.mktemp("bpe") / "1"))


def test_scores_of_long_documents_are_those_of_the_model_without_windows(served):
    """Half a context before every token is more than an n-gram sees."""
    scores = served.model.score(UNSEEN)
    outputs = served.call("score", text=UNSEEN)
    np.testing.assert_allclose(
        outputs["nll"], -tf.reduce_sum(scores, axis=1), rtol=1e-5
    )
    np.testing.assert_array_equal(outputs["tokens"], scores.row_lengths())
    details = served.call("token_scores", text=UNSEEN)
    np.testing.assert_allclose(
        details["log_probability"], scores.to_tensor(0.0), atol=1e-4
    )


def test_the_next_tokens_are_the_likeliest_of_the_model(served):
    outputs = served.call("serving_default", text=["The import statem"])
    tokenizer = served.model.preprocessor.tokenizer
    document = [2, *tokenizer(["The import statem"])[0]]
    inputs = np.array([document], "int32")
    logits = served.model({"token_ids": inputs, "padding_mask": inputs > 0})[0, -1]
    expected = np.sort(np.exp(logits))[::-1][:10]
    np.testing.assert_allclose(outputs["probability"][0], expected, rtol=1e-4)
    likeliest = int(np.argmax(logits))
    assert outputs["token"][0, 0] == tokenizer.token_bytes()[likeliest]


def test_greedy_generation_equals_the_models(served):
    served.model.compile(sampler="greedy")
    prompts = ["The import", "for "]
    tokens = 8
    outputs = served.call(
        "generate",
        prompt=prompts,
        temperature=[0.0],
        max_new_tokens=[tokens],
    )
    tokenizer = served.model.preprocessor.tokenizer
    for prompt, text, number in zip(
        prompts, outputs["text"], outputs["new_tokens"], strict=True
    ):
        length = 1 + len(tokenizer([prompt])[0]) + tokens
        expected = served.model.generate(prompt, max_length=length)
        assert prompt + text.decode() == expected
        assert number == tokens


def test_the_metadata_names_the_model(served):
    assert served.metadata["model"]["class"] == "NgramCausalLM"
    assert served.metadata["model"]["config"]["order"] == ORDER
    assert served.metadata["signatures"] == ASKED
