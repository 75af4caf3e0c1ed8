"""The page for Prometheus, and what is shipped beside it: each name there is on the page."""

import json
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml
from cluster_model import ModelCluster
from prometheus_client.parser import text_string_to_metric_families

from burla.scheduler.config import ConfigError, metrics_address
from burla.scheduler.core.figures import figures
from burla.scheduler.shell.metrics import Metrics

OPERATING = Path(__file__).parents[3] / "docs" / "operating"
NAME = re.compile(r"\b(burla_\w+|process_\w+)")


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    made = Metrics(("127.0.0.1", 0), tmp_path, "1.2.3")
    yield made
    made.close()


def page(metrics: Metrics) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return the values on the page by name and the value of the only label."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page(metrics))
        for sample in family.samples
    }


def published(metrics: Metrics) -> dict[tuple[str, str], float]:
    cluster = ModelCluster()
    cluster.node()
    cluster.client()
    metrics.publish(figures(cluster.core.state))
    return samples(metrics)


def test_the_page_has_the_figures_that_were_published_last(metrics: Metrics) -> None:
    first = samples(metrics)
    assert ("burla_build_info", "1.2.3") in first
    assert ("burla_jobs", "running") not in first, "nothing was published yet"
    found = published(metrics)
    assert found["burla_jobs", "running"] == 1
    assert found["burla_nodes", "leased"] == 1
    assert found["burla_jobs_opened_total", ""] == 1
    assert found["burla_call_duration_seconds_bucket", "+Inf"] == 0
    assert found["burla_disk_free_bytes", ""] > 0
    assert found["process_resident_memory_bytes", ""] > 0
    assert not metrics.is_due()


def test_no_name_belongs_to_a_job_a_user_or_a_node(metrics: Metrics) -> None:
    published(metrics)
    families = list(text_string_to_metric_families(page(metrics)))
    labels = {label for f in families for sample in f.samples for label in sample.labels}
    assert labels <= {"state", "quota", "le", "version"}
    assert 20 <= len([f for f in families if f.name.startswith("burla_")]) <= 30
    assert all(family.documentation for family in families)


def test_who_connects_and_says_nothing_holds_up_nobody_for_long(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.scheduler.shell.metrics._Handler.timeout", 0.05)
    with socket.create_connection(("127.0.0.1", metrics.port)):
        assert "burla_build_info" in page(metrics)


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    made = Metrics(("127.0.0.1", 0), tmp_path, "1")
    port = made.port
    with pytest.raises(ConfigError, match=f"--metrics 127.0.0.1:{port}: Address already in use"):
        Metrics(("127.0.0.1", port), tmp_path, "1")
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "burla-metrics"]
    again = Metrics(("127.0.0.1", port), tmp_path, "1")
    again.close()


@pytest.mark.parametrize("text", ["9464", ":9464", "host:", "host:x", "host:70000", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be HOST:PORT"):
        metrics_address(text)


def test_addresses_have_a_host_and_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metrics_address("127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert metrics_address("[::1]:1") == ("::1", 1)
    monkeypatch.setattr("burla.scheduler.config.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install"):
        metrics_address("127.0.0.1:9464")


# --- what is shipped ---


def rules() -> list[dict[str, object]]:
    (group,) = yaml.safe_load((OPERATING / "alerts.yaml").read_text())["groups"]
    found: list[dict[str, object]] = group["rules"]
    return found


def expressions() -> dict[str, str]:
    """Return all expressions that are shipped, by where they are."""
    found = {f"alert {rule['alert']}": str(rule["expr"]) for rule in rules()}
    board = json.loads((OPERATING / "grafana.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            found[f"panel {panel['title']}, {target['refId']}"] = target["expr"]
    return found


def test_each_name_in_alerts_and_panels_is_on_the_page(metrics: Metrics) -> None:
    there = {name for name, _ in published(metrics)}
    for where, expression in expressions().items():
        assert set(NAME.findall(expression)) <= there, where


def test_alerts_say_what_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 6
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule
        assert isinstance(rule["annotations"], dict)
        assert set(rule["annotations"]) == {"summary", "description"}, rule


def test_prometheus_takes_alerts_and_panels() -> None:
    """By the grammar and the types of PromQL; `for` is a duration."""
    for where, expression in expressions().items():
        assert promql_parser.parse(re.sub(r"\$__\w+", "5m", expression)), where
    for rule in rules():
        assert promql_parser.parse_duration(str(rule["for"]))


def test_the_page_about_metrics_names_each_of_them(metrics: Metrics) -> None:
    text = (OPERATING.parent / "metrics.md").read_text()
    rows = {name for line in text.splitlines() if line[:3] == "| `" for name in NAME.findall(line)}
    published(metrics)
    families = text_string_to_metric_families(page(metrics))
    there = {(f.name, f"{f.name}_total" if f.type == "counter" else f.name) for f in families}
    names = {long if long in rows else short for short, long in there}
    ours = {name for name in names if name.startswith("burla_")}
    assert {name.removesuffix("_info") for name in rows if name.startswith("burla_")} == {
        name.removesuffix("_info") for name in ours
    }
