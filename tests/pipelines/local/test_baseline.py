"""The model to beat, as MLMD and the push folder of a run tell it."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from langzoo.components.evaluator.gate.baseline import resolved
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.local import runner
from langzoo.pipelines.local.baseline import PreviousBlessedModelStrategy
from langzoo.pipelines.report.reading import DATABASE
from rich.console import Console
from tfx.orchestration import metadata
from tfx.types import standard_artifacts


@pytest.fixture(scope="module")
def store(first):
    """The metadata of the first run's pipeline."""
    database = str(first[0].folder / DATABASE)
    config = metadata.sqlite_metadata_connection_config(database)
    with metadata.Metadata(config) as connection:
        yield connection.store


@pytest.fixture
def pushed(first, tmp_path):
    """A push folder with the first run's version."""
    shutil.copytree(first[1].pushed, tmp_path / "serving" / first[1].pushed.name)
    return tmp_path / "serving"


def artifacts(store, kind):
    found = []
    for one in store.get_artifacts_by_type(kind.TYPE_NAME):
        found.append(kind())
        found[-1].set_mlmd_artifact(one)
    return found


def resolve(store, push_folder, accept=False):
    """What the next candidate is compared with, and whether it is accepted."""
    models = artifacts(store, standard_artifacts.Model)
    candidate = standard_artifacts.Model()
    candidate.id, candidate.type_id = -1, models[0].type_id
    candidate.uri = "/nowhere/model/99"
    strategy = PreviousBlessedModelStrategy(str(push_folder), accept=accept)
    found = strategy.resolve_artifacts(
        store,
        {
            "model": models,
            "accepted": models,
            "model_blessing": artifacts(store, standard_artifacts.ModelBlessing),
            "candidate": [candidate],
        },
    )
    assert not (found["model"] and found["accepted"])
    return resolved(found["model"] or found["accepted"]), bool(found["accepted"])


@pytest.fixture
def last_blessed(store, tmp_path_factory):
    """Folder of the model that was blessed last; what a test moves comes back."""
    none_pushed = tmp_path_factory.mktemp("none")
    comparison, _ = resolve(store, none_pushed)
    assert comparison.baseline.version is None
    assert not comparison.trouble
    return Path(comparison.baseline.model)


@pytest.fixture
def gone(last_blessed, tmp_path_factory):
    """The same, while it is gone."""
    hidden = tmp_path_factory.mktemp("hidden") / "model"
    last_blessed.rename(hidden)
    yield last_blessed
    hidden.rename(last_blessed)


def test_a_candidate_is_accepted_in_the_place_of_the_model_that_was_blessed_last(
    store, last_blessed, pushed
):
    for accept in (False, True):
        comparison, accepted = resolve(store, pushed, accept=accept)
        assert Path(comparison.baseline.model) == last_blessed
        assert accepted == accept


def test_where_it_is_gone_the_version_that_was_pushed_last_stands_in(
    store, gone, pushed
):
    (version,) = pushed.iterdir()
    comparison, _ = resolve(store, pushed)
    assert comparison.baseline.model == str(version)
    assert comparison.baseline.version == int(version.name)
    assert not comparison.trouble


def test_where_that_is_gone_too_nothing_is_compared(store, gone, tmp_path):
    comparison, _ = resolve(store, tmp_path)
    assert comparison.trouble == (
        f"the model that was blessed last is gone from {gone}"
    )


def test_where_the_metadata_are_gone_the_version_stands_in(first, pushed, tmp_path):
    database = str(tmp_path / "new.sqlite")
    config = metadata.sqlite_metadata_connection_config(database)
    with metadata.Metadata(config) as connection:
        new, kind = connection.store, standard_artifacts.Model()
        kind_id = new.put_artifact_type(kind.artifact_type)
        candidate = standard_artifacts.Model()
        candidate.id, candidate.type_id = 7, kind_id
        candidate.uri = "/nowhere/model/99"
        told = {"model": [], "accepted": [], "model_blessing": []}
        found = PreviousBlessedModelStrategy(str(pushed)).resolve_artifacts(
            new, {**told, "candidate": [candidate]}
        )
        assert found["model"][0].uri == str(pushed / first[1].pushed.name)
        # The first run's own model does not stand in for itself.
        candidate.uri = str(artifact_of(first))
        found = PreviousBlessedModelStrategy(str(pushed)).resolve_artifacts(
            new, {**told, "candidate": [candidate]}
        )
        assert found["model"] == []


def test_a_run_says_at_its_start_what_the_gate_will_not_compare_with(first, settings):
    config, result, shown = first
    assert "warning: version" not in shown

    def warned(*changes):
        loaded = loading.load(settings=[*settings, *changes])
        output = io.StringIO()
        console = Console(file=output, width=400)
        runner._warn_of_mixing(loaded, loaded.corpus, console)
        return output.getvalue()

    said = warned("corpus.documents=line")
    assert f"version {result.pushed.name} in {config.push_folder}" in said
    assert "corpus.documents line instead of paragraph" in said
    assert "--set name=NAME" in said
    assert warned("cleaning.min_bytes=9", "corpus.eval_fraction=0.05") == ""
    assert warned("corpus.documents=line", "name=another") == ""


def artifact_of(first):
    """The artifact that the first run has pushed."""
    folder = first[0].folder / "artifacts" / "Trainer" / "model"
    return next(
        model
        for model in folder.iterdir()
        if str(model) in (first[1].pushed / "assets.extra/source.json").read_text()
    )
