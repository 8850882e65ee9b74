"""Metrics of tasks for TFMA: of generated text with references, of classification.

They are for an evaluation whose examples have a reference or a label, such as
`corpus.fields` gives them, and whose predictions are a model's outputs:

```python
config_pb2.EvalConfig(
    model_specs=[config_pb2.ModelSpec(label_key="summary", prediction_key="written")],
    slicing_specs=[config_pb2.SlicingSpec()],
    metrics_specs=generation_metrics(),
)
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import sacrebleu
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util, rouge
from tensorflow_model_analysis.proto import config_pb2

_SACREBLEU = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF}
_ROUGE = ("rouge1", "rouge2", "rougeL")


def generation_metrics() -> list[config_pb2.MetricsSpec]:
    """BLEU, chrF and ROUGE of texts that are compared with references.

    | metric | unit | definition and source |
    |---|---|---|
    | `bleu` | 0 to 100 | precision of 1- to 4-grams of words, of the corpus: sacrebleu's with tokenization 13a. Papineni et al. 2002, "BLEU"; Post 2018, "A call for clarity in reporting BLEU scores" |
    | `chrf` | 0 to 100 | F2 of 1- to 6-grams of characters, of the corpus: sacrebleu's chrF2. Popović 2015, "chrF: character n-gram F-score" |
    | `rouge1`, `rouge2`, `rougeL` | 0 to 1 | F1 of 1-grams, 2-grams and the longest common subsequence, mean of the examples: TFMA's. Lin 2004, "ROUGE" |

    Labels are references, predictions are texts. (TFMA's own BLEU takes no bytes, which
    the strings of an example are, and its ROUGE gives what it cannot write.)
    """  # noqa: E501
    return [
        config_pb2.MetricsSpec(
            metrics=[
                *(_metric("SacreBleu", __name__, name=name) for name in _SACREBLEU),
                *(_metric("RougeF1", __name__, name=name) for name in _ROUGE),
            ]
        )
    ]


def classification_metrics(classes: int) -> list[config_pb2.MetricsSpec]:
    """Accuracy, precision, recall, F1 and the confusion matrix, all TFMA's.

    `accuracy` is of all classes; `precision_C`, `recall_C` and `f1_C` are of class C,
    shares from 0 to 1; `confusion_matrix` holds counts. The class predicted is the
    likeliest. Source: Sokolova and Lapalme 2009, "A systematic analysis of performance
    measures for classification tasks".

    Labels are numbers of classes, predictions are probabilities `[classes]`.

    Args:
        classes: How many classes there are.
    """
    of_class = {"precision": "Precision", "recall": "Recall", "f1": "F1Score"}
    here = tfma.metrics.__name__
    return [
        config_pb2.MetricsSpec(
            metrics=[
                # Of the one class that is likeliest, precision is how often it is it.
                _metric("Precision", here, name="accuracy", top_k=1),
                _metric(
                    "MultiClassConfusionMatrixAtThresholds",
                    here,
                    name="confusion_matrix",
                    thresholds=[0.0],
                ),
                *(
                    _metric(kind, here, name=f"{name}_{c}", top_k=1, class_id=c)
                    for name, kind in of_class.items()
                    for c in range(classes)
                ),
            ]
        )
    ]


def _metric(class_name: str, module: str, **config: Any) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(
        class_name=class_name, module=module, config=json.dumps(config)
    )


class SacreBleu(metric_types.Metric):
    """A metric of sacrebleu's, of a corpus.

    Args:
        name: `"bleu"` or `"chrf"`.
    """

    def __init__(self, name: str) -> None:
        computations = metric_util.merge_per_key_computations(_sacrebleu)
        super().__init__(computations, name=name)


def _sacrebleu(
    name: str, model_name: str = "", output_name: str = ""
) -> metric_types.MetricComputations:
    key = metric_types.MetricKey(name, model_name=model_name, output_name=output_name)
    combiner = _SacreBleuCombiner(name, key)
    return [metric_types.MetricComputation([key], None, combiner)]


class _SacreBleuCombiner(beam.CombineFn):
    """Adds up what sacrebleu counts in each pair of texts."""

    def __init__(self, kind: str, key: metric_types.MetricKey) -> None:
        self._metric = _SACREBLEU[kind]()
        self._key = key

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(0, np.int64)

    def add_input(
        self, accumulator: np.ndarray, element: metric_types.StandardMetricInputs
    ) -> np.ndarray:
        model, output = self._key.model_name, self._key.output_name
        reference = _text(element.get_labels(model, output))
        text = _text(element.get_predictions(model, output))
        (counts,) = self._metric._extract_corpus_statistics([text], [[reference]])
        return self.merge_accumulators([accumulator, np.array(counts, np.int64)])

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        counted = [counts for counts in accumulators if counts.size]
        return np.sum(counted, axis=0) if counted else self.create_accumulator()

    def extract_output(
        self, accumulator: np.ndarray
    ) -> dict[metric_types.MetricKey, float]:
        score = self._metric._aggregate_and_compute([accumulator.tolist()])
        return {self._key: float(score.score)}


def _text(value: Any) -> str:
    (text,) = np.ravel(value)
    return text.decode() if isinstance(text, bytes) else str(text)


class RougeF1(metric_types.Metric):
    """TFMA's ROUGE, of which only F1 is kept.

    Args:
        name: `"rouge1"`, `"rouge2"` or `"rougeL"`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(metric_util.merge_per_key_computations(_rouge_f1), name=name)


def _rouge_f1(
    name: str,
    eval_config: config_pb2.EvalConfig,
    model_name: str = "",
    output_name: str = "",
) -> metric_types.MetricComputations:
    key = metric_types.MetricKey(name, model_name=model_name, output_name=output_name)
    combiner = _RougeF1Combiner(
        *(name, key, eval_config, model_name, output_name),
        use_stemmer=False,
        split_summaries=False,
        tokenizer=None,
    )
    return [metric_types.MetricComputation([key], None, combiner)]


class _RougeF1Combiner(rouge.RougeCombiner):
    def extract_output(self, accumulator: Any) -> dict[metric_types.MetricKey, float]:
        scores = super().extract_output(accumulator)
        return {key: float(score.fmeasure) for key, score in scores.items()}


for _class in (SacreBleu, RougeF1):
    metric_types.register_metric(_class)
