"""A record, run by the pipeline: what it tells, and its line in the results."""

import pytest
import yaml
from langzoo.benchmarks import records
from langzoo.components.trainer.records import TrainingResult


def test_a_record_is_run_and_told(first, tmp_path, monkeypatch, capsys):
    """With all that the session's first run has in its cache, but for the judgement."""
    config, result, _ = first
    settings = config.model_dump(exclude={"name", "root", "search", "model"})
    # So that it is another judgement than that of others who compare in this folder.
    settings["gate"]["slice_values"] -= 1
    task = {
        "title": "some topics",
        "metric": "bits_per_byte",
        "unit": "bits a byte",
        "budget": {"seconds": 1e6},
        "configuration": settings,
    }
    entry = {"configuration": {"model": config.model.model_dump()}}
    (tmp_path / config.name).mkdir()
    for name, content in (("task", task), ("one", entry)):
        file = tmp_path / config.name / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content))

    def here(module, task, name, seed, texts, root, folder):
        root = config.folder.parent
        return records.measure(task, name, seed, texts, root, folder)

    monkeypatch.setattr(records, "measure_apart", here)
    records.main("one", 1, None, tmp_path)
    (found,) = records.results(tmp_path)
    trained = TrainingResult.read(str(result.training_folder))
    assert found.seconds == trained.seconds
    assert found.parameters == trained.parameters
    assert found.tokens == trained.tokens_seen
    assert found.mean == pytest.approx(result.decision.value, rel=1e-5)
    assert f"{found.mean:.4g}" in capsys.readouterr().out
