"""A KerasHub model exports as one of the zoo does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo.models.families.keras_hub.adapter import KerasHubCausalLM
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.tokenizers.keras_hub import preset_tokenizer
from langzoo.models.tokenizers.sentence_piece import train_sentencepiece
from langzoo.serving.export.checks import example_of
from langzoo.serving.export.vocabulary import Vocabulary
from langzoo.serving.server.servable import load_servable

CONTEXT, NEW_TOKENS = 16, 6
PAD, UNK, START, END = range(4)
TEXTS = ["two words", "", "naïve €"]


def gpt2(vocabulary_size: int) -> Any:
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size, 2, 2, 8, 16, max_sequence_length=CONTEXT
    )
    return keras_hub.models.GPT2CausalLM(backbone)


def llama(vocabulary_size: int) -> Any:
    backbone = keras_hub.models.LlamaBackbone(vocabulary_size, 2, 4, 8, 16, 2)
    return keras_hub.models.LlamaCausalLM(backbone)


@pytest.fixture(scope="module", params=["gpt2-bytes", "llama-sentencepiece"])
def exported(request: Any, tmp_path_factory: Any) -> Any:
    """A tiny model with its tokenizer, and its export as it is served."""
    if request.param == "gpt2-bytes":
        tokenizer, build = ByteTokenizer(), gpt2
    else:
        tokenizer = train_sentencepiece(
            TEXTS * 20, vocabulary_size=300, model_type="bpe", seed=0
        )
        build = llama
    # More logits than the tokenizer has ids, as a padded vocabulary has.
    model = build(tokenizer.vocabulary_size() + 4)
    generator = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    directory = str(tmp_path_factory.mktemp("export") / "1")
    adapter = KerasHubCausalLM(model, tokenizer, CONTEXT)
    asked = ["score", "evaluate", "generate", "beam_search"]
    unchecked.export(adapter, directory, asked, max_new_tokens=NEW_TOKENS)
    servable = load_servable(1, Path(directory), config=unchecked.AS_IT_IS)
    yield model, tokenizer, servable
    servable.close()


def log_probabilities(model: Any, ids: list[int]) -> np.ndarray:
    token_ids = np.array([ids], "int32")
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    return tf.nn.log_softmax(np.array(model(inputs))[0]).numpy()


def test_scores_are_those_of_the_keras_model(exported: Any) -> None:
    model, tokenizer, servable = exported
    texts = np.array([text.encode() for text in TEXTS], object)
    scores = servable.signature("score").run({"text": texts})
    for text, nll in zip(TEXTS, scores["nll"], strict=True):
        ids = [START, *tokenizer.tokenize(text), END]
        assert len(ids) <= CONTEXT + 1
        each = log_probabilities(model, ids[:-1])[np.arange(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose(nll, -each.sum(), rtol=1e-4)


def test_the_end_is_proposed_though_it_also_starts_and_pads(gpt2_preset: str) -> None:
    tokenizer = preset_tokenizer(gpt2_preset)
    assert tokenizer.end_token_id == tokenizer.start_token_id == tokenizer.pad_token_id
    vocabulary = Vocabulary(tokenizer, tokenizer.vocabulary_size() + 1)
    assert vocabulary.proposable == [True] * tokenizer.vocabulary_size() + [False]


def test_greedy_text_is_that_of_the_keras_model(exported: Any) -> None:
    model, tokenizer, servable = exported
    outputs = servable.signature("generate").run(
        {
            "prompt": np.array(TEXTS[:2], object),
            "max_new_tokens": np.array([NEW_TOKENS], np.int32),
            "temperature": np.zeros(1, np.float32),
        }
    )
    for text, continuation in zip(TEXTS[:2], outputs["text"], strict=True):
        ids = [START, *tokenizer.tokenize(text)]
        ids = ids[-(CONTEXT - NEW_TOKENS) :]
        new: list[int] = []
        for _ in range(NEW_TOKENS):
            new.append(int(proposable_scores(model, tokenizer, ids + new).argmax()))
            if new[-1] == END:
                break
        expected = b"".join(tokenizer.token_bytes()[token] for token in new)
        assert continuation.decode() == expected.decode("utf-8", "replace")


def test_beams_are_those_of_the_keras_model(
    exported: Any, reference_beams: Any
) -> None:
    """Its cache, too, goes with the beams."""
    model, tokenizer, servable = exported
    outputs = servable.signature("beam_search").run(
        {
            "prompt": np.array(TEXTS[:1], object),
            "max_new_tokens": np.array([4], np.int32),
            "num_beams": np.array([3], np.int32),
        }
    )

    def log_probabilities_after(new: list[int]) -> np.ndarray:
        ids = [START, *tokenizer.tokenize(TEXTS[0])][-(CONTEXT - 4) :]
        scores = proposable_scores(model, tokenizer, ids + new)
        return scores - np.log(np.exp(scores).sum())

    expected = reference_beams(
        log_probabilities_after,
        tokenizer.token_bytes(),
        END,
        limit=4,
        num_beams=3,
        length_penalty=1.0,
        stops=[],
    )
    totals, _, texts, *_ = zip(*expected, strict=True)
    assert outputs["text"][0].tolist() == [*texts, b""]
    np.testing.assert_allclose(outputs["log_probability"][0, :3], totals, atol=1e-3)


def proposable_scores(model: Any, tokenizer: Any, ids: list[int]) -> np.ndarray:
    scores = log_probabilities(model, ids)[-1]
    scores[[PAD, UNK, START]] = -np.inf
    return scores[: tokenizer.vocabulary_size()]


def test_a_thousand_documents_get_the_numbers_of_numpy(
    exported, paragraphs, evaluation_by_numpy
):
    model, tokenizer, servable = exported
    expected = evaluation_by_numpy(
        lambda inputs: np.asarray(model(inputs)), tokenizer, CONTEXT, CONTEXT // 2
    )
    examples = np.array([example_of(text) for text in paragraphs], object)
    evaluated = servable.signature("evaluate").run({"examples": examples})
    np.testing.assert_allclose(evaluated["nll"], expected["nll"], rtol=1e-5, atol=1e-4)
    for key, values in expected.items():
        np.testing.assert_allclose(evaluated[key], values, rtol=1e-4, atol=1e-3)
