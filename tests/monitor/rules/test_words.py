"""What people read is made of the table, or checked against it."""

from __future__ import annotations

from pathlib import Path

from fuseline.monitor.metrics import Metrics
from fuseline.monitor.rules import ALERTS, Options
from fuseline.monitor.rules.table import render
from fuseline.monitor.rules.words import alerts_page, readme

DOC = (Path(__file__).resolve().parents[3] / "docs" / "monitoring.md").read_text(encoding="utf-8")


def test_the_page_holds_the_table_as_it_is() -> None:
    assert DOC.endswith(alerts_page(Options())), 'put what alerts_page(Options()) gives under "## The alerts"'


def test_the_page_names_every_metric() -> None:
    for family in Metrics().registry.collect():
        assert f"`{family.name}{'_total' if family.type == 'counter' else ''}`" in DOC


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        assert f"| {alert.name} | {alert.severity} |" in readme(Options())
        assert len(alert.todo) > 60, alert.name
        assert "{{" not in alert.todo


def test_no_template_is_left_in_a_page() -> None:
    assert "{{" not in DOC
    assert "{{" not in readme(Options())


def test_render_fills_in_as_prometheus_does() -> None:
    text = "{{ $labels.model }}: {{ $value | humanizePercentage }} of {{ $labels.gone }}."
    assert render(text, {"model": r"a\1"}, "5%") == r"a\1: 5% of ."
