"""The run of TensorFlow Model Analysis: models, on examples, by slice, into sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow_model_analysis as tfma
import tensorflow_text  # noqa: F401  (registers its ops, which exports use)
from tensorflow_model_analysis.proto import config_pb2
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio.record_based_tfxio import AppendRawRecordColumn

from ....serving.export.contract import EVALUATE
from ... import large_buffers
from ...documents import in_batches
from . import metrics
from .adapting import NOT_ADAPTING, Adapt, Adapting
from .slices import LENGTH, OTHERS, OVERALL, Told, length_bucket
from .sums import CorpusSums
from .tables import measures_of
from .writing import Writing, Written

_LONG = 1 << 20  # bytes

Sums = dict[str, dict[str, CorpusSums]]


def eval_config(
    models: Sequence[str], slices: Sequence[str], own: Mapping[str, str], task: str
) -> config_pb2.EvalConfig:
    """What TFMA is asked for.

    Args:
        models: Names of the models, the candidate first.
        slices: Features by which the examples are sliced.
        own: The user's metrics, `module:name` by name.
        task: What the candidate has learned to do.
    """
    configs = [
        *(metrics.config("CorpusMetric", name=name) for name in measures_of(task)),
        *(metrics.config("CorpusMetric", name=n, reference=r) for n, r in own.items()),
        metrics.config("AllSums", name=metrics.SUMS),
    ]
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                name=name, signature_name=EVALUATE.name, model_type=tfma.TF_GENERIC
            )
            for name in models
        ],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=[feature]) for feature in slices),
        ],
        metrics_specs=[config_pb2.MetricsSpec(metrics=configs)],
    )


def analyze(
    pipeline: beam.Pipeline,
    models: Mapping[str, str],
    file_patterns: Sequence[str],
    slices: Sequence[str],
    output: str,
    own: Mapping[str, str],
    told: Told,
    adapting: Adapting,
    task: str,
    writing: Writing | None = None,
) -> None:
    """Adds the run of TFMA to a Beam pipeline.

    Args:
        pipeline: The pipeline.
        models: Folders of SavedModels with the signature `evaluate`, by name.
        file_patterns: TFRecord files of examples with the feature `text`.
        slices: Features by which they are sliced.
        output: Folder that TFMA writes to; `read_sums` reads it.
        own: The user's metrics, `module:name` by name.
        told: Which values of features have a slice each.
        adapting: How the models adapt.
        task: What the candidate has learned to do.
        writing: Who writes, where what they write is measured.
    """
    config = eval_config(list(models), slices, own, task)
    shared = [
        tfma.default_eval_shared_model(path, model_name=name, eval_config=config)
        for name, path in models.items()
    ]
    shared_models = shared[0] if len(shared) == 1 else shared
    *extractors, slice_keys = tfma.default_extractors(
        eval_shared_model=shared_models, eval_config=config
    )
    more = [tfma.extractors.Extractor("AddSlices", beam.Map(_add_slices, told))]
    if adapting != NOT_ADAPTING:
        adapt = beam.ParDo(Adapt(models, adapting))
        more.append(tfma.extractors.Extractor("Adapt", adapt))
    if writing is not None:
        more.append(tfma.extractors.Extractor("Write", Written(writing)))
    (
        pipeline
        | "Patterns" >> beam.Create(list(file_patterns))
        | "ReadExamples" >> beam.io.ReadAllFromTFRecord()
        | "Batch" >> in_batches()
        | "Decode" >> beam.Map(_decoded)
        | "Analyze"
        >> tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=shared_models,
            eval_config=config,
            extractors=[*extractors, *more, slice_keys],
            output_path=output,
        )
    )


def _decoded(records: list[bytes]) -> pa.RecordBatch:
    """Examples as TFMA takes them."""
    batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(records)
    return AppendRawRecordColumn(batch, tfma.ARROW_INPUT_COLUMN, records)


def _add_slices(extracts: dict[str, Any], told: Told) -> dict[str, Any]:
    features = dict(extracts[tfma.FEATURES_KEY])
    text = b"".join(np.ravel(features[metrics.TEXT]))
    features[LENGTH] = np.array([length_bucket(text).encode()], object)
    if len(text) > _LONG:
        large_buffers.trim()  # after the models
    for name, values in told.items():
        if features.get(name) is not None:
            sliced = [
                value if value in values else OTHERS.encode()
                for value in np.ravel(features[name])
            ]
            features[name] = np.array(sliced, object)
    return {**extracts, tfma.FEATURES_KEY: features}


def read_sums(output: str, candidate: str) -> Sums:
    """Reads sums by model and slice from what TFMA wrote.

    Args:
        output: The folder.
        candidate: Name of the first model, which TFMA leaves out where it is alone.
    """
    sums: Sums = {}
    for of_slice in tfma.load_metrics(output):
        name = _slice_name(of_slice.slice_key)
        for item in of_slice.metric_keys_and_values:
            if item.key.name == metrics.SUMS and not item.key.is_diff:
                array = item.value.array_value
                values = np.reshape(array.float64_values, array.shape)
                by_slice = sums.setdefault(item.key.model_name or candidate, {})
                by_slice[name] = CorpusSums(values)
    return sums


def _slice_name(key: Any) -> str:
    parts = [
        f"{single.column}={single.bytes_value.decode(errors='replace')}"
        for single in key.single_slice_keys
    ]
    return ",".join(parts) or OVERALL
