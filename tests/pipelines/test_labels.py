"""Fields that travel with the text get into the statistics, and so into the schema."""

import json

import pytest
from langzoo.components.text_example_gen.settings import CorpusSettings, SourceSettings
from langzoo.pipelines import pipeline
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.local import baseline


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ([{}], ["text"]),
        ([{"mood": "a"}, {"label": "b", "mood": "c"}], ["text", "label", "mood"]),
    ],
)
def test_labels_of_all_sources_are_counted(fields, allowed):
    sources = [SourceSettings(path="a.jsonl", fields=names) for names in fields]
    choices = pipeline.Choices(
        corpus=CorpusSettings(sources=sources),
        checkpoint_root="checkpoints",
        watch={},
        ingestion_record="",
        baseline_strategy=baseline.PreviousBlessedModelStrategy,
    )
    components = pipeline.make_components(loading.load(), choices)
    (statistics_gen,) = (node for node in components if node.id == "StatisticsGen")
    options = json.loads(statistics_gen.exec_properties["stats_options_json"])
    assert options["_feature_allowlist"] == allowed
