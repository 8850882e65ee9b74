"""KerasHub's own tests of backbones, tasks and preprocessors pass for every family."""

import numpy as np
import pytest
from langzoo import models

pytest.importorskip("grain", reason="the module of KerasHub's harness imports grain")
test_case = pytest.importorskip("keras_hub.src.tests.test_case")

SMALL = {
    "transformer": {"num_layers": 2, "num_heads": 2, "hidden_dim": 8},
    "rnn": {"num_layers": 2, "hidden_dim": 8},
    "gru": {"num_layers": 2, "hidden_dim": 8},
    "lstm": {"num_layers": 2, "hidden_dim": 8},
    "gated_conv": {"num_layers": 2, "hidden_dim": 8},
    "tcn": {"num_layers": 2, "hidden_dim": 8},
}
VOCABULARY = 260


@pytest.fixture
def harness():
    case = test_case.TestCase()
    case.setUp()
    yield case
    case.tearDown()


@pytest.mark.parametrize("family", SMALL)
def test_backbone(harness, family):
    harness.run_backbone_test(
        cls=models.FAMILIES[family],
        init_kwargs={"vocabulary_size": VOCABULARY, **SMALL[family]},
        input_data={
            "token_ids": np.ones((2, 5), "int32"),
            "padding_mask": np.ones((2, 5), "bool"),
        },
        expected_output_shape=(2, 5, 8),
    )


@pytest.mark.parametrize("family", SMALL)
def test_task(harness, family):
    backbone = models.FAMILIES[family](vocabulary_size=VOCABULARY, **SMALL[family])
    preprocessor = models.CausalLMPreprocessor(
        models.ByteTokenizer(), sequence_length=8
    )
    harness.run_task_test(
        cls=models.CausalLM,
        init_kwargs={"backbone": backbone, "preprocessor": preprocessor},
        train_data=(["From fairest creatures", "we desire increase"],),
        expected_output_shape=(2, 8, VOCABULARY),
    )


def test_ngram_backbone(harness):
    harness.run_backbone_test(
        cls=models.NgramBackbone,
        init_kwargs={"vocabulary_size": VOCABULARY, "order": 3},
        input_data={
            "token_ids": np.ones((2, 5), "int32"),
            "padding_mask": np.ones((2, 5), "bool"),
        },
        expected_output_shape=(2, 5, VOCABULARY),
    )


def test_ngram_task(harness):
    preprocessor = models.CausalLMPreprocessor(
        models.ByteTokenizer(), sequence_length=8
    )
    backbone = models.NgramBackbone(VOCABULARY, order=3)
    harness.run_task_test(
        cls=models.NgramCausalLM,
        init_kwargs={"backbone": backbone, "preprocessor": preprocessor},
        train_data=(["From fairest creatures", "we desire increase"],),
        expected_output_shape=(2, 8, VOCABULARY),
    )
