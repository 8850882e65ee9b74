"""The gate outside of a pipeline, on what a run of one has split."""

from __future__ import annotations

import zipfile

import pytest
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen.settings import SourceSettings
from langzoo.pipelines import gating


def test_a_run_gives_the_documents_that_its_gate_went_by(first):
    config, result, _ = first
    models = gating.Models(str(result.pushed), baseline=str(result.pushed.parent))
    decision = gating.judge(config, models, "run://")
    assert decision.blessed
    assert decision.value == pytest.approx(result.decision.value)
    assert decision.baseline == decision.value
    assert decision.evaluation.documents == result.ingestion.documents["eval"]


def test_a_model_is_not_judged_by_what_it_has_learned(first):
    config, result, _ = first
    models = gating.Models(str(result.pushed))
    decision = gating.judge(config, models, "run://@train")
    assert not decision.blessed
    assert "documents of train were in the split that it learned from" in str(decision)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("run://@valid", "@valid: the splits of the run .* are train, eval"),
        ("run://1999", "no runs in .* begin with '1999'"),
    ],
)
def test_a_split_or_run_that_is_not_there_is_named(first, data, said):
    config, result, _ = first
    with pytest.raises(InputError, match=said):
        gating.judge(config, gating.Models(str(result.pushed)), data)


def test_what_an_archive_leaves_out_is_told(tmp_path, caplog):
    caplog.set_level("INFO", "langzoo")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a.txt", "._a.txt", ".git/b.txt"):
            archive.writestr(name, "Some text.")
    source = SourceSettings(path=str(tmp_path))
    (document,) = gating._read(source, strict=True)
    assert document.text == "Some text."
    told = f"left out 2 hidden ({tmp_path}/x.zip/._a.txt, {tmp_path}/x.zip/.git/b.txt)"
    assert told in caplog.messages
