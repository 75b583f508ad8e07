"""The Grafana dashboard: one visible table of panels, and the JSON made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fuseline.monitor.rules.options import Options

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_M = 'model=~"$model"'
_ASKED = f'{_M},door!~"warmup|shadow"'
_RATE = "$__rate_interval"
WIDTH = 24
"""columns of Grafana's grid"""
_HEIGHT = 8


@dataclass(frozen=True)
class Panel:
    title: str
    lines: tuple[tuple[str, str], ...]
    """(PromQL, legend)"""
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    about: str = ""
    stacked: bool = False
    mark: float | None = None
    """a value to draw a red line at"""


def _quantile(q: float, name: str, by: str = "model", where: str = _M) -> str:
    return f"histogram_quantile({q}, sum by ({by}, le) (rate({name}_bucket{{{where}}}[{_RATE}])))"


def _quantiles(name: str, where: str = _M) -> tuple[tuple[str, str], ...]:
    return tuple((_quantile(q, name, where=where), f"{{{{model}}}} p{q * 100:g}") for q in (0.5, 0.95, 0.99))


def _rate(name: str, by: str, where: str = _M) -> str:
    return f"sum by ({by}) (rate({name}{{{where}}}[{_RATE}]))"


def _mean(name: str) -> str:
    return f"{_rate(f'{name}_sum', 'model')} / {_rate(f'{name}_count', 'model')}"


