"""KerasHub's own tests of backbones, tasks and preprocessors pass for every family."""

import numpy as np
import pytest
from langzoo import models
from tiny_models import TINY

pytest.importorskip("grain", reason="the module of KerasHub's harness imports grain")
test_case = pytest.importorskip("keras_hub.src.tests.test_case")

VOCABULARY = 260
CLASSIFIERS = {"ngram": models.NgramTextClassifier}
TAGGERS = {"ngram": models.NgramTokenClassifier}
TASKS = {"ngram": models.NgramCausalLM, "mixture": models.MixtureCausalLM}


@pytest.fixture
def harness():
    case = test_case.TestCase()
    case.setUp()
    yield case
    case.tearDown()


@pytest.mark.parametrize("family", [*TINY, "bag"])
def test_backbone(harness, family):
    sizes = {**TINY, "bag": {"hidden_dim": 8}}[family]
    harness.run_backbone_test(
        cls=models.FAMILIES[family],
        init_kwargs={"vocabulary_size": VOCABULARY, **sizes},
        input_data={
            "token_ids": np.ones((2, 5), "int32"),
            "padding_mask": np.ones((2, 5), "bool"),
        },
        expected_output_shape=(2, 5, sizes.get("hidden_dim", VOCABULARY)),
    )


@pytest.mark.parametrize("family", TINY)
def test_task(harness, family):
    backbone = models.FAMILIES[family](vocabulary_size=VOCABULARY, **TINY[family])
    preprocessor = models.CausalLMPreprocessor(
        models.ByteTokenizer(), sequence_length=8
    )
    harness.run_task_test(
        cls=TASKS.get(family, models.CausalLM),
        init_kwargs={"backbone": backbone, "preprocessor": preprocessor},
        train_data=(["From fairest creatures", "we desire increase"],),
        expected_output_shape=(2, 8, VOCABULARY),
    )


@pytest.mark.parametrize("family", ["gated_conv", "ngram"])
def test_classifier(harness, family):
    backbone = models.FAMILIES[family](vocabulary_size=VOCABULARY, **TINY[family])
    preprocessor = models.TextClassifierPreprocessor(
        models.ByteTokenizer(), sequence_length=8
    )
    harness.run_task_test(
        cls=CLASSIFIERS.get(family, models.TextClassifier),
        init_kwargs={
            "backbone": backbone,
            "preprocessor": preprocessor,
            "labels": ["yes", "no"],
        },
        train_data=(["From fairest creatures", "we desire increase"], [0, 1]),
        expected_output_shape=(2, 2),
    )


@pytest.mark.parametrize("family", ["gated_conv", "ngram"])
def test_tagger(harness, family):
    backbone = models.FAMILIES[family](vocabulary_size=VOCABULARY, **TINY[family])
    preprocessor = models.TokenClassifierPreprocessor(
        models.ByteTokenizer(), sequence_length=8
    )
    harness.run_task_test(
        cls=TAGGERS.get(family, models.TokenClassifier),
        init_kwargs={
            "backbone": backbone,
            "preprocessor": preprocessor,
            "labels": ["yes", "no"],
        },
        train_data=(["to be or", "be it so"], [[0, 1, 0], [1, 0, -1]]),
        expected_output_shape=(2, 8, 2),
    )


READING = {
    "encoder_decoder": {"num_layers": 1, "num_heads": 2},
    "rnn_attention": {},
    "conv_s2s": {"num_layers": 1},
}
"""Families that read a source, and what makes them small."""


@pytest.mark.parametrize("family", READING)
def test_backbone_that_reads_a_source(harness, family):
    inputs = {"token_ids": np.ones((2, 5), "int32")}
    inputs["padding_mask"] = inputs["token_ids"] > 0
    wide = 16 if family == "conv_s2s" else 8
    harness.run_backbone_test(
        cls=models.FAMILIES[family],
        init_kwargs={"vocabulary_size": VOCABULARY, "hidden_dim": 8, **READING[family]},
        input_data={
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in inputs.items()
        },
        expected_output_shape={
            "encoder_sequence_output": (2, 5, wide),
            "decoder_sequence_output": (2, 5, 8),
        },
    )


def test_task_that_reads_a_source(harness):
    family = "conv_s2s"
    backbone = models.FAMILIES[family](VOCABULARY, hidden_dim=8, **READING[family])
    preprocessor = models.SeqToSeqLMPreprocessor(models.ByteTokenizer(), 9, 8)
    harness.run_task_test(
        cls=models.SeqToSeqLM,
        init_kwargs={"backbone": backbone, "preprocessor": preprocessor},
        train_data=(
            {
                "encoder_text": ["From fairest creatures", "To be"],
                "decoder_text": ["we desire increase", "or not"],
            },
        ),
        expected_output_shape=(2, 8, VOCABULARY),
    )
