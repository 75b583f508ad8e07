"""The Grafana dashboard: its structure, and that every expression parses and asks for what the server tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from fuseline.monitor.metrics import Metrics
from fuseline.monitor.rules import Options, texts
from fuseline.monitor.rules.dashboard import WIDTH

MADE = texts(Options())
BOARD: dict[str, Any] = json.loads(MADE["grafana/fuseline.json"])
PANELS: list[dict[str, Any]] = BOARD["panels"]


def expressions() -> Iterator[str]:
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$model", ".*")


def rules() -> Iterator[str]:
    for name in ("rules/recording.yml", "rules/alerts.yml"):
        for rule in yaml.safe_load(MADE[name])["groups"][0]["rules"]:
            yield rule["expr"]


def recorded() -> set[str]:
    return {rule["record"] for rule in yaml.safe_load(MADE["rules/recording.yml"])["groups"][0]["rules"]}


def exported() -> set[str]:
    """The series that the real observer exports."""
    out: set[str] = set()
    for family in Metrics().registry.collect():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        out |= {family.name + end for end in ends}
    return out


def test_the_structure_is_what_grafana_reads() -> None:
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= set(BOARD)
    assert [v["name"] for v in BOARD["templating"]["list"]] == ["source", "model"]
    ids = [p["id"] for p in PANELS]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert 0 < place["w"] <= WIDTH - place["x"]
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["type"] in {"timeseries", "stat", "table"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        refs = [t["refId"] for t in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))
        assert all(t["expr"] for t in panel["targets"])


def test_no_panel_covers_another() -> None:
    for a, b in combinations([p["gridPos"] for p in PANELS], 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


def test_every_expression_parses(tmp_path: Path, checked: Callable[..., str]) -> None:
    made = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    assert f"{len(made)} rules found" in checked(tmp_path, "promtool", "check", "rules", "rules.yml")


def test_every_metric_is_one_that_the_server_exports() -> None:
    known = exported()
    assert len(known) > 25
    for expr in [*expressions(), *rules()]:
        bare = re.sub(r'"[^"]*"', "", expr)
        assert set(re.findall(r"model:\w+:\w+", bare)) <= recorded(), expr
        asked = set(re.findall(r"\bfuseline_\w+", re.sub(r"model:\w+:\w+", "", bare)))
        assert asked <= known, expr


def test_every_metric_that_the_server_exports_is_shown() -> None:
    shown = " ".join([*expressions(), *rules()])
    assert {n for n in exported() if re.sub(r"_(bucket|sum|count)$", "", n) not in shown} == set()


@pytest.mark.parametrize("topic", ["Requests", "Failed share", "Latency", "Rows waiting", "Drift scores", "Models"])
def test_the_topics_are_there(topic: str) -> None:
    assert topic in {p["title"] for p in PANELS}
