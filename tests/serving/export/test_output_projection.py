"""Large vocabularies: the logits of a step, and the likeliest of many tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import unchecked
from langzoo.models import CausalLMPreprocessor, character_tokenizer
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.zoo import build_causal_lm
from langzoo.serving.export.contract import GENERATE
from langzoo.serving.export.output_projection import OutputProjection
from langzoo.serving.export.saved_model import export_causal_lm
from langzoo.serving.export.signatures import causal_lm
from langzoo.serving.export.vocabulary import Vocabulary

CONTEXT = 12
FIRST = 0x4E00
# With bytes and specials no multiple of the blocks' size.
CHARACTERS = 2100


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return character_tokenizer([chr(FIRST + i) for i in range(CHARACTERS)])


def build(tokenizer: Any, family: str = "lstm", **settings: Any) -> Any:
    settings = {"num_layers": 1, "hidden_dim": 16, **settings}
    model = build_causal_lm(family, tokenizer, CONTEXT, **settings)
    generator = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(scale=0.5, size=variable.shape))
    return model


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(
    ("tie_embeddings", "logit_softcap"), [(True, None), (False, 2.0)]
)
def test_logits_are_the_models_own(tokenizer, dtype, tie_embeddings, logit_softcap):
    model = build(
        tokenizer,
        dtype=dtype,
        tie_embeddings=tie_embeddings,
        logit_softcap=logit_softcap,
    )
    assert OutputProjection.is_worth_it(model)
    states = np.random.default_rng(1).normal(size=(3, 1, 16))
    states = tf.cast(states, model.backbone.compute_dtype)
    logits = OutputProjection(model)(states)
    assert logits.dtype == tf.float32
    expected = model.backbone.logits(states)
    assert (np.abs(expected).max() < 2) == bool(logit_softcap)
    tolerance = 1e-5 if dtype == "float32" else 0.1
    np.testing.assert_allclose(logits, tf.cast(expected, "float32"), atol=tolerance)


def test_is_for_large_products_only(tokenizer):
    assert not OutputProjection.is_worth_it(build(ByteTokenizer()))
    ngram = build_causal_lm("ngram", tokenizer, CONTEXT)
    assert not OutputProjection.is_worth_it(ngram)


@pytest.mark.parametrize("family", ["transformer", "lstm"])
def test_an_export_of_many_tokens_writes_what_the_model_finds_likeliest(
    tokenizer, family, tmp_path
):
    settings = {}
    if family == "transformer":
        settings = {"num_heads": 2, "logit_softcap": 20.0, "ngram_embeddings": 2}
    model = build(tokenizer, family, **settings)
    assert isinstance(model.preprocessor, CausalLMPreprocessor)
    if family == "lstm":
        with unchecked.some(["generate"]):
            export_causal_lm(model, tmp_path / "1", max_new_tokens=6)
        generate = tf.saved_model.load(tmp_path / "1").signatures["generate"]
    else:  # The same graph, before it is saved.
        generate = causal_lm.build(model, max_new_tokens=6).functions["generate"]
    prompts = [chr(FIRST + 7), chr(FIRST + 2000) + chr(FIRST + 3)]
    given = tf.constant(prompts)
    answer = generate(prompt=given, max_new_tokens=tf.constant([6, 6]), **GREEDY)

    never = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.start_token_id]
    for row, prompt in enumerate(prompts):
        ids = [tokenizer.start_token_id, *tokenizer(prompt)]
        for step in range(int(answer["new_tokens"][row])):
            given = np.array([ids])
            logits = model({"token_ids": given, "padding_mask": given >= 0})[0, -1]
            logits = np.array(logits, "float64")
            logits[never] = -np.inf
            ids.append(int(np.argmax(logits)))
            expected = logits[ids[-1]] - np.log(np.sum(np.exp(logits)))
            found = answer["log_probability"][row, step]
            np.testing.assert_allclose(found, expected, atol=1e-4)
        new = ids[1 + len(prompt) :]
        text = "".join(map(str, tokenizer.detokenize([new])))
        assert answer["text"][row].numpy().decode() == text


GREEDY = {
    name: tf.constant([setting.default] * 2)
    for name, setting in GENERATE.settings.items()
    if name not in ("max_new_tokens", "temperature")
} | {"temperature": tf.zeros(2)}


@pytest.mark.parametrize("count", [1, 5, 16, 17, 300])
def test_likeliest_tokens_are_in_order_and_of_equals_the_first(tokenizer, count):
    vocabulary = Vocabulary(tokenizer, tokenizer.vocabulary_size())
    # Of few values, so that there are many equals.
    logits = np.random.default_rng(count).integers(
        0, 7, (4, tokenizer.vocabulary_size())
    )
    top, _ = vocabulary.likeliest(tf.constant(logits, tf.float32), count)
    logits[:, ~np.array(vocabulary.proposable)] = -1
    order = np.argsort(-logits, axis=-1, kind="stable")
    np.testing.assert_array_equal(top.ids, order[:, :count])


def test_likeliest_tokens_exist_even_where_logits_are_not_numbers(tokenizer):
    size = tokenizer.vocabulary_size()
    logits = tf.fill([2, size], np.nan)
    top, _ = Vocabulary(tokenizer, size).likeliest(logits, 5)
    assert np.all((top.ids >= 0) & (top.ids < size))