def rows(options: Options) -> tuple[tuple[str, tuple[Panel, ...]], ...]:
    """(heading, panels)"""
    absent = _rate("fuseline_input_rows_total", "model, input", f'{_M},presence="absent"')
    inputs = _rate("fuseline_input_rows_total", "model, input")
    labels, all_labels = (
        _rate("fuseline_predictions_total", "model, label"),
        _rate("fuseline_predictions_total", "model"),
    )
    return (
        (
            "Now",
            (
                Panel(
                    "Alerts firing",
                    (
                        (
                            'sum by (alertname, severity, model) (ALERTS{alertname=~"Fuseline.*",alertstate="firing"})',
                            "",
                        ),
                    ),
                    kind="table",
                    width=12,
                ),
                Panel(
                    "Models",
                    ((f"sum by (model, version, task, fuseline) (fuseline_model_info{{{_M}}})", ""),),
                    kind="table",
                    width=12,
                    about="Instances that serve each version.",
                ),
                Panel("Instances up", (('sum(up{job="fuseline"})', "up"),), kind="stat", width=4),
                Panel("Ready", ((f"min by (model) (fuseline_ready{{{_M}}})", "{{model}}"),), kind="stat", width=4),
                Panel("Workers", (("sum(fuseline_workers)", "workers"),), kind="stat", width=4),
                Panel(
                    "Worker restarts in 1 h",
                    (("sum(increase(fuseline_worker_restarts_total[1h]))", "restarts"),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Live accuracy",
                    ((f"avg by (model) (fuseline_live_accuracy{{{_M}}})", "{{model}}"),),
                    "percentunit",
                    8,
                    about="Where labels came.",
                ),
            ),
        ),
        (
            "Traffic and errors",
            (
                Panel(
                    "Requests", ((_rate("fuseline_requests_total", "code", _ASKED), "{{code}}"),), "reqps", stacked=True
                ),
                Panel("Rows", ((_rate("fuseline_rows_total", "outcome"), "{{outcome}}"),), "rowsps", stacked=True),
                Panel(
                    "Failed share",
                    ((f"model:fuseline_failed:ratio_rate5m{{{_M}}}", "{{model}}"),),
                    "percentunit",
                    about="Requests that got no answer through the server's fault. The line is the error budget.",
                    mark=options.budget,
                ),
                Panel(
                    "Requests by version",
                    ((_rate("fuseline_requests_total", "model, version", _ASKED), "{{model}} {{version}}"),),
                    "reqps",
                ),
                Panel("Requests by door", ((_rate("fuseline_requests_total", "door"), "{{door}}"),), "reqps"),
                Panel(
                    "Cells that cannot be read",
                    ((_rate("fuseline_decode_errors_total", "model, column"), "{{model}} {{column}}"),),
                    "cps",
                ),
            ),
        ),
        (
            "Time",
            (
                Panel("Latency", _quantiles("fuseline_request_seconds", _ASKED), "s", mark=options.objective),
                Panel("Time in the queue", _quantiles("fuseline_queue_seconds"), "s"),
                Panel("Time in the graph", _quantiles("fuseline_compute_seconds"), "s"),
                Panel(
                    "Share above the objective",
                    ((f"model:fuseline_slow:ratio_rate5m{{{_M}}}", "{{model}}"),),
                    "percentunit",
                    mark=options.budget,
                ),
                Panel(
                    "Rows waiting",
                    (
                        (f"sum by (model) (fuseline_waiting_rows{{{_M}}})", "{{model}}"),
                        (f"sum by (model) (fuseline_queue_limit_rows{{{_M}}})", "{{model}} limit"),
                    ),
                ),
                Panel(
                    "Rows of a batch",
                    (
                        (
                            _mean("fuseline_batch_rows"),
                            "{{model}} mean",
                        ),
                        (_quantile(0.95, "fuseline_batch_rows"), "{{model}} p95"),
                    ),
                ),
            ),
        ),
        (
            "What comes in and goes out",
            (
                Panel(
                    "Absent share of each input",
                    (
                        (f"({absent} or 0 * {inputs}) / {inputs}", "{{model}} {{input}}"),
                        (
                            f"max by (model, input) (fuseline_reference_absent_share{{{_M}}})",
                            "{{model}} {{input}} in training",
                        ),
                    ),
                    "percentunit",
                    12,
                ),
                Panel(
                    "Answers",
                    ((f"{labels} / on (model) group_left () {all_labels}", "{{model}} {{label}}"),),
                    "percentunit",
                    12,
                    stacked=True,
                ),
                Panel("Predicted values", _quantiles("fuseline_prediction_value"), width=12),
                Panel(
                    "Rows that drift was checked on",
                    ((f"max by (model) (fuseline_drift_rows{{{_M}}})", "{{model}}"),),
                    width=12,
                ),
                Panel(
                    "Drift scores",
                    (
                        (
                            f"max by (model, feature, test) (fuseline_drift_score{{{_M}}})",
                            "{{model}} {{feature}} {{test}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Drift alarms",
                    ((f"max by (model, feature) (fuseline_drift_alarm{{{_M}}}) > 0", "{{model}} {{feature}}"),),
                    width=12,
                    about="After correction for testing many features.",
                ),
            ),
        ),
    )


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    if panel.mark is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.mark}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    out: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": _HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": _SOURCE,
                "expr": expr,
                "legendFormat": legend or "__auto",
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for i, (expr, legend) in enumerate(panel.lines)
        ],
    }
    if panel.kind == "table":
        out["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]
    return out


def _place(panels: Sequence[Panel], number: int, y: int) -> tuple[list[dict[str, Any]], int]:
    """Left to right, and on to the next line where the grid ends. Returns the panels and the next free line."""
    out: list[dict[str, Any]] = []
    x = 0
    for panel in panels:
        if x + panel.width > WIDTH:
            x, y = 0, y + _HEIGHT
        out.append(_panel(panel, number + len(out), x, y))
        x += panel.width
    return out, y + _HEIGHT


def dashboard(options: Options) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for heading, row in rows(options):
        where = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": heading, "collapsed": False, "gridPos": where, "panels": []}
        )
        placed, y = _place(row, len(panels) + 1, y + 1)
        panels += placed
    variables = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "model",
            "label": "Model",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": "label_values(fuseline_ready, model)", "refId": "models"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]
    return {
        "uid": "fuseline",
        "title": "Fuseline",
        "tags": ["fuseline"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": panels,
    }
