"""What a candidate is compared with where no resolver says it."""

from __future__ import annotations

import shutil

import pytest
from langzoo.components.evaluator.gate import last_blessed
from langzoo.components.evaluator.gate.baseline import (
    BlessedRecord,
    Comparison,
    resolved,
)
from langzoo.components.push_folder.push_folder import PushFolder
from langzoo.components.push_folder.records import Source
from tfx.types import standard_artifacts

SAVED = "Format-Serving/saved_model.pb"


def made(folder):
    """A model's artifact with something in the place of its graph."""
    (folder / SAVED).parent.mkdir(parents=True)
    (folder / SAVED).touch()
    return str(folder)


def bless(record, model):
    last_blessed.write(record, last_blessed.Blessed(model_uri=model))


def test_the_model_before_the_candidate_is_the_one_to_beat(tmp_path):
    record = str(tmp_path / "root" / last_blessed.FILE)
    assert last_blessed.read(record, "a") is None
    bless(record, "a")
    assert last_blessed.read(record, "b").model_uri == "a"
    # Judged again, a model does not have to be better than itself.
    assert last_blessed.read(record, "a") is None
    bless(record, "b")
    bless(record, "b")
    assert last_blessed.read(record, "b").model_uri == "a"
    assert last_blessed.read(record, "c").model_uri == "b"


@pytest.fixture
def pushed(tmp_path):
    """A record, and two models that were blessed and pushed."""
    serving = PushFolder(str(tmp_path / "serving"))
    file = tmp_path / "root" / last_blessed.FILE
    record = BlessedRecord(file=str(file), push_folder=serving.path)

    def push(name):
        model = made(tmp_path / name)
        record.bless(model, record.comparison(model))
        source = {Source.FILE: Source(model=model).dump()}
        return int(serving.push(f"{model}/Format-Serving", source).rpartition("/")[2])

    return record, push, [push("a"), push("b")], tmp_path


def test_where_the_last_blessed_model_is_gone_the_version_that_was_pushed_stands_in(
    pushed,
):
    record, _, (one, two), folder = pushed
    assert record.comparison("c").baseline.version is None
    shutil.rmtree(folder / "b")
    comparison = record.comparison("c")
    assert comparison.baseline.model == f"{record.push_folder}/{two}"
    assert str(comparison.baseline) == f"version {two}, pushed last"
    assert not comparison.trouble
    # Judged again, it does not stand in for itself.
    shutil.rmtree(folder / "a")
    assert record.comparison(str(folder / "b")).baseline.version == one
    shutil.rmtree(record.push_folder)
    comparison = record.comparison("c")
    assert comparison.trouble.startswith("the model that was blessed last is gone from")
    with comparison.model() as model:
        assert model is None


@pytest.mark.parametrize("content", [None, "", "[", '[{"model": "b"}]'])
def test_where_the_record_cannot_be_read_the_version_stands_in_too(pushed, content):
    record, push, (_, two), folder = pushed
    file = folder / "root" / last_blessed.FILE
    file.unlink() if content is None else file.write_text(content)
    assert record.comparison("c").baseline.version == two
    push("c")
    assert record.comparison("d").baseline.model == str(folder / "c/Format-Serving")
    file.write_text("[")
    shutil.rmtree(record.push_folder)
    assert record.comparison("d").trouble == (
        f"{file}, which tells the model that was blessed last, cannot be read"
    )


def test_where_nothing_was_ever_blessed_there_is_nothing_to_beat(tmp_path):
    serving = PushFolder(str(tmp_path / "serving"))
    record = BlessedRecord(file=str(tmp_path / "none"), push_folder=serving.path)
    serving.push(f"{made(tmp_path / 'foreign')}/Format-Serving")
    assert record.comparison("a") == Comparison()


def test_after_a_rollback_what_is_live_is_the_one_to_beat(pushed):
    record, push, (one, two), folder = pushed
    record = BlessedRecord.parse(record.dump())
    serving = PushFolder(record.push_folder)
    first, second, third = (str(folder / name) for name in ("a", "b", "c"))
    assert record.comparison(third).baseline.model == f"{second}/Format-Serving"
    live = serving.roll_back()
    # The version itself: the run that made it may have left nothing else.
    shutil.rmtree(first)
    comparison = record.comparison(third)
    assert comparison.baseline.model == serving.folder(live.number)
    assert (comparison.baseline.version, comparison.baseline.again) == (
        *(live.number, one),
    )
    assert comparison.taken_back == {second: two}
    # What is live is not compared with itself, nor with what was taken back.
    assert record.comparison(first).baseline is None
    push("c")
    assert record.comparison("d").baseline.model == f"{third}/Format-Serving"
    # A rollback's version is older, and is what was compared with.
    assert record.comparison(third).baseline.version == live.number


def test_what_a_resolver_has_found_is_a_model_or_a_version(pushed):
    record, _, (one, two), folder = pushed

    def found(uri):
        artifact = standard_artifacts.Model()
        artifact.uri = str(uri)
        return resolved([artifact])

    assert resolved([]) == Comparison()
    model = found(f"{folder}/b/")
    assert model.baseline.model == f"{folder}/b/Format-Serving"
    assert (model.baseline.version, model.trouble) == (None, "")
    version = found(f"{record.push_folder}/{two}")
    assert version.baseline.model == f"{record.push_folder}/{two}"
    assert version.baseline.version == two
    # An artifact's folder is a number, too.
    made(folder / "artifacts" / f"{one}")
    assert found(folder / "artifacts" / f"{one}").baseline.version is None
    rollback = PushFolder(record.push_folder).roll_back()
    back = found(f"{record.push_folder}/{rollback.number}")
    assert (back.baseline.version, back.baseline.again) == (rollback.number, one)
    assert back.taken_back == {str(folder / "b"): two}


def test_a_candidate_that_was_accepted_once_is_so_again(pushed):
    record, _, _, folder = pushed
    accepting = BlessedRecord(**{**record.model_dump(), "accept": True})
    comparison = accepting.comparison("c")
    assert comparison.accepted
    assert not record.comparison("c").accepted
    accepting.bless("c", comparison)
    assert record.comparison("c").accepted
    for other in ("b", "d"):
        assert not record.comparison(other).accepted
    bless(record.file, "d")
    assert not record.comparison("d").accepted
    (folder / "root" / last_blessed.FILE).write_text("[")
    assert not record.comparison("c").accepted


def test_the_record_keeps_a_model_and_that_before_it(pushed, tmp_path):
    record, _, _, folder = pushed
    bless(record.file, "c")
    assert [one.model_uri for one in last_blessed.entries(record.file)] == [
        *(str(folder / "b"), "c")
    ]
    last_blessed.write(record.file, last_blessed.Blessed(model_uri="d"), "c")
    kept = [one.model_uri for one in last_blessed.entries(record.file)]
    assert kept == [str(folder / "b"), "d"]
