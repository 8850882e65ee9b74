"""Executor of ExampleValidator."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from typing import NoReturn

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.components.example_validator import executor as tfx_executor
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.io import fileio
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import artifact_utils

from ..errors import InputError
from ..progress import report
from ..types import Artifacts, Properties

TEXT_FEATURE = "text"

_Info = anomalies_pb2.AnomalyInfo
_LOSSES = frozenset(
    {
        _Info.SCHEMA_MISSING_COLUMN,
        _Info.FEATURE_TYPE_NOT_PRESENT,
        _Info.FEATURE_TYPE_LOW_FRACTION_PRESENT,
        _Info.FEATURE_TYPE_LOW_NUMBER_PRESENT,
        _Info.FEATURE_TYPE_NO_VALUES,
    }
)


class Executor(tfx_executor.Executor):
    """Writes anomalies as TFX does, then reads them."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties
    ) -> execution_result_pb2.ExecutorOutput:
        """Writes the `anomalies` artifact.

        Raises:
            InputError: Where a split has no text.
        """
        output = super().Do(input_dict, output_dict, exec_properties)
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        anomalies = artifact_utils.get_single_instance(output_dict["anomalies"])
        found = {
            split: stats_artifact_utils.load_statistics(statistics, split)
            .proto()
            .datasets[0]
            for split in artifact_utils.decode_split_names(anomalies.split_names)
        }
        for split in found:
            require_text(split, found[split])
            uri = artifact_utils.get_split_uri([anomalies], split)
            judged = _read(os.path.join(uri, tfx_executor.DEFAULT_FILE_NAME))
            _judge(split, judged)
            _show_missing(split, found, judged.anomaly_info)
        return output


def require_text(
    split: str, statistics: statistics_pb2.DatasetFeatureStatistics
) -> None:
    """Refuses statistics of no text.

    The schema is inferred from the same data, so what is nowhere is no anomaly.

    Raises:
        InputError: Where there is no example, none has the feature `text`, or all
            texts are empty.
    """
    text = _features(statistics).get(TEXT_FEATURE)
    if not statistics.num_examples:
        _refuse(split, "no examples")
    if text is None or not text.string_stats.common_stats.num_non_missing:
        _refuse(split, f"no feature {TEXT_FEATURE!r} in its examples")
    if not text.string_stats.avg_length:
        _refuse(split, "only empty texts")


def _judge(split: str, anomalies: anomalies_pb2.Anomalies) -> None:
    """Stops at a loss of text, and shows any other anomaly."""
    for feature, anomaly in sorted(anomalies.anomaly_info.items()):
        lost = {reason.type for reason in anomaly.reason} & _LOSSES
        if feature == TEXT_FEATURE and lost:
            _refuse(split, f"lost texts: {anomaly.description}")
        report(f"warning: {split}: {feature}: {anomaly.description}")
    for reason in anomalies.dataset_anomaly_info.reason:
        report(f"warning: {split}: {reason.description}")


def _show_missing(
    split: str,
    found: Mapping[str, statistics_pb2.DatasetFeatureStatistics],
    shown: Container[str],
) -> None:
    """Shows which features, such as a label, some examples of a split lack.

    That is no anomaly: the schema is inferred from the same data.
    """
    features = _features(found[split])
    total = found[split].num_examples
    for name in sorted({name for each in found.values() for name in _features(each)}):
        lacking = total
        if name in features:
            stats = getattr(features[name], features[name].WhichOneof("stats"))
            lacking = stats.common_stats.num_missing
        if lacking and name not in shown:
            share = f"{lacking:,} of {total:,} examples"
            report(f"warning: {split}: {name}: missing in {share}")


def _features(
    statistics: statistics_pb2.DatasetFeatureStatistics,
) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    return {
        feature.path.step[0] if feature.path.step else feature.name: feature
        for feature in statistics.features
    }


def _refuse(split: str, what: str) -> NoReturn:
    raise InputError(
        f"the split {split!r} has {what}: look at the corpus and its cleaning"
    )


def _read(path: str) -> anomalies_pb2.Anomalies:
    with fileio.open(path, "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())
