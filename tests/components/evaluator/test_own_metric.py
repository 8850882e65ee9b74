"""A metric of the user's own: found by name, judged with intervals, told in words."""

from __future__ import annotations

import json
import textwrap

import pytest
from langzoo.components.evaluator.component import Evaluator
from langzoo.components.evaluator.gate import verdict
from langzoo.components.evaluator.measured import Measured
from langzoo.components.evaluator.measures.metric import own
from langzoo.components.evaluator.measures.sums import CorpusSums, row, seed_of
from langzoo.components.evaluator.settings import EvaluatorSettings, RuleSettings
from langzoo.pipelines.configuration.loading import ConfigError, load
from langzoo.pipelines.report import page
from langzoo.pipelines.report.data import RunReport
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

METRIC = """
    from langzoo.components.evaluator.measures.metric import Metric

    from .arithmetic import ratio

    bytes_per_token = Metric(
        "bytes_per_token",
        unit="bytes",
        better="higher",
        definition="Bytes of text that a token stands for.",
        compute=ratio,
    )
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Name of a package that writes modules; of each the source is given."""
    folder = tmp_path_factory.mktemp("own") / "own_measures"
    folder.mkdir()
    ratio = "def ratio(sums):\n    return sums['bytes'] / sums['tokens']\n"
    (folder / "arithmetic.py").write_text(ratio)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder.parent))

        def write(module, source):
            (folder / f"{module}.py").write_text(textwrap.dedent(source))
            return f"own_measures.{module}"

        yield write


@pytest.fixture(scope="module")
def reference(package):
    return f"{package('sizes', METRIC)}:bytes_per_token"


def corpus(bytes_per_token):
    """Documents whose tokens stand for about so many bytes."""
    rows = []
    for index in range(40):
        tokens = 30 + index
        size = bytes_per_token * tokens + index % 3
        sums = {"nll": 50.0, "tokens": tokens, "bytes": size, "words": 9}
        rows.append((seed_of(f"document {index}".encode()), row(sums)))
    return CorpusSums.of(rows)


@pytest.fixture(scope="module")
def measured(reference):
    """A candidate that is better by 0.5, and the last blessed model."""
    values = {"candidate": 4.5, "last_blessed": 4.0}
    sums = {name: {"overall": corpus(value)} for name, value in values.items()}
    return Measured(sums=sums, own={"bytes_per_token": own(reference)})


def test_it_is_judged_as_ours_are(reference, measured, tmp_path):
    rules = [
        RuleSettings(metric=reference, min=4.4, max=9, significant=True),
        RuleSettings(
            metric=reference, against="last_blessed", margin=0.4, significant=True
        ),
    ]
    settings = EvaluatorSettings(rules=rules)
    assert settings.own_metrics == {"bytes_per_token": reference}
    decision = verdict.decide(settings.bounds, measured)
    *_, least, most, better = decision.verdict.rules
    assert least.rule == "bytes_per_token >= 4.4, significantly"
    assert most.rule == "bytes_per_token <= 9, significantly"
    assert better.rule == "bytes_per_token >= last_blessed + 0.4, significantly"
    assert least.passed
    assert most.passed
    assert better.passed
    low, high = least.interval
    assert low < least.value < high
    assert least.value == pytest.approx(4.5, abs=0.05)
    # Both are measured without the same documents.
    assert better.interval == pytest.approx((least.value, least.value))
    decision.evaluation.write(str(tmp_path))
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert told["definitions"]["bytes_per_token"] == {
        "name": "bytes per token",
        "unit": "bytes",
        "definition": "Bytes of text that a token stands for.",
        "source": "",
        "better": "higher",
    }
    overall = told["models"]["last_blessed"]["slices"]["overall"]["metrics"]
    assert overall["bytes_per_token"]["value"] == pytest.approx(4, abs=0.05)


def test_the_report_tells_it_in_words(measured):
    started = "2026-01-02T03:04:05"
    report = RunReport(
        pipeline="own",
        run_id="1",
        started=started,
        seconds=1,
        evaluation=measured.record,
    )
    shown = page.run_page(report)
    assert "<th>bytes per token</th>" in shown
    assert "Bytes of text that a token stands for." in shown


def test_a_configuration_names_it(reference):
    rule = f"{{metric: '{reference}', min: 2, slice: length=0-255}}"
    gate = load(settings=[f"gate.rules=[{rule}]"]).gate
    assert str(gate.rules_of("causal_lm")[-1]) == "bytes_per_token of length=0-255 >= 2"


def test_its_source_is_in_the_cache_key(reference, package):
    def key():
        component = Evaluator(
            examples=Channel(type=standard_artifacts.Examples),
            model=Channel(type=standard_artifacts.Model),
            settings=EvaluatorSettings(rules=[RuleSettings(metric=reference, min=2)]),
        )
        return component.exec_properties["source_hash"]

    before = key()
    assert key() == before
    # Of what its module imports, too.
    package("arithmetic", "def ratio(sums):\n    return sums['words']\n")
    assert key() != before


def broken(**changes):
    """The source of a metric that breaks the contract."""
    settings = {
        "unit": "''",
        "better": "'lower'",
        "definition": "'It is.'",
        "compute": "lambda sums: sums['nll']",
        **changes,
    }
    given = ", ".join(f"{key}={value}" for key, value in settings.items())
    return (
        "from langzoo.components.evaluator.measures.metric import Metric\n"
        f"metric = Metric({given})\n"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("metrics = 1", "the module has no metric"),
        ("import absent", "No module named 'absent'"),
        ("metric = 1 / 0", "ZeroDivisionError: division by zero"),
        (
            "metric = abs",
            "it is no langzoo.components.evaluator.measures.metric.Me",
        ),
        (broken(name="'a b'"), "its name 'a b' is not of small letters"),
        (broken(name="'perplexity'"), "has the name perplexity, which is one of ours"),
        (broken(name="'mine'", better="'more'"), "better is lower or higher, not 'mo"),
        (broken(name="'mine'", definition="''"), "it has no definition"),
        (broken(name="'mine'", compute="None"), "it has no function compute"),
        (
            broken(name="'mine'", compute="lambda sums: sums['letters']"),
            "compute fails: KeyError: \"there is no sum 'letters': there are docu",
        ),
        (
            broken(name="'mine'", compute="lambda sums: sums['nll'].mean()"),
            "compute must give as many numbers as a column, [11], and gives float64 []",
        ),
    ],
)
def test_what_is_no_metric_is_refused_in_one_line(package, request, source, said):
    module = package(f"broken_{request.node.callspec.indices['source']}", source)
    with pytest.raises(ConfigError) as raised:
        load(settings=[f"gate.rules=[{{metric: '{module}:metric', max: 1}}]"])
    assert said in str(raised.value)
    assert module in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"absent\.measures:mine: no such mod"):
        load(settings=["gate.rules=[{metric: 'absent.measures:mine', max: 1}]"])


def test_two_of_one_name_are_refused(package, reference):
    other = f"{package('others', METRIC)}:bytes_per_token"
    rules = [RuleSettings(metric=metric, min=2) for metric in (reference, other)]
    with pytest.raises(ValueError, match="are both called bytes_per_token"):
        EvaluatorSettings(rules=rules)
