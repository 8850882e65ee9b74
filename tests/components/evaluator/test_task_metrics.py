"""Metrics of tasks, run by TFMA, against sacrebleu, rouge-score and counts by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sacrebleu
import tensorflow_model_analysis as tfma
from langzoo.components.evaluator.measures.task_metrics import (
    classification_metrics,
    generation_metrics,
)
from rouge_score import rouge_scorer
from tensorflow_model_analysis.proto import config_pb2


def analyzed(specs, labels, predictions):
    """TFMA's metrics by name."""
    config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(label_key="label", prediction_key="prediction")
        ],
        slicing_specs=[config_pb2.SlicingSpec()],
        metrics_specs=specs,
    )
    frame = pd.DataFrame({"label": labels, "prediction": predictions})
    ((_, by_output),) = tfma.analyze_raw_data(frame, config).slicing_metrics
    found = {}
    for by_class in by_output[""].values():
        found.update(by_class)
    return found


def test_generated_texts_are_scored_as_by_the_packages_themselves(topics):
    references = [text[:80] for text in topics[:8]]
    texts = [text[10:90].replace("the", "a") for text in topics[:8]]
    found = analyzed(generation_metrics(), references, texts)
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        expected = metric.corpus_score(texts, [references]).score
        assert 5 < expected < 95
        assert found[name]["doubleValue"] == pytest.approx(expected)
    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = rouge_scorer.RougeScorer(kinds)
    scores = [scorer.score(r, t) for r, t in zip(references, texts, strict=True)]
    for kind in kinds:
        expected = np.mean([score[kind].fmeasure for score in scores])
        assert found[kind]["doubleValue"] == pytest.approx(expected)


def test_classes_are_counted_as_by_hand():
    labels = [0, 1, 2, 2, 1, 0, 2]
    likeliest = [0, 1, 2, 0, 0, 0, 2]
    # The likeliest of three may have less than a half.
    predictions = [np.where(np.arange(3) == c, 0.4, 0.3) for c in likeliest]
    found = analyzed(classification_metrics(3), labels, predictions)
    by_hand = {
        "accuracy": 5 / 7,
        "precision_0": 2 / 4,
        "recall_0": 2 / 2,
        "f1_0": 2 * 2 / (4 + 2),
        "precision_1": 1 / 1,
        "recall_1": 1 / 2,
        "f1_1": 2 * 1 / (1 + 2),
        "precision_2": 2 / 2,
        "recall_2": 2 / 3,
        "f1_2": 2 * 2 / (2 + 3),
    }
    for name, value in by_hand.items():
        assert found[name]["doubleValue"] == pytest.approx(value)
    (matrix,) = found["confusion_matrix"]["multiClassConfusionMatrixAtThresholds"][
        "matrices"
    ]
    counts = {
        (cell.get("actualClassId", 0), cell.get("predictedClassId", 0)): cell[
            "numWeightedExamples"
        ]
        for cell in matrix["entries"]
    }
    assert counts == {(0, 0): 2, (1, 1): 1, (1, 0): 1, (2, 2): 2, (2, 0): 1}
