"""Fields that travel with the text get into the statistics, and so into the schema."""

import json

import pytest
from langzoo.components.text_example_gen.sources import Source
from langzoo.pipelines import pipeline
from langzoo.pipelines.configuration import config as pipeline_config
from langzoo.pipelines.local import baseline


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ([{}], ["text"]),
        ([{"mood": "a"}, {"label": "b", "mood": "c"}], ["text", "label", "mood"]),
    ],
)
def test_labels_of_all_sources_are_counted(fields, allowed):
    components = pipeline.make_components(
        pipeline_config.load(),
        corpus=[Source("a.jsonl", fields=names) for names in fields],
        fingerprint="",
        checkpoint_root="checkpoints",
        watch={},
        ingestion_record="",
        baseline_strategy=baseline.PreviousBlessedModelStrategy,
    )
    (statistics_gen,) = (node for node in components if node.id == "StatisticsGen")
    options = json.loads(statistics_gen.exec_properties["stats_options_json"])
    assert options["_feature_allowlist"] == allowed
