"""promtool unit tests: for every alert, series at which it fires, and series close by at which it stays silent.

Everything is per minute, in the unscaled time of the rules; `Options.span` scales all of it alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuseline.monitor.rules.options import MINUTE, Options
from fuseline.monitor.rules.table import ALERTS, JOB, Alert, render

Series = Mapping[str, str]
"""series -> values in promtool's notation"""
_LONG = 120
"""minutes that counters go on: longer than any test looks; a window longer than that sees what there is"""


@dataclass(frozen=True)
class Proof:
    labels: dict[str, str]
    """of the alert, without severity and area"""
    value: str
    """as the alert's text shows it"""
    fires: Series
    silent: dict[str, Series]
    """why silent -> series"""
    minutes: int
    """when it is looked at"""
    not_before: int = 0
    """minutes at which it is still waiting: within `for`"""


def _rising(start: float, step: float, minutes: int = _LONG) -> str:
    return f"{start:g}+{step:g}x{minutes}"


def _requests(**per_minute: float) -> Series:
    head = 'fuseline_requests_total{model="m",version="v",door="rest",code='
    return {f'{head}"{code}"}}': _rising(0, n) for code, n in per_minute.items()}


def _timed(total: float, quick: float, options: Options) -> Series:
    name, labels = "fuseline_request_seconds", 'model="m",door="rest"'
    le = f"{options.objective:g}" + (".0" if options.objective == int(options.objective) else "")
    return {
        f"{name}_count{{{labels}}}": _rising(0, total),
        f'{name}_bucket{{{labels},le="{le}"}}': _rising(0, quick),
        f'{name}_bucket{{{labels},le="+Inf"}}': _rising(0, total),
    }


def _rows(ok: float, error: float, decode: float = 0) -> Series:
    rows = 'fuseline_rows_total{model="m",version="v",outcome='
    return {
        f'{rows}"ok"}}': _rising(0, ok),
        f'{rows}"error"}}': _rising(0, error),
        'fuseline_decode_errors_total{model="m",column="scan"}': _rising(0, decode),
    }


def _absent(present: float, absent: float, reference: float) -> Series:
    rows = 'fuseline_input_rows_total{model="m",input="note",presence='
    out = {
        f'{rows}"present"}}': _rising(0, present),
        'fuseline_reference_absent_share{model="m",input="note"}': _rising(reference, 0),
    }
    return out | ({f'{rows}"absent"}}': _rising(0, absent)} if absent else {})


def _queue(waiting: float) -> Series:
    where = 'instance="a:1",model="m"'
    return {
        f"fuseline_waiting_rows{{{where}}}": _rising(waiting, 0),
        f"fuseline_queue_limit_rows{{{where}}}": _rising(256, 0),
    }


def _gauge(name: str, values: str) -> Series:
    return {f'{name}{{instance="a:1",model="m"}}': values}


def _budget(failing: Any, factor: float, options: Options) -> Proof:
    """`failing(share)` gives series of which that share fails. Fires a fifth above the threshold, not a fifth below."""
    share = round(factor * options.budget, 9)
    high, low = round(share * 1.2, 9), round(share * 0.8, 9)
    silent = {
        "a fifth below the threshold": failing(low, 100_000),
        "too few requests to tell": failing(1.0, 0.02),
        "no requests at all": failing(high, 0),
    }
    return Proof({"model": "m"}, f"{high * 100:.4g}%", failing(high, 100_000), silent, 70)


