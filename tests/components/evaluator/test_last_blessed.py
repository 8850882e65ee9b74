"""What a candidate is compared with where no resolver says it."""

from __future__ import annotations

import shutil

from langzoo.components.evaluator.gate import last_blessed
from langzoo.components.evaluator.gate.baseline import BlessedRecord
from langzoo.components.push_folder.push_folder import PushFolder
from langzoo.components.push_folder.records import Source


def test_the_model_before_the_candidate_is_the_one_to_beat(tmp_path):
    record = str(tmp_path / "root" / last_blessed.FILE)
    first, second, third = (str(tmp_path / name) for name in ("a", "b", "c"))
    for folder in (first, second, third):
        (tmp_path / folder).mkdir()
    assert last_blessed.read(record, first) is None
    last_blessed.write(record, first)
    assert last_blessed.read(record, second) == first
    # Judged again, a model does not have to be better than itself.
    assert last_blessed.read(record, first) is None
    last_blessed.write(record, second)
    last_blessed.write(record, second)
    assert last_blessed.read(record, second) == first
    assert last_blessed.read(record, third) == second
    shutil.rmtree(second)
    assert last_blessed.read(record, third) == first


def test_after_a_rollback_what_is_live_is_the_one_to_beat(tmp_path):
    serving = PushFolder(str(tmp_path / "serving"))
    file = str(tmp_path / "root" / last_blessed.FILE)
    record = BlessedRecord(file=file, push_folder=serving.path)
    record = BlessedRecord.parse(record.dump())
    first, second, third = (str(tmp_path / name) for name in ("a", "b", "c"))

    def bless(model):
        (tmp_path / model / "Format-Serving").mkdir(parents=True)
        record.bless(model, record.comparison(model))
        source = {Source.FILE: Source(model=model).dump()}
        return int(serving.push(f"{model}/Format-Serving", source).rpartition("/")[2])

    one, two = bless(first), bless(second)
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
    bless(third)
    assert record.comparison("d").baseline.model == f"{third}/Format-Serving"
    assert record.comparison(third).baseline is None
