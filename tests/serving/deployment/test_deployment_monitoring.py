"""A server takes serving/deployment's configuration, and its metrics are what is shown.

The server is started once, by the flags and files of the Compose file. Rules and
dashboard may ask only for what its metrics page then shows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import langzoo
import promql_parser
import pytest
import yaml
from langzoo.serving.client import Client
from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(langzoo.__file__).parent / "serving" / "deployment"
COMPOSE = yaml.safe_load((FOLDER / "compose" / "compose.yaml").read_text())
SERVICE = COMPOSE["services"]["tensorflow-serving"]
METRICS = "/monitoring/prometheus/metrics"
# What Prometheus adds to every series.
SCRAPED = {"job", "instance", "__name__"}
# Series of others: their name, and the labels that are asked for.
OTHERS = {
    "up": set(),  # Prometheus
    "ALERTS": {"alertstate", "alertname"},
    "container_memory_working_set_bytes": {"container"},  # cAdvisor
    "container_spec_memory_limit_bytes": {"container"},
    "container_cpu_usage_seconds_total": {"container"},
}
# Grafana puts these in before it asks.
VARIABLES = {"$model": "m", "$instance": "i", "$__rate_interval": "5m"}

Series = dict[str, set[str]]


# The server


@dataclass(frozen=True)
class RunningServer:
    """Addresses of a server, `host:port`."""

    grpc: str
    rest: str

    def get(self, path: str) -> str:
        """What a path answers."""
        with urllib.request.urlopen(f"http://{self.rest}{path}", timeout=30) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module")
def server(
    language_model: Path,
    push: Callable[[Path, Path, int], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    """The server that the Compose file starts, on free ports and other folders."""
    folder = tmp_path_factory.mktemp("deployed")
    (folder / "models").mkdir()
    push(language_model, folder / "models", 3)
    for file in (FOLDER / "config").glob("*.config"):
        text = file.read_text().replace("/models/langzoo", f"{folder}/models")
        (folder / file.name).write_text(text)
    flags = [
        re.sub(r"port=\d+", "port=0", flag).replace("/config/", f"{folder}/")
        for flag in SERVICE["command"]
    ]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "langzoo.serving.server", "--host=127.0.0.1"),
            *(f"--parent_pid={os.getpid()}", *flags),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _addresses(process)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _addresses(process: subprocess.Popen[str]) -> RunningServer:
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"gRPC on (\S+), REST on ([\w.:]+)", line):
            return RunningServer(*found.groups())
    raise AssertionError(f"the server ended with status {process.wait()}")


@pytest.fixture(scope="module")
def scraped(server: RunningServer) -> Series:
    """Each series that the server shows after some requests, and its labels."""
    texts = ["Raw text", "to a served", "language model"]
    with Client(server.grpc, "langzoo") as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda text: client.score([text]), texts * 8))
    assert len(answers) == 24
    with pytest.raises(urllib.error.HTTPError):
        server.get("/v1/models/another/metadata")
    samples = re.findall(r"^([\w:]+)\{(.*)\} \S+$", server.get(METRICS), re.M)
    assert samples
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in samples}


def test_server_serves_by_the_files(server: RunningServer) -> None:
    status = json.loads(server.get("/v1/models/langzoo"))

    assert [v["version"] for v in status["model_version_status"]] == ["3"]


def test_server_joins_requests_by_the_files(scraped: Series) -> None:
    assert ":tensorflow:serving:batching_session:wrapped_run_count" in scraped


def _check_health(address: str, path: str) -> int:
    """The status of the Compose file's check, of another address and path."""
    kind, *command = SERVICE["healthcheck"]["test"]
    assert kind == "CMD"
    host, _, port = address.partition(":")
    script = command[-1].replace("$$", "$")  # as Compose reads it
    assert "/dev/tcp/127.0.0.1/8501" in script
    assert "/v1/models/langzoo/metadata" in script
    script = script.replace("127.0.0.1/8501", f"{host}/{port}")
    script = script.replace("/v1/models/langzoo/metadata", path)
    return subprocess.run([*command[:-1], script], timeout=30).returncode


def test_health_check_knows_a_model_that_can_be_asked(server: RunningServer) -> None:
    assert _check_health(server.rest, "/v1/models/langzoo/metadata") == 0


@pytest.mark.parametrize("path", ["/v1/models/another/metadata", "/200"])
def test_health_check_knows_a_model_that_cannot(
    server: RunningServer, path: str
) -> None:
    assert _check_health(server.rest, path) != 0


def test_health_check_knows_a_server_that_is_not_there() -> None:
    assert _check_health("127.0.0.1:9", "/v1/models/langzoo/metadata") != 0


def test_probes_ask_what_only_a_served_model_answers(server: RunningServer) -> None:
    paths = set()
    for file in ("kubernetes/base/serving.yaml", "kserve/inference-service.yaml"):
        paths |= set(re.findall(r"path: (/v1/\S+)", (FOLDER / file).read_text()))

    (path,) = paths
    assert "metadata" in json.loads(server.get(path))


