"""What the Evaluator is given to adapt models while it scores."""

import pytest
from langzoo.components.text_example_gen.settings import CorpusSettings
from langzoo.pipelines import pipeline
from langzoo.pipelines.configuration import loading


@pytest.mark.parametrize("how", ["cache", "dynamic"])
def test_weights_go_to_the_evaluator_where_they_learn(how):
    config = loading.load(settings=[f"gate.adapt={{{how}: {{}}}}"])
    choices = pipeline.Choices(
        corpus=CorpusSettings(), checkpoint_root="x", watch={}, ingestion_record=""
    )
    nodes = {node.id: node for node in pipeline.make_components(config, choices)}
    given = nodes["Evaluator"].inputs.get("model_run")
    assert (given is not None) == (how == "dynamic")
    if given:
        assert given == nodes["Trainer"].outputs["model_run"]
