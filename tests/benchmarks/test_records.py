"""Records: what their files say, and what is told of results."""

import json

import pytest
import yaml
from langzoo.benchmarks import records
from langzoo.benchmarks.records import Budget, Result
from langzoo.models import ByteTokenizer, build
from langzoo.pipelines.configuration.loading import ConfigError

RECORDS = [*records.entries()]


@pytest.mark.parametrize(
    ("task", "name"), RECORDS, ids=["/".join(each) for each in RECORDS]
)
def test_every_record_is_a_configuration_whose_model_can_be_built(task, name, tmp_path):
    entry, told = records.entry_of(task, name), records.task_of(task)
    if entry.peer:
        assert (records.FOLDER.parent / f"{entry.peer}.py").exists()
        return
    # What goes on from weights has the model of the run before.
    of_which = records.pretraining if entry.pretraining else records.configured
    config = of_which(task, name, 2, tmp_path, tmp_path)
    assert config.trainer.seed == 2
    model = config.model.model_dump(exclude_none=True)
    own = {"labels": ["0", "1"]} if config.task == "text_classifier" else None
    built = build(tokenizer=ByteTokenizer(), task=config.task, of_task=own, **model)
    assert built.context_length == config.model.context_length
    settings = config.trainer.of_family(config.model.family)
    if told.budget.tokens and config.model.family != "ngram":
        a_step = settings.batch_size * config.model.context_length
        assert 0 <= told.budget.tokens - settings.steps * a_step < a_step
    # What is written is what `langzoo run` takes.
    [path] = tmp_path.glob(f"{name}*.yaml")
    written = yaml.safe_load(path.read_text())
    assert written["model"]["family"] == config.model.family


def result(value, name="one", **changes):
    values = value if isinstance(value, list) else [value]
    given = {"task": "words", "name": name, "date": "2026-01-01", "commit": "abc"}
    spent = {"parameters": 10, "tokens": 1000, "seconds": 5.0}
    return Result(**{**given, **spent, "values": values, **changes})


@pytest.fixture
def folder(tmp_path):
    """A task with two records, and texts for it."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "task.yaml").write_text(
        """
title: some words
metric: eval_loss
unit: nats a byte
budget: {tokens: 4096, seconds: 60}
cut: {file: words.txt, share: 0.75}
configuration:
  corpus: {sources: [{path: train.txt, split: train}, {path: eval.txt, split: eval}]}
  tokenizer: {type: bytes}
  model: {context_length: 16}
"""
    )
    for name in ("one", "two"):
        entry = "configuration: {model: {family: ngram}}"
        (tmp_path / "words" / f"{name}.yaml").write_text(entry)
    (tmp_path / "words.txt").write_text("some words again " * 40)
    return tmp_path


def test_a_text_is_cut_where_the_task_says(folder, tmp_path):
    task = records.task_of("words", folder)
    assert "needs --data FOLDER with words.txt" in records.lacking(task, None)
    assert records.lacking(task, folder / "words").endswith("lacks words.txt")
    assert not records.lacking(task, folder)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert records.laid_out(task, folder, scratch) == scratch
    parts = [(scratch / name).read_text() for name in ("train.txt", "eval.txt")]
    assert [len(part) for part in parts] == [510, 170]
    config = records.configured("words", "one", 0, scratch, scratch, folder)
    paths = [source.path for source in config.corpus.all_sources]
    assert paths == [str(scratch / "train.txt"), str(scratch / "eval.txt")]


def test_lines_with_labels_are_laid_out_as_records(folder, tmp_path):
    (folder / "lines.txt").write_text("1 good .\n0 bad é\n", encoding="utf-8")
    task = records.task_of("words", folder)
    task = task.model_copy(update={"cut": None, "labelled": ["lines.txt"]})
    assert "needs --data FOLDER with lines.txt" in records.lacking(task, None)
    assert not records.lacking(task, folder)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert records.laid_out(task, folder, scratch) == scratch
    lines = (scratch / "lines.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"label": "1", "text": "good ."},
        {"label": "0", "text": "bad é"},
    ]


def test_weights_are_those_of_the_run_before(folder, tmp_path):
    entry = """
pretraining: {model: {family: lstm, hidden_dim: 8}, trainer: {steps: 3}}
configuration: {tokenizer: {type: preset, cut: null}}
"""
    (folder / "words" / "one.yaml").write_text(entry)
    before = records.pretraining("words", "one", 1, tmp_path, tmp_path, folder)
    assert (before.model.hidden_dim, before.trainer.steps) == (8, 3)
    with pytest.raises(
        ConfigError, match=r"initial_weights .*pretraining_1' is neither"
    ):
        records.configured("words", "one", 1, tmp_path, tmp_path, folder)


def test_a_record_beats_what_was_better_before_it(folder):
    task = records.task_of("words", folder)
    first, worse = result(1.5), result([1.6, 1.7], "two")
    spent = result(1.0, "two", seconds=61.0)
    assert records.beats(first, [], task) == "first"
    assert records.beats(worse, [first], task) == "no, 1.5"
    assert records.beats(spent, [first], task) == "over the budget"
    assert records.beats(result(1.4), [first, worse, spent], task) == "yes, 1.65"
    assert not result(1.0).keeps(Budget(tokens=999))
    assert worse.told == "1.65 ± 0.071"
    assert first.told == "1.5"


def test_the_tables_are_made_of_the_last_results(folder):
    lines = [result(1.5), result(1.2, "one", commit="def")]
    text = "\n".join(json.dumps(line.model_dump()) for line in lines)
    (folder / records.RESULTS).write_text(text)
    told = {cells[0]: cells for cells in records.rows("words", folder)}
    assert told["one"][1:3] == ("2026-01-01", "def")
    assert told["one"][-2:] == ("1.2", "first")
    assert told["two"][-2] == "not measured yet"
    page = records.tables(folder)
    assert "### some words" in page
    assert "| [one](../" in page


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("configuration: {}", "a configuration or a peer"),
        ("peer: x\nmodel: {}", "unknown key model"),
        ("peer: [", "cannot be read"),
    ],
)
def test_a_mistake_is_a_line_that_names_the_file(folder, text, match):
    (folder / "words" / "one.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"one\.yaml.*{match}"):
        records.entry_of("words", "one", folder)
