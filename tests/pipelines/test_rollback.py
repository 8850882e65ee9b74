"""The gate and the push folder after a rollback, in runs of a pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from langzoo.pipelines.versions import roll_back, versions

BETTER = "trainer.steps=400"


@pytest.fixture(scope="module")
def apart(first, tmp_path_factory):
    """Leaves the pipeline as it was: what is blessed here, no other test shall meet."""
    config, _, _ = first
    before = tmp_path_factory.mktemp("before") / "pipeline"
    shutil.copytree(config.folder, before, symlinks=True)
    yield
    shutil.rmtree(config.folder)
    shutil.move(before, config.folder)


@pytest.fixture(scope="module")
def run(apart, run_pipeline):
    """Runs the pipeline; gives configuration, result and report."""

    def run_with(*changes, **options):
        config, result, _ = run_pipeline(*changes, **options)
        return config, result, result.report.read_text()

    return run_with


def version(result):
    return int(result.pushed.name)


def listed(config):
    return {row.version: row for row in versions(config)}


@pytest.fixture(scope="module")
def back(run):
    """Two versions, each blessed, and the way back to the first of them."""
    # Other tests may have pushed the first again, and more in between.
    config, before, _ = run()
    _, second, _ = run(BETTER)
    assert second.decision.baseline == before.decision.value
    live = roll_back(config, version(before))
    assert live.version == version(before)
    return config, before, second, live


def test_what_was_taken_back_and_what_is_live_is_listed(back):
    config, _, second, live = back
    assert listed(config)[live.number].reasons[-1] == (
        "the next candidate is compared with it"
    )
    (said,) = listed(config)[version(second)].reasons
    assert said.startswith("taken back")


def test_the_next_candidate_is_compared_with_the_model_that_is_live(back, run):
    config, first, _, live = back
    _, third, page = run("trainer.steps=0")
    assert not third.decision.blessed
    assert third.decision.baseline == pytest.approx(first.decision.value)
    assert third.decision.verdict.baseline.version == live.number
    said = f"version {live.number}, live by a rollback to {version(first)}"
    assert said in str(third.decision)
    assert said in page
    assert f"compared with {said}" in versions(config)[-2].reasons


def test_what_was_taken_back_is_not_pushed_again_by_the_next_run(back, run):
    config, first, _, live = back
    _, again, _ = run(BETTER)
    assert "Trainer" not in again.executed
    assert not again.decision.blessed
    assert "a rollback took it back as version" in str(again.decision)
    assert again.destination == ""
    assert max(listed(config)) == live.number
    # While what is live is not compared with itself, nor judged once more.
    _, same, _ = run()
    assert same.executed == []
    assert same.pushed == first.pushed


def test_a_version_that_is_gone_is_restored_from_its_run(back):
    config, _, second, _ = back
    number = version(second)
    shutil.rmtree(second.pushed)
    assert listed(config)[number].state == "gone"
    live = roll_back(config, number)
    graph = Path(live.folder, "saved_model.pb").read_bytes()
    assert live.version == number
    assert Path(live.model, "Format-Serving", "saved_model.pb").read_bytes() == graph
    assert Path(live.folder, "assets.extra", "README.md").exists()


def test_a_model_is_accepted_once_in_the_place_of_a_better_one(run):
    """The untrained one of before; what is live by a rollback is another."""
    worse = ["trainer.steps=0", "gate.max_bits_per_byte=99"]
    _, accepted, page = run(*worse, accept_baseline=True)
    assert accepted.decision.verdict.accepted
    assert accepted.decision.value > accepted.decision.baseline
    assert accepted.pushed
    assert "accepted on purpose" in page
    config, again, _ = run(*worse)
    assert again.executed == []
    assert again.decision == accepted.decision
    said = listed(config)[version(accepted)].reasons
    assert "accepted in the place of the last blessed model" in said