# Rules


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Rule(_Strict):
    record: str | None = Field(default=None, pattern=r"^\w+:\w+:\w+$")
    alert: str | None = Field(default=None, pattern=r"^[A-Z]\w+$")
    expr: str
    duration: str | None = Field(default=None, alias="for", pattern=r"^\d+[smh]$")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Group(_Strict):
    name: str
    rules: list[_Rule]


class _Rules(_Strict):
    groups: list[_Group]


RULES = [
    rule
    for group in _Rules.model_validate(
        yaml.safe_load((FOLDER / "monitoring" / "rules.yaml").read_text())
    ).groups
    for rule in group.rules
]
RECORDED = {rule.record: rule for rule in RULES if rule.record}


def _selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    found = []

    def visit(node: Any) -> None:
        # Their selector is a node of its own, and is visited as such.
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    yield from found


def _grouped(expression: str) -> set[str]:
    """The labels that an expression groups by anywhere."""
    labels: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return labels


def _check(expression: str, scraped: Series) -> None:
    """Fails where a series, or a label of one, does not exist."""
    recorded = {name: {"model_name"} for name in RECORDED}
    known = scraped | OTHERS | recorded
    selectors = list(_selectors(expression))
    assert selectors
    labels = SCRAPED.union(*(known.get(s.name, set()) for s in selectors))
    assert _grouped(expression) <= labels, expression
    for selector in selectors:
        assert selector.name in known, f"nothing shows {selector.name}"
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= known[selector.name] | SCRAPED, expression


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.record or rule.alert)
def test_rule_asks_for_what_there_is(rule: _Rule, scraped: Series) -> None:
    _check(rule.expr, scraped)


@pytest.mark.parametrize(
    "expression",
    [
        "rate(:tensorflow:serving:request_counts[5m])",
        'rate(:tensorflow:serving:request_count{model="langzoo"}[5m])',
        "sum by (model) (rate(:tensorflow:serving:request_count[5m]))",
    ],
)
def test_expression_on_what_is_not_there_is_found(
    expression: str, scraped: Series
) -> None:
    with pytest.raises(AssertionError):
        _check(expression, scraped)


def test_every_rule_either_records_or_alerts() -> None:
    for rule in RULES:
        assert (rule.record is None) != (rule.alert is None)
        if rule.alert:
            assert rule.labels["severity"] in ("warning", "critical")
            assert set(rule.annotations) == {"summary", "description"}
    names = [rule.record or rule.alert for rule in RULES]
    assert len(set(names)) == len(names)


def test_alerts_speak_of_labels_that_they_keep(scraped: Series) -> None:
    for rule in RULES:
        texts = " ".join(rule.annotations.values())
        spoken = set(re.findall(r"\$labels\.(\w+)", texts))
        known = SCRAPED | {"model_name"} | {"model_path"} | _grouped(rule.expr)
        assert spoken <= known
        groups = _grouped(rule.expr)
        assert not groups or spoken <= groups


def test_rules_and_dashboard_know_jobs_that_are_scraped() -> None:
    prometheus = yaml.safe_load((FOLDER / "monitoring/prometheus.yaml").read_text())
    jobs = {job["job_name"] for job in prometheus["scrape_configs"]}
    asked = {
        matcher.value
        for expression in [*(r.expr for r in RULES), *map(_filled, _expressions())]
        for selector in _selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "job"
    }

    assert asked == {"tensorflow-serving", "gateway"}
    assert asked <= jobs
    assert prometheus["rule_files"] == ["rules.yaml"]


# Dashboard

DASHBOARD = json.loads((FOLDER / "monitoring" / "dashboard.json").read_text())
PANELS = DASHBOARD["panels"]


def _expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def _filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_asks_for_what_there_is(panel: dict[str, Any], scraped: Series) -> None:
    for target in panel["targets"]:
        expression = _filled(target["expr"])
        assert "$" not in expression
        _check(expression, scraped)
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        if grouped := _grouped(expression):
            assert legend <= grouped


def test_dashboard_takes_any_data_source() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    asking = [*PANELS, *DASHBOARD["annotations"]["list"]]
    asking += [target for panel in PANELS for target in panel["targets"]]
    asking += [each for each in variables.values() if each["type"] == "query"]

    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert all(each["datasource"] == source for each in asking)
    assert set(variables) == {"datasource", "model", "instance"}


def test_dashboard_lists_models_and_servers_of_a_series(scraped: Series) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            found = re.fullmatch(r"label_values\((\S+), (\w+)\)", query)
            assert found
            assert found[2] in scraped[found[1]] | SCRAPED
            assert variable["definition"] == query


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_grafana_is_provisioned_where_compose_mounts() -> None:
    folder = FOLDER / "monitoring" / "grafana"
    (provider,) = yaml.safe_load((folder / "dashboards.yaml").read_text())["providers"]
    (source,) = yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"]
    grafana = COMPOSE["services"]["grafana"]
    mounted = dict(volume.rsplit(":")[:2] for volume in grafana["volumes"])

    path = f"{provider['options']['path']}/dashboard.json"
    assert mounted["../monitoring/dashboard.json"] == path
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == path
    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"