def proofs(options: Options) -> dict[str, Proof]:
    def errors(share: float, n: float) -> Series:
        return _requests(ok=round(n * (1 - share), 6), internal=round(n * share, 6))

    def slow(share: float, n: float) -> Series:
        return _timed(n, round(n * (1 - share), 6), options)

    out: dict[str, Proof] = {}
    for word, failing in (("Error", errors), ("Latency", slow)):
        for speed, factor in (("Fast", 14.4), ("Slow", 6), ("Leak", 1)):
            out[f"Fuseline{word}Budget{speed}"] = _budget(failing, factor, options)
    for speed in ("Fast", "Slow", "Leak"):
        out[f"FuselineErrorBudget{speed}"].silent.update(
            {
                "only the callers' own mistakes": _requests(ok=50, bad_rows=50, cancelled=50, rate_limited=50),
                "nobody waits for warm-up and shadow": {
                    f'fuseline_requests_total{{model="m",version="v",door="{door}",code="internal"}}': _rising(0, 100)
                    for door in ("warmup", "shadow")
                },
            }
        )
    model, here = {"model": "m"}, {"instance": "a:1", "model": "m"}
    restarts = 'fuseline_worker_restarts_total{instance="a:1"}'
    feature, drifted = 'fuseline_drift_alarm{model="m",feature="age"}', {"model": "m", "feature": "age"}
    up = f'up{{instance="a:1",job="{JOB}"}}'
    out |= {
        "FuselineErrorShare": Proof(
            model,
            "12%",
            _requests(ok=88, bad_rows=12),
            {
                "8 % of them": _requests(ok=92, bad_rows=8),
                "too few requests to tell": _requests(ok=0.88, bad_rows=0.12),
                "a model that does not exist": {
                    'fuseline_requests_total{model="other",version="",door="rest",code="unknown_model"}': _rising(0, 50)
                },
            },
            30,
            9,
        ),
        "FuselineRowErrors": Proof(
            model, "12%", _rows(88, 12), {"8 % of them": _rows(92, 8), "too few rows": _rows(0.88, 0.12)}, 30, 4
        ),
        "FuselineDecodeFailures": Proof(
            model | {"column": "scan"},
            "6%",
            _rows(94, 6, 6),
            {"4 % of them": _rows(96, 4, 4), "too few rows": _rows(0.94, 0.06, 0.06)},
            30,
            4,
        ),
        "FuselineQueueSaturated": Proof(here, "87.5%", _queue(224), {"three quarters full": _queue(192)}, 5, 1),
        "FuselineWorkerRestarts": Proof(
            {"instance": "a:1"},
            "3",
            {restarts: "0x10 1 2 3x20"},
            {"two": {restarts: "0x10 1 2x20"}, "a new server counts from 0": {restarts: "5x10 0x20"}},
            21,
        ),
        "FuselineNotReady": Proof(
            here,
            "0",
            _gauge("fuseline_ready", "1x5 0x20"),
            {
                "not for long": _gauge("fuseline_ready", "1x12 0x3 1x10"),
                "ready": _gauge("fuseline_ready", "1x30"),
            },
            16,
            9,
        ),
        "FuselineInstanceDown": Proof(
            {"instance": "a:1", "job": JOB},
            "0",
            {up: "1x5 0x20"},
            {"one missed scrape": {up: "1x9 0 1x20"}, "another job": {'up{instance="a:1",job="node"}': "0x30"}},
            10,
            7,
        ),
        "FuselineDrift": Proof(
            drifted, "1", {feature: "0x5 1x40"}, {"not for long": {feature: "0x20 1x10 0x20"}}, 30, 15
        ),
        "FuselineAbsentShare": Proof(
            model | {"input": "note"},
            "20%",
            _absent(8, 2, 0.4),
            {
                "as in training": _absent(6, 4, 0.4),
                "a little more": _absent(5, 5, 0.4),
                "too few rows": _absent(0.8, 0.2, 0.4),
            },
            90,
            10,
        ),
        "FuselineAccuracyDrop": Proof(
            here,
            "12%",
            _gauge("fuseline_live_accuracy", "0.9x59 0.7x60"),
            {
                "a little lower": _gauge("fuseline_live_accuracy", "0.9x59 0.87x60"),
                "higher": _gauge("fuseline_live_accuracy", "0.7x59 0.9x60"),
            },
            99,
            80,
        ),
    }
    return out


def unit_tests(options: Options) -> dict[str, Any]:
    """The file that `promtool test rules` reads: one group an alert, in which exactly one series fires."""
    known = proofs(options)
    return {
        "rule_files": ["../rules/recording.yml", "../rules/alerts.yml"],
        "evaluation_interval": options.span(MINUTE),
        "tests": [_group(alert, known[alert.name], options) for alert in ALERTS],
    }


def _group(alert: Alert, proof: Proof, options: Options) -> dict[str, Any]:
    series = dict(proof.fires)
    for why, silent in proof.silent.items():  # told apart by model or instance, which is named after the reason
        series |= {s.replace('"m"', f'"{why}"').replace('"a:1"', f'"{why}"'): values for s, values in silent.items()}
    texts = {"summary": alert.summary, "description": alert.description, "runbook": alert.todo}
    expected = {
        "exp_labels": {"severity": alert.severity, "area": alert.area, **proof.labels},
        "exp_annotations": {k: render(v, proof.labels, proof.value) for k, v in texts.items()},
    }
    looks: list[tuple[int, list[Any]]] = [(proof.not_before, [])] if proof.not_before else []
    return {
        "name": alert.name,
        "interval": options.span(MINUTE),
        "input_series": [{"series": s, "values": v} for s, v in series.items()],
        "alert_rule_test": [
            {"alertname": alert.name, "eval_time": options.span(minutes * MINUTE), "exp_alerts": alerts}
            for minutes, alerts in [*looks, (proof.minutes, [expected])]
        ],
    }
