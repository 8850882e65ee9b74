"""Versions: what is live, refused and why, and the way back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid

import pytest
from langzoo import cli
from langzoo.components.errors import InputError
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.versions import roll_back, versions
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def options(run_pipeline, settings, tmp_path_factory):
    """Settings of a pipeline with a pushed version, a copy of it, and a refused run."""
    # Where the first run's version has been deleted since, this one pushes it again.
    _, result, _ = run_pipeline()
    run_pipeline("gate.max_bits_per_byte=0.4321")
    folder = tmp_path_factory.mktemp("versions") / "serving"
    number = int(result.pushed.name)
    for version in (number, number + 1):
        shutil.copytree(result.pushed, folder / str(version))
    return [*settings, f"serving.push_folder={folder}"], number


def words(name, options, *arguments):
    return [name, *arguments, *(f"--set={option}" for option in options)]


def command(name, options):
    return subprocess.run(
        [sys.executable, "-m", "langzoo", *words(name, options)],
        capture_output=True,
        text=True,
    )


def called(name, options, *arguments):
    """The same in this process, which has imported what it needs."""
    return CliRunner().invoke(cli.app, words(name, options, *arguments))


def test_versions_tell_what_is_live_and_refused_before_and_after_a_rollback(
    options, first
):
    settings, number = options
    _, result, _ = first

    def listed():
        lines = called("versions", settings, "--json").stdout.splitlines()
        return list(map(json.loads, lines))

    rows = {row["version"]: row for row in listed() if row["version"]}
    assert rows[number]["state"] == "earlier"
    assert rows[number]["bits_per_byte"] == result.decision.value
    # Pushed from elsewhere, as from Kubeflow.
    assert (rows[number + 1]["state"], rows[number + 1]["run"]) == ("live", "")
    (refused,) = (
        row for row in listed() if any("0.4321" in reason for reason in row["reasons"])
    )
    assert (refused["version"], refused["state"]) == (0, "refused")

    ended = command("rollback", settings)
    assert ended.returncode == 0, ended.stderr
    last = listed()[-1]
    assert last["state"] == "live"
    assert last["reasons"] == [
        f"went back to {number}",
        "the next candidate is compared with it",
    ]
    assert f"version {last['version']} is {number} again" in ended.stdout
    again = called("rollback", settings)
    assert again.exit_code == 1
    assert f"before {number}" in again.stderr
    table = called("versions", settings).stdout
    assert "live" in table
    assert "refused" in table


def test_versions_without_runs_are_those_of_the_folder(options, tmp_path):
    settings, number = options
    config = loading.load(settings=[*settings, f"root={tmp_path}"])
    found = versions(config)
    assert [version.version for version in found][:2] == [number, number + 1]
    assert all(not version.run for version in found)


def test_a_push_folder_in_an_object_store_has_versions_too(first, run_pipeline):
    folder = f"ram://{uuid.uuid4()}/serving"
    config, result, shown = run_pipeline(f"serving.push_folder={folder}")
    assert result.executed == ["Pusher"]
    assert result.destination.startswith(f"{folder}/")
    assert f"not atomic: {folder} renames no folder" in shown
    _, again, _ = run_pipeline(f"serving.push_folder={folder}")
    assert again.executed == []
    number = int(result.destination.rpartition("/")[2])
    (row,) = (row for row in versions(config) if row.version == number)
    assert (row.state, row.value) == ("live", result.decision.value)
    with pytest.raises(InputError, match=f"no version in {folder} before {number}"):
        roll_back(config)


def test_a_push_folder_of_an_unknown_scheme_is_one_line(
    run_pipeline, settings, tmp_path
):
    changes = [f"root={tmp_path}", "serving.push_folder=foo://models"]
    said = "foo://models: no filesystem is known by the scheme foo://"
    with pytest.raises(InputError, match=said):
        run_pipeline(*changes)
    assert not list(tmp_path.iterdir())
    ended = command("versions", [*settings, *changes])
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert said in ended.stderr
